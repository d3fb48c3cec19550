package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"lifeboat/activities"
)

// reapEvery is how often a worker looks for what dead ones left, besides at its start.
const reapEvery = 10 * time.Minute

// keepReaping removes what dead workers left on this host, now and from time to time, until stopped.
func keepReaping(ctx context.Context, c client.Client, runner *activities.Runner, logger *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	state := func(ctx context.Context, workflowID, runID string) (activities.RunState, error) {
		return runState(ctx, c, workflowID, runID)
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(reapEvery)
		defer tick.Stop()
		for {
			if err := runner.Reap(ctx, state); err != nil && ctx.Err() == nil {
				logger.Warn("what a dead worker left could not be removed; it is tried again", "in", reapEvery, "error", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// runState asks Temporal for one run. It answers from the run itself and not from a list, which may be late.
func runState(ctx context.Context, c client.Client, workflowID, runID string) (activities.RunState, error) {
	d, err := c.DescribeWorkflowExecution(ctx, workflowID, runID)
	var unknown *serviceerror.NotFound
	switch {
	case errors.As(err, &unknown):
		return activities.RunUnknown, nil
	case err != nil:
		return activities.RunUnknown, err
	case d.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return activities.RunAlive, nil
	}
	return activities.RunEnded, nil
}
