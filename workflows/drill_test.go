package workflows

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

const drillInput = `{"cluster":"orders","backup":"B","timeline":3,"checks":[{"name":"n","sql":"select 1","expect":"1"}]}`

// wholeDrill is every activity of a drill that works, and where it runs.
var wholeDrill = []string{
	"PrepareDrill lifeboat", "PlanRestore lifeboat@db1", "LayFiles lifeboat@db1", "ProveRecovery lifeboat@db1",
	"CleanUpDrill lifeboat@db1", "PublishReport lifeboat",
}

func (r *run) published() contract.Report {
	r.t.Helper()
	return inputOf[contract.PublishReportInput](r.t, r.fakes, contract.PublishReportActivity).Report
}

func TestDrillPasses(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.published = func(report *contract.Report) {
		report.DrillResult.Report = "reports/1.json"
		report.RTO.Target, report.RPO.Target = 3600, 900
	}
	r.execute(contract.DrillWorkflow, drillInput)
	got := resultOf[contract.DrillResult](r)
	checkList(t, "activities", r.fakes.where(), wholeDrill...)
	if got.Verdict != contract.Pass || got.Level != 7 || got.Cluster != "orders" || got.Scenario != "restore" ||
		got.WorkflowID != "run-1" || len(got.Checks) != 2 {
		t.Errorf("result is %+v", got)
	}
	if got.Report != "reports/1.json" || got.RTO.Target != 3600 || got.RPO.Target != 900 {
		t.Errorf("what PublishReport filled in is lost: %+v", got)
	}
	if got.DrillID != contract.DrillID(start, "default-test-run-id") || !strings.HasPrefix(got.DrillID, "20261123T074501Z-") {
		t.Errorf("drill id is %q", got.DrillID)
	}
	if got.RPO.Measured == nil || *got.RPO.Measured != 20 {
		t.Errorf("RPO is %v, want the 20 s between last commit and target", got.RPO.Measured)
	}
	if want := (contract.Spans{Fetch: 1.5, Replay: 2, Start: 0.5, Check: 0.25}); got.RTO.Spans != want {
		t.Errorf("spans are %+v, want %+v", got.RTO.Spans, want)
	}
	checkList(t, "search attributes", r.spy.attributes, "LifeboatCluster=orders", "LifeboatPhase=prepare",
		"LifeboatPhase=plan", "LifeboatPhase=lay files", "LifeboatPhase=prove recovery", "LifeboatPhase=clean up",
		"LifeboatPhase=publish report", "LifeboatPhase=done", "LifeboatVerdict=PASS")
	p, details := r.shown()
	if p.Verdict != contract.Pass || len(p.Checks) != 2 {
		t.Errorf("progress is %+v", p)
	}
	for _, text := range []string{"**Verdict: PASS**", "| 7 | orders have customers | PASS | 0 | 0 | 0.20 s |", "objective 1 h 0 min", "Data lost: 20.00 s"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

func TestDrillPassesInputsOn(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.DrillWorkflow, drillInput)
	id := resultOf[contract.DrillResult](r).DrillID
	prepare := inputOf[contract.PrepareDrillInput](t, r.fakes, contract.PrepareDrillActivity)
	if prepare != (contract.PrepareDrillInput{Cluster: "orders", DrillID: id}) {
		t.Errorf("PrepareDrill got %+v", prepare)
	}
	plan := inputOf[contract.PlanRestoreInput](t, r.fakes, contract.PlanRestoreActivity)
	want := contract.PlanRestoreInput{Cluster: "orders", TargetDir: "/var/tmp/drill", Backup: "B", Timeline: 3, Target: r.fakes.prepared.Target, Start: true}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("PlanRestore got %+v, want %+v", plan, want)
	}
	if lay := inputOf[contract.LayFilesInput](t, r.fakes, contract.LayFilesActivity); lay.DrillID != id || string(lay.Plan) != string(r.fakes.planned.Plan) {
		t.Errorf("LayFiles got %+v", lay)
	}
	prove := inputOf[contract.ProveRecoveryInput](t, r.fakes, contract.ProveRecoveryActivity)
	if prove.Cluster != "orders" || prove.DrillID != id || prove.Canary != "canary-1" || len(prove.Checks) != 1 ||
		string(prove.Plan) != string(r.fakes.planned.Plan) {
		t.Errorf("ProveRecovery got %+v", prove)
	}
	if clean := inputOf[contract.CleanUpDrillInput](t, r.fakes, contract.CleanUpDrillActivity); clean != (contract.CleanUpDrillInput{TargetDir: "/var/tmp/drill", DrillID: id}) {
		t.Errorf("CleanUpDrill got %+v", clean)
	}
	report := r.published()
	if report.Format != 1 || report.BackupID != "20261123T074500Z-full" || report.SystemIdentifier != "7300000000000000001" ||
		report.Host != "db1" || report.Target != r.fakes.prepared.Target || report.Reached.LSN != "0/5000060" || report.Files != 900 ||
		report.Bytes != 5<<20 || !report.CleanedUp || report.Failure != "" || !report.DisasterAt.Equal(start) ||
		!report.StartedAt.Equal(start) || report.FinishedAt.Before(start) || string(report.Plan) != string(r.fakes.planned.Plan) {
		t.Errorf("PublishReport got %+v", report)
	}
}

// The recovery time includes what killed attempts cost, and not the checks. Workers that die are the normal case.
func TestDrillRecoveryTimeIncludesLostAttempts(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.PrepareDrillActivity] = failing(4, errOutage) // 15 s before the disaster is noticed
	r.fakes.before[contract.LayFilesActivity] = failing(3, temporal.NewHeartbeatTimeoutError())
	r.fakes.before[contract.ProveRecoveryActivity] = failing(2, temporal.NewHeartbeatTimeoutError())
	r.fakes.before[contract.CleanUpDrillActivity] = failing(5, errOutage)
	r.execute(contract.DrillWorkflow, drillInput)
	got := resultOf[contract.DrillResult](r)
	if want := 7 + 3 - 0.25; math.Abs(got.RTO.Measured-want) > 0.2 {
		t.Errorf("recovery took %v s, want about %v", got.RTO.Measured, want)
	}
	if got.Verdict != contract.Pass {
		t.Errorf("verdict is %s", got.Verdict)
	}
}

// Each step may fail: the drill is cleaned up, judged and reported all the same.
func TestDrillStepFails(t *testing.T) {
	noWorker := always(temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	for _, c := range []struct {
		name, step string
		err        func(context.Context) error
		verdict    contract.Verdict
		text       string
		steps      int // of wholeDrill before clean-up
		cleaned    bool
	}{
		{"no canary", contract.PrepareDrillActivity, always(typed("connect", "no connection")), contract.CouldNotVerify, "PrepareDrill: no connection", 1, false},
		{"no place", contract.PrepareDrillActivity, always(typed(contract.ErrorRefused, "no host for drills")), contract.CouldNotVerify, "no host for drills", 1, false},
		{"unreachable target", contract.PlanRestoreActivity, always(typed(contract.ErrorRefused, "WAL has a gap")), contract.Fail, "PlanRestore: WAL has a gap", 2, true},
		{"unreachable repository", contract.PlanRestoreActivity, always(typed("connect", "no route")), contract.CouldNotVerify, "PlanRestore: no route", 2, true},
		{"no worker", contract.PlanRestoreActivity, noWorker, contract.CouldNotVerify, "no worker on host db1", 2, true},
		{"busy", contract.PlanRestoreActivity, always(typed(contract.ErrorBusy, "held")), contract.CouldNotVerify, "held", 2, true},
		{"damaged chunk", contract.LayFilesActivity, always(typed(contract.ErrorFailed, "chunk is damaged")), contract.Fail, "LayFiles: chunk is damaged", 3, true},
		{"place refused", contract.LayFilesActivity, always(typed(contract.ErrorRefused, "not empty")), contract.CouldNotVerify, "LayFiles: not empty", 3, true},
		{"recovery fails", contract.ProveRecoveryActivity, always(typed(contract.ErrorFailed, "ended before the target")), contract.Fail, "ended before the target", 4, true},
		{"host lost", contract.ProveRecoveryActivity, noWorker, contract.CouldNotVerify, "no worker on host db1", 4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[c.step] = c.err
			r.execute(contract.DrillWorkflow, drillInput)
			got := resultOf[contract.DrillResult](r)
			if got.Verdict != c.verdict || got.Level != 0 || got.RTO.Measured != 0 || got.RPO.Measured != nil || got.Checks == nil {
				t.Errorf("result is %+v, want verdict %s", got, c.verdict)
			}
			want := slices.Clone(wholeDrill[:c.steps])
			if c.cleaned {
				want = append(want, wholeDrill[4])
			}
			checkList(t, "activities", r.fakes.where(), append(want, wholeDrill[5])...)
			report := r.published()
			if !strings.Contains(report.Failure, c.text) || !report.CleanedUp {
				t.Errorf("report says %q, cleaned up: %v", report.Failure, report.CleanedUp)
			}
			if last := r.spy.attributes[len(r.spy.attributes)-1]; last != "LifeboatVerdict="+string(c.verdict) {
				t.Errorf("last attribute is %s", last)
			}
			if _, details := r.shown(); !strings.Contains(details, "Ended early") {
				t.Errorf("details are\n%s", details)
			}
		})
	}
}

// A drill that was asked for wrongly is no drill: the person gets the error itself.
func TestDrillNeverBegan(t *testing.T) {
	for _, kind := range []string{contract.ErrorConfiguration, contract.ErrorInvalidInput} {
		r := newRun(t, Options{})
		r.fakes.before[contract.PrepareDrillActivity] = always(typed(kind, "no cluster orders in lifeboat.yaml"))
		r.execute(contract.DrillWorkflow, drillInput)
		r.failure(kind, "no cluster orders")
		checkList(t, "activities", r.fakes.where(), wholeDrill[0])
	}
	// Nothing may be laid, or removed, in a place that has no name.
	r := newRun(t, Options{})
	r.fakes.prepared.TargetDir = ""
	r.execute(contract.DrillWorkflow, drillInput)
	r.failure(contract.ErrorConfiguration, "no host, queue or directory")
	checkList(t, "activities", r.fakes.where(), wholeDrill[0])
}

func TestDrillCheckFails(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.proved.Checks[1].Verdict = contract.Fail
	r.execute(contract.DrillWorkflow, drillInput)
	got := resultOf[contract.DrillResult](r)
	if got.Verdict != contract.Fail || got.Level != 5 {
		t.Errorf("verdict %s at level %d, want FAIL at 5", got.Verdict, got.Level)
	}
	checkList(t, "activities", r.fakes.where(), wholeDrill...)
}

// What was proved stays proved, but leaving something behind is not green.
func TestDrillCleanUpFails(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.CleanUpDrillActivity] = always(temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	r.execute(contract.DrillWorkflow, drillInput)
	got := resultOf[contract.DrillResult](r)
	report := r.published()
	if got.Verdict != contract.Partial || got.Level != 7 || report.CleanedUp {
		t.Errorf("verdict %s at level %d, cleaned up: %v", got.Verdict, got.Level, report.CleanedUp)
	}
	for _, text := range []string{"/var/tmp/drill", "host db1", "within 10m0s"} {
		if !strings.Contains(report.Failure, text) {
			t.Errorf("report says %q, want %q in it", report.Failure, text)
		}
	}

	r = newRun(t, Options{})
	r.fakes.before[contract.PlanRestoreActivity] = always(typed(contract.ErrorRefused, "WAL has a gap"))
	r.fakes.before[contract.CleanUpDrillActivity] = always(typed(contract.ErrorRefused, "not a drill's directory"))
	r.execute(contract.DrillWorkflow, drillInput)
	if got := resultOf[contract.DrillResult](r); got.Verdict != contract.Fail {
		t.Errorf("verdict is %s", got.Verdict)
	}
	if failure := r.published().Failure; !strings.Contains(failure, "WAL has a gap; ") || !strings.Contains(failure, "not a drill's") {
		t.Errorf("report says %q", failure)
	}
}

// A drill without evidence does not count, whatever its verdict.
func TestDrillPublishFails(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.PublishReportActivity] = always(typed("connect", "no route"))
	r.execute(contract.DrillWorkflow, drillInput)
	r.failure("connect", "verdict is PASS", "no evidence", "no route")
	if got := r.fakes.attempts(contract.PublishReportActivity); got != 240 {
		t.Errorf("%d attempts", got)
	}
	if strings.Contains(strings.Join(r.spy.attributes, " "), "LifeboatVerdict") {
		t.Errorf("a verdict is shown: %q", r.spy.attributes)
	}
}

// A cancelled drill cleans up and reports, and ends as cancelled.
func TestDrillCancelled(t *testing.T) {
	for i, step := range []string{contract.PrepareDrillActivity, contract.PlanRestoreActivity, contract.LayFilesActivity, contract.ProveRecoveryActivity} {
		t.Run(step, func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[step] = untilCancelled(r.CancelWorkflow)
			r.execute(contract.DrillWorkflow, drillInput)
			r.cancelled()
			want := slices.Clone(wholeDrill[:i+1])
			if i > 0 {
				want = append(want, wholeDrill[4])
			}
			checkList(t, "activities", r.fakes.where(), append(want, wholeDrill[5])...)
			report := r.published()
			if report.Verdict != contract.CouldNotVerify || report.Failure != "cancelled during "+step || !report.CleanedUp {
				t.Errorf("report: %s, %q, cleaned up %v", report.Verdict, report.Failure, report.CleanedUp)
			}
			p, _ := r.shown()
			if p.Outcome != "Cancelled." {
				t.Errorf("outcome is %q", p.Outcome)
			}
		})
	}
}

// Too late to cancel: the proof is there, and cleaning up is never interrupted.
func TestDrillCancelledWhileCleaningUp(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.CleanUpDrillActivity] = func(ctx context.Context) error {
		r.CancelWorkflow()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
			return nil
		}
	}
	r.execute(contract.DrillWorkflow, drillInput)
	if got := resultOf[contract.DrillResult](r); got.Verdict != contract.Pass {
		t.Errorf("verdict is %s", got.Verdict)
	}
	if !r.published().CleanedUp {
		t.Error("the report says that it was not cleaned up")
	}
}

// The target that the worker chose may be nonsense of another version; then the data loss is unknown, not wrong.
func TestDrillTargetUnreadable(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.prepared.Target.Value = "noon"
	r.execute(contract.DrillWorkflow, drillInput)
	if got := resultOf[contract.DrillResult](r); got.Verdict != contract.Partial || got.RPO.Measured != nil {
		t.Errorf("result is %+v", got)
	}
	if failure := r.published().Failure; !strings.Contains(failure, "time of the disaster") {
		t.Errorf("report says %q", failure)
	}
}
