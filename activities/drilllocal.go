package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/recovery"
)

// cleanUpTime bounds what a local drill does after its context has ended: removing its files, and storing its report.
const cleanUpTime = 5 * time.Minute

// Drill is workflow Drill for `lifeboat drill --local`, with Temporal down: the same steps in one process, and the same
// verdict. Each step runs once, but for storing the report. Whatever happens, the server and its files are removed and the report is stored, also
// that of a drill that failed or was interrupted. The result is set whenever there is a report; an error beside it says
// that the drill was interrupted. A drill that never began (wrong input or configuration) is only an error, and so is
// one whose report could not be stored: without evidence it does not count.
func (r *Runner) Drill(ctx context.Context, in contract.DrillInput, run Run) (contract.DrillResult, error) {
	var none contract.DrillResult
	if err := in.Validate(); err != nil {
		return none, &InputError{err}
	}
	if in.Scenario == "" {
		in.Scenario = contract.ScenarioRestore
	}
	d := newLocalDrill(r, in, run)
	release, err := d.claim()
	if err != nil {
		return none, err
	}
	defer release()
	failure := d.rehearse(ctx)
	if failure != nil && d.failedAt == contract.PrepareDrillActivity {
		if kind := ErrorType(failure); kind == contract.ErrorInvalidInput || kind == contract.ErrorConfiguration {
			return none, failure
		}
	}
	interrupted := failure != nil && ctx.Err() != nil
	// From here on an interruption must not stop the run any more.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	leftBehind := d.cleanUp(lasting)
	d.conclude(failure, leftBehind, interrupted)
	run.Progress(contract.Progress{Phase: "report"})
	published, err := d.publish(lasting)
	if err != nil {
		return none, fmt.Errorf("the drill's verdict is %s, but there is no evidence of it, so it does not count: %w", d.report.Verdict, err)
	}
	if interrupted {
		return published.Report.DrillResult, fmt.Errorf("drill %s: %w", d.report.DrillID, context.Cause(ctx))
	}
	return published.Report.DrillResult, nil
}

// localDrill is one drill under way.
type localDrill struct {
	runner *Runner
	in     contract.DrillInput
	run    Run
	report contract.Report
	dir    string // where files may lie; empty until the drill was prepared
	// failedAt is the activity that ended the drill early.
	failedAt string
}

func newLocalDrill(r *Runner, in contract.DrillInput, run Run) *localDrill {
	now := time.Now().UTC()
	return &localDrill{runner: r, in: in, run: run, report: contract.Report{
		Format: contract.ReportFormat,
		DrillResult: contract.DrillResult{
			DrillID: contract.DrillID(now, run.WorkflowID), Cluster: in.Cluster, Scenario: in.Scenario,
			Checks: []contract.CheckResult{}, WorkflowID: run.WorkflowID,
		},
		Target: in.Target, StartedAt: now, Plan: json.RawMessage("null"),
	}}
}

// claim holds the drill's place while this process lives, so that no reaper takes it for a dead one's.
func (d *localDrill) claim() (release func(), err error) {
	dir := filepath.Join(d.runner.set.WorkDir, drillPrefix+d.report.DrillID)
	if err := d.runner.drillPlace(dir, d.report.DrillID); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.runner.set.WorkDir, 0o755); err != nil {
		return nil, fmt.Errorf("prepare the work directory: %w", err)
	}
	f, err := holdClaim(dir, d.run)
	if err != nil {
		return nil, err
	}
	return func() {
		if d.dir == "" { // nothing was prepared, so nothing was cleaned up
			_ = dropClaim(dir)
		}
		_ = f.Close()
	}, nil
}

// rehearse goes through the disaster. What it learns is in the report, also when it returns an error.
func (d *localDrill) rehearse(ctx context.Context) error {
	rep := &d.report
	d.failedAt = contract.PrepareDrillActivity
	d.run.Progress(contract.Progress{Phase: "prepare"})
	prepared, err := d.runner.PrepareDrill(ctx, contract.PrepareDrillInput{Cluster: d.in.Cluster, DrillID: rep.DrillID, Target: d.in.Target}, d.run)
	if err != nil {
		return err
	}
	d.dir = prepared.TargetDir
	rep.Host, rep.Target, rep.StartedAt = prepared.Host, prepared.Target, prepared.StartedAt.UTC()

	d.failedAt = contract.PlanRestoreActivity
	begun := time.Now() // the recovery time begins with the plan
	d.run.Progress(contract.Progress{Phase: "plan"})
	planned, err := d.runner.PlanRestore(ctx, contract.PlanRestoreInput{
		Cluster: d.in.Cluster, TargetDir: d.dir, Backup: d.in.Backup, Target: prepared.Target, Timeline: d.in.Timeline,
		Start: true,
	}, d.run)
	if err != nil {
		return err
	}
	var facts recovery.Plan
	if err := json.Unmarshal(planned.Plan, &facts); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	rep.Plan, rep.BackupID, rep.SystemIdentifier = planned.Plan, facts.BackupID, facts.SystemID.String()
	return d.recover(ctx, prepared, begun)
}

// recover lays the files and proves what comes back.
func (d *localDrill) recover(ctx context.Context, prepared contract.PrepareDrillResult, begun time.Time) error {
	rep := &d.report
	d.failedAt = contract.LayFilesActivity
	laid, err := d.runner.LayFiles(ctx, contract.LayFilesInput{Plan: rep.Plan, DrillID: rep.DrillID}, d.run)
	if err != nil {
		return err
	}
	rep.Files, rep.Bytes = laid.Files, laid.Bytes

	d.failedAt = contract.ProveRecoveryActivity
	proved, err := d.runner.ProveRecovery(ctx, contract.ProveRecoveryInput{
		Cluster: d.in.Cluster, Plan: rep.Plan, DrillID: rep.DrillID, Canary: prepared.Canary, Checks: d.in.Checks,
	}, d.run)
	if err != nil {
		return err
	}
	rep.Reached = proved.Reached
	rep.Checks = append(rep.Checks, proved.Checks...)
	rep.RTO.Measured = contract.RecoveryTime(begun, time.Now(), proved.Spans.Check)
	rep.RTO.Spans = proved.Spans
	rep.RTO.Spans.Fetch = laid.Seconds
	disaster, err := contract.DisasterTime(d.in.DisasterAt, prepared.Target, rep.StartedAt)
	if err != nil {
		return fmt.Errorf("time of the disaster: %w", err)
	}
	rep.DisasterAt = &disaster
	rep.RPO.Measured = contract.DataLoss(disaster, proved.Reached)
	d.failedAt = ""
	return nil
}

// cleanUp removes what the drill laid, and tells why it could not.
func (d *localDrill) cleanUp(ctx context.Context) error {
	d.report.CleanedUp = true
	if d.dir == "" {
		return nil
	}
	d.run.Progress(contract.Progress{Phase: "clean up"})
	_, err := d.runner.CleanUpDrill(ctx, contract.CleanUpDrillInput{TargetDir: d.dir, DrillID: d.report.DrillID}, d.run)
	d.report.CleanedUp = err == nil
	return err
}

// publish stores the report. Evidence is lost if this gives up, so a store that fails for a moment is asked again.
func (d *localDrill) publish(ctx context.Context) (contract.PublishReportResult, error) {
	const attempts = 5
	for n, pause := 1, 200*time.Millisecond; ; n, pause = n+1, 2*pause {
		res, err := d.runner.PublishReport(ctx, contract.PublishReportInput{Report: d.report}, d.run)
		if err == nil || n == attempts || ErrorType(err) != "" {
			return res, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return res, err
		}
	}
}

// conclude judges the drill. Objectives are judged where they are known, in PublishReport.
func (d *localDrill) conclude(failure, leftBehind error, interrupted bool) {
	rep := &d.report
	var failed contract.Verdict
	var text error
	switch {
	case interrupted:
		failed, text = contract.CouldNotVerify, errors.New("interrupted during "+d.failedAt)
	case failure != nil:
		failed, text = contract.FailureVerdict(d.failedAt, ErrorType(failure)), fmt.Errorf("%s: %w", d.failedAt, failure)
	}
	if text != nil {
		rep.Failure = text.Error()
	}
	if leftBehind != nil {
		if rep.Failure != "" {
			rep.Failure += "; "
		}
		rep.Failure += fmt.Sprintf("what the drill laid in %s on host %s may still be there: %v", d.dir, rep.Host, leftBehind)
	}
	rep.Verdict = contract.Judge(rep.Checks, failed, leftBehind != nil)
	rep.Level = contract.LevelReached(rep.Checks)
	rep.FinishedAt = time.Now().UTC()
}
