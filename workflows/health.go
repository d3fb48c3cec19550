package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// health is workflow HealthCheck: one activity. A run that a schedule starts goes on from the schedule's last result, so
// that findings open and close over several runs; see decision 0015.
func (o Options) health(ctx workflow.Context, raw converter.RawValue) (contract.HealthCheckResult, error) {
	var none contract.HealthCheckResult
	in, err := decode[contract.HealthCheckInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	subject := "What is seen opens at once: there was no check before"
	if in.Previous == nil {
		in.Previous = lastHealth(ctx, in.Cluster)
	}
	if in.Previous != nil {
		subject = fmt.Sprintf("After the check of %s", in.Previous.At.UTC().Format("2006-01-02 15:04:05Z"))
	}
	t, err := o.track(ctx, in.Cluster, subject, phaseHealth)
	if err != nil {
		return none, err
	}
	result, err := phase(ctx, t, phaseHealth, call{
		activity: contract.CheckHealthActivity, summary: "check the health of " + in.Cluster,
	}, in, healthFigures)
	result.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	t.progress.Verdict = result.Verdict
	if err := t.finish(ctx, healthOutcome(result), err); err != nil {
		return none, err
	}
	return result, nil
}

// lastHealth is what the last run of the same schedule found; nil: there was none, or it cannot be read. A run that
// failed left nothing, and the one before it counts.
func lastHealth(ctx workflow.Context, cluster string) *contract.HealthMemory {
	var last contract.HealthCheckResult
	if !workflow.HasLastCompletionResult(ctx) {
		return nil
	}
	if err := workflow.GetLastCompletionResult(ctx, &last); err != nil || last.Cluster != cluster {
		return nil
	}
	return last.Memory()
}

func healthFigures(r contract.HealthCheckResult) string {
	open := 0
	for _, f := range r.Findings {
		if f.Status == contract.FindingOpen {
			open++
		}
	}
	text := parts(fmt.Sprintf("%d findings open", open), fmt.Sprintf("%d opened", len(r.Opened)), fmt.Sprintf("%d closed", len(r.Closed)))
	if n := len(r.NotLookedAt); n > 0 {
		text = parts(text, fmt.Sprintf("%d areas not looked at", n))
	}
	return text
}

// healthOutcome tells the worst findings; the result has all.
func healthOutcome(r contract.HealthCheckResult) string {
	text := "Checked."
	const most = 5
	told := 0
	for _, f := range r.Findings {
		if f.Status != contract.FindingOpen {
			continue
		}
		if told++; told > most {
			return text + " More stands in the result."
		}
		text += fmt.Sprintf(" %s %s: %s.", f.Severity, f.ID, f.Evidence)
	}
	for _, u := range r.NotLookedAt {
		if told++; told > most {
			return text + " More stands in the result."
		}
		text += fmt.Sprintf(" Not looked at: %s, %s.", u.Area, u.Reason)
	}
	return text
}
