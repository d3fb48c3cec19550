package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// drill is workflow Drill: a rehearsed disaster. Whatever happens to it, files and server are removed, and the report
// is published, also that of a drill that failed or was cancelled: evidence that leaves out the bad days is none.
func (o Options) drill(ctx workflow.Context, raw converter.RawValue) (contract.DrillResult, error) {
	var none contract.DrillResult
	in, err := decode[contract.DrillInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	if in.Target, err = absolute(ctx, in.Target); err != nil {
		return none, err
	}
	if in.Scenario == "" {
		in.Scenario = contract.ScenarioRestore
	}
	d := newRehearsal(ctx, in)
	if d.t, err = o.track(ctx, in.Cluster, "Drill "+d.report.DrillID, phasePrepare, phasePlan, phaseFiles, phaseProve,
		phaseCleanUp, phaseReport); err != nil {
		return none, err
	}
	err = d.run(ctx)
	outcome := d.outcome()
	if why := d.t.skip(ctx, err); why != "" {
		d.report.Verdict, d.report.Skipped = contract.Skipped, why
		outcome, err = skippedOutcome(why), nil
	}
	if err := d.t.finish(ctx, outcome, err); err != nil {
		return none, err
	}
	return d.report.DrillResult, nil
}

// rehearsal is one drill under way.
type rehearsal struct {
	t      *tracker
	in     contract.DrillInput
	report contract.Report
	// host and dir are where files may lie; empty until the drill was prepared.
	host onHost
	dir  string
	// failedAt is the activity that ended the drill early.
	failedAt string
}

func newRehearsal(ctx workflow.Context, in contract.DrillInput) *rehearsal {
	info := workflow.GetInfo(ctx)
	now := workflow.Now(ctx).UTC()
	return &rehearsal{in: in, report: contract.Report{
		Format: contract.ReportFormat,
		DrillResult: contract.DrillResult{
			DrillID: contract.DrillID(now, info.WorkflowExecution.RunID), Cluster: in.Cluster, Scenario: in.Scenario,
			Checks: []contract.CheckResult{}, WorkflowID: info.WorkflowExecution.ID,
		},
		Target: in.Target, StartedAt: now,
		Plan: json.RawMessage("null"),
	}}
}
