package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// run rehearses, cleans up, judges and publishes. Its error ends the workflow as failed or cancelled; all other
// failures are a verdict.
func (d *rehearsal) run(ctx workflow.Context) error {
	failure := d.rehearse(ctx)
	if d.neverBegan(failure) || d.failedAt == contract.PrepareDrillActivity && busyOnSchedule(ctx, failure) {
		return failure
	}
	// From here on a cancellation must not stop the run any more.
	lasting, release := workflow.NewDisconnectedContext(ctx)
	defer release()
	leftBehind := d.cleanUp(lasting)
	d.conclude(lasting, failure, leftBehind)
	if err := d.publish(lasting); err != nil {
		return err
	}
	if failure != nil && (ctx.Err() != nil || temporal.IsCanceledError(failure)) {
		return temporal.NewCanceledError()
	}
	return nil
}

// neverBegan tells a drill that was asked for wrongly from one that found something: if the input or the configuration
// is at fault before anything was prepared, the person must learn just that, and there is nothing to report.
func (d *rehearsal) neverBegan(failure error) bool {
	if failure == nil || d.failedAt != contract.PrepareDrillActivity {
		return false
	}
	kind := errorType(failure)
	return kind == contract.ErrorInvalidInput || kind == contract.ErrorConfiguration
}

// rehearse goes through the disaster. What it learns is in the report, also when it returns an error.
func (d *rehearsal) rehearse(ctx workflow.Context) error {
	r := &d.report
	d.failedAt = contract.PrepareDrillActivity
	prepared, err := phase(ctx, d.t, phasePrepare, call{
		activity: contract.PrepareDrillActivity,
		summary:  "choose host and target of the drill of " + d.in.Cluster,
	}, contract.PrepareDrillInput{Cluster: d.in.Cluster, DrillID: r.DrillID, Target: d.in.Target}, prepareFigures)
	if err != nil {
		return err
	}
	if prepared.Host == "" || prepared.Queue == "" || prepared.TargetDir == "" {
		return temporal.NewNonRetryableApplicationError(contract.PrepareDrillActivity+
			" named no host, queue or directory; are all workers of one version?", contract.ErrorConfiguration, nil)
	}
	d.host, d.dir = onHost{prepared.Host, prepared.Queue}, prepared.TargetDir
	r.Host, r.Target = prepared.Host, prepared.Target
	if !prepared.StartedAt.IsZero() {
		r.StartedAt = prepared.StartedAt.UTC()
	}

	d.failedAt = contract.PlanRestoreActivity
	begun := workflow.Now(ctx)
	planned, facts, err := d.t.plan(ctx, d.host, contract.PlanRestoreInput{
		Cluster: d.in.Cluster, TargetDir: prepared.TargetDir, Backup: d.in.Backup, Target: prepared.Target,
		Timeline: d.in.Timeline, Start: true,
	})
	if err != nil {
		return err
	}
	r.Plan, r.BackupID, r.SystemIdentifier = planned.Plan, facts.BackupID, facts.systemIdentifier()
	return d.recover(ctx, prepared, begun)
}

// recover lays the files and proves what comes back. The recovery time began with the plan.
func (d *rehearsal) recover(ctx workflow.Context, prepared contract.PrepareDrillResult, begun time.Time) error {
	r := &d.report
	d.failedAt = contract.LayFilesActivity
	laid, err := d.t.layFiles(ctx, d.host, d.dir, contract.LayFilesInput{Plan: r.Plan, DrillID: r.DrillID})
	if err != nil {
		return err
	}
	r.Files, r.Bytes = laid.Files, laid.Bytes

	d.failedAt = contract.ProveRecoveryActivity
	proved, err := phase(ctx, d.t, phaseProve, d.host.call(contract.ProveRecoveryActivity,
		"start a server, replay to "+describe(prepared.Target)+" and check"), contract.ProveRecoveryInput{
		Cluster: d.in.Cluster, Plan: r.Plan, DrillID: r.DrillID, Canary: prepared.Canary, Checks: d.in.Checks,
	}, proofFigures)
	if err != nil {
		return err
	}
	r.Reached = proved.Reached
	r.Checks = append(r.Checks, proved.Checks...)
	r.RTO.Measured = contract.RecoveryTime(begun, workflow.Now(ctx), proved.Spans.Check)
	r.RTO.Spans = proved.Spans
	r.RTO.Spans.Fetch = laid.Seconds
	disaster, err := contract.DisasterTime(d.in.DisasterAt, prepared.Target, r.StartedAt)
	if err != nil {
		return temporal.NewNonRetryableApplicationError("time of the disaster: "+err.Error(), contract.ErrorConfiguration, err)
	}
	r.DisasterAt = &disaster
	r.RPO.Measured = contract.DataLoss(disaster, proved.Reached)
	d.failedAt = ""
	return nil
}

// cleanUp removes what the drill laid, whoever left it, and tells why it could not. Before the drill was prepared there
// is nothing to remove.
func (d *rehearsal) cleanUp(ctx workflow.Context) error {
	if d.dir == "" {
		d.report.CleanedUp = true
		return nil
	}
	_, err := phase(ctx, d.t, phaseCleanUp,
		d.host.call(contract.CleanUpDrillActivity, "remove the server and the files in "+d.dir),
		contract.CleanUpDrillInput{TargetDir: d.dir, DrillID: d.report.DrillID}, cleanUpFigures)
	d.report.CleanedUp = err == nil
	return err
}

// conclude judges the drill. Objectives are judged where they are known, in PublishReport.
func (d *rehearsal) conclude(ctx workflow.Context, failure, leftBehind error) {
	r := &d.report
	var failed contract.Verdict
	switch {
	case failure != nil && temporal.IsCanceledError(failure):
		failed, r.Failure = contract.CouldNotVerify, "cancelled during "+d.failedAt
	case failure != nil:
		failed, r.Failure = contract.FailureVerdict(d.failedAt, errorType(failure)), reason(failure)
	}
	if leftBehind != nil {
		text := fmt.Sprintf("what the drill laid in %s on host %s may still be there: %s", d.dir, d.host.host, reason(leftBehind))
		if r.Failure != "" {
			text = r.Failure + "; " + text
		}
		r.Failure = text
	}
	r.Verdict = contract.Judge(r.Checks, failed, leftBehind != nil)
	r.Level = contract.LevelReached(r.Checks)
	r.FinishedAt = workflow.Now(ctx).UTC()
}

// publish stores the report and takes over what PublishReport made of it. A drill without evidence has failed, whatever
// its verdict was.
func (d *rehearsal) publish(ctx workflow.Context) error {
	published, err := phase(ctx, d.t, phaseReport, call{
		activity: contract.PublishReportActivity,
		summary:  "store the report of drill " + d.report.DrillID,
	}, contract.PublishReportInput{Report: d.report}, func(r contract.PublishReportResult) string {
		return r.Report.DrillResult.Report
	})
	if err != nil {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
			"the drill's verdict is %s, but there is no evidence of it, so it does not count: %s",
			d.report.Verdict, reason(err)), errorType(err), err)
	}
	d.report = published.Report
	d.t.progress.Verdict, d.t.progress.Checks = d.report.Verdict, d.report.Checks
	return nil
}

// outcome puts the end of the drill into words.
func (d *rehearsal) outcome() string {
	r := d.report
	text := fmt.Sprintf("Level %d. Recovery took %s", r.Level, formatSeconds(r.RTO.Measured))
	if r.RTO.Target > 0 {
		text += fmt.Sprintf(" (objective %s)", formatSeconds(r.RTO.Target))
	}
	text += ". Data lost: "
	if r.RPO.Measured == nil {
		text += "not measured"
	} else {
		text += formatSeconds(*r.RPO.Measured)
	}
	if r.RPO.Target > 0 {
		text += fmt.Sprintf(" (objective %s)", formatSeconds(r.RPO.Target))
	}
	text += "."
	if r.Failure != "" {
		text = "Ended early: " + r.Failure
	}
	return text
}

func prepareFigures(r contract.PrepareDrillResult) string {
	return parts("host "+r.Host, "target "+describe(r.Target))
}

func proofFigures(r contract.ProveRecoveryResult) string {
	passed := 0
	for _, c := range r.Checks {
		if c.Verdict == contract.Pass {
			passed++
		}
	}
	text := fmt.Sprintf("%d of %d checks passed", passed, len(r.Checks))
	if r.Reached == nil {
		return text
	}
	return parts("reached "+r.Reached.LSN, text)
}

func cleanUpFigures(r contract.CleanUpDrillResult) string {
	if r.Removed {
		return "removed"
	}
	return "nothing was there"
}
