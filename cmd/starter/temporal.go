package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

// start says which workflow to start and how it shows in the UI.
type start struct {
	workflow, verb, cluster string
	id                      string // typed by a person; "" makes one
	input                   any
	summary                 string
	queue                   string
}

// errDetached says that the program stopped waiting; the work goes on.
var errInterrupted = errors.New("stopped waiting; the work goes on")

// dial connects to Temporal by its standard environment.
func (a *app) dial(ctx context.Context) (client.Client, error) {
	opts, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, &usageError{fmt.Errorf("read Temporal's settings: %w", err)}
	}
	logger, err := a.logger()
	if err != nil {
		return nil, err
	}
	opts.Logger = log.NewStructuredLogger(logger)
	c, err := client.DialContext(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("connect to Temporal: %w; TEMPORAL_ADDRESS names the server, and --local works without one", err)
	}
	return c, nil
}

// workflowID names a run of a verb; a person may type another.
func workflowID(verb, cluster string, now time.Time) string {
	var random [2]byte
	_, _ = rand.Read(random[:])
	return fmt.Sprintf("lifeboat-%s-%s-%s-%s", verb, cluster, now.UTC().Format("20060102T150405Z"), hex.EncodeToString(random[:]))
}

// run starts a workflow and, unless detached, waits for its result.
func (a *app) run(ctx context.Context, c client.Client, s start, detach bool, result any) (id string, err error) {
	if s.id == "" {
		s.id = workflowID(s.verb, s.cluster, time.Now())
	}
	if s.queue == "" {
		s.queue = contract.DefaultTaskQueue
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: s.id, TaskQueue: s.queue, WorkflowExecutionErrorWhenAlreadyStarted: true, StaticSummary: s.summary,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(contract.AttributeCluster).ValueSet(s.cluster)),
	}, s.workflow, s.input)
	if err != nil {
		return s.id, fmt.Errorf("start workflow %s: %w", s.workflow, err)
	}
	a.note("workflow %s%s", s.id, a.link(run))
	if detach {
		return s.id, nil
	}
	stop := a.follow(ctx, c, run)
	err = run.Get(ctx, result)
	stop()
	if ctx.Err() != nil {
		a.note("the work goes on: %s", s.id)
		return s.id, errInterrupted
	}
	return s.id, err
}

// link is where the run shows in the UI, if that is known.
func (a *app) link(run client.WorkflowRun) string {
	ui, ok := a.env("TEMPORAL_UI_ADDRESS")
	if !ok || ui == "" {
		return ""
	}
	return fmt.Sprintf("  %s/namespaces/default/workflows/%s/%s", ui, run.GetID(), run.GetRunID())
}

// follow prints progress from the heartbeats of running activities until stopped.
func (a *app) follow(ctx context.Context, c client.Client, run client.WorkflowRun) (stop func()) {
	if a.quiet || a.json {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		last := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			d, err := c.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID())
			if err != nil {
				continue
			}
			for _, act := range d.GetPendingActivities() {
				var p contract.Progress
				if converter.GetDefaultDataConverter().FromPayloads(act.GetHeartbeatDetails(), &p) != nil || p.Phase == "" {
					continue
				}
				if line := progressLine(p); line != last {
					a.note("%s", line)
					last = line
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func progressLine(p contract.Progress) string {
	s := p.Phase
	if p.Total > 0 {
		s += fmt.Sprintf(" %d%% of %.1f MB", min(100, p.Done*100/p.Total), float64(p.Total)/1e6)
	}
	if p.Rate > 0 {
		s += fmt.Sprintf(" at %.1f MB/s", p.Rate/1e6)
	}
	if p.Waiting != "" {
		s += ", waiting for " + p.Waiting
	}
	return s
}

// note prints a line for people, to stderr.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}
