package workflows

import (
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/contract"
)

var (
	errBusy       = typed(contract.ErrorBusy, "backup of cluster orders is held by run-0 on db1")
	scheduledMemo = map[string]any{contract.ScheduleMemo: "lifeboat-orders-backup-full"}
)

// skippedText is the reason of a run whose last activity was busy.
func skippedText(f *fakes) string {
	calls := f.seenCalls()
	return "busy: " + calls[len(calls)-1].activity + ": backup of cluster orders is held by run-0 on db1"
}

// A scheduled run that finds its cluster busy ends as SKIPPED, with the reason, and without trying again.
func TestScheduledBusy(t *testing.T) {
	for _, c := range []struct{ workflow, activity, input string }{
		{contract.BackupWorkflow, contract.TakeBackupActivity, backupInput},
		{contract.VerifyWorkflow, contract.VerifyBackupsActivity, backupInput},
		{contract.DrillWorkflow, contract.PrepareDrillActivity, drillInput},
	} {
		t.Run(c.workflow, func(t *testing.T) {
			r := newRun(t, Options{})
			if err := r.SetMemoOnStart(scheduledMemo); err != nil {
				t.Fatal(err)
			}
			r.fakes.before[c.activity] = always(errBusy)
			r.execute(c.workflow, c.input)
			got := resultOf[struct {
				Cluster, Skipped, WorkflowID string
				Verdict                      contract.Verdict
			}](r)
			if got.Skipped != skippedText(r.fakes) || got.Cluster != "orders" || got.WorkflowID != "run-1" {
				t.Errorf("result is %+v", got)
			}
			if c.workflow != contract.BackupWorkflow && got.Verdict != contract.Skipped {
				t.Errorf("verdict is %s", got.Verdict)
			}
			if n := r.fakes.attempts(c.activity); n != 1 {
				t.Errorf("%d attempts", n)
			}
			if n := r.fakes.attempts(contract.PublishReportActivity); n != 0 {
				t.Error("a report of a drill that was not held")
			}
			if !slices.Contains(r.spy.attributes, "LifeboatVerdict=SKIPPED") {
				t.Errorf("search attributes %q", r.spy.attributes)
			}
			if _, details := r.shown(); !strings.Contains(details, "Verdict: SKIPPED") || !strings.Contains(details, "Skipped: busy: ") {
				t.Errorf("details:\n%s", details)
			}
		})
	}
}

// Only that: other failures of a scheduled run are failures, and so is a busy cluster for whoever waits for the run.
func TestScheduled_OtherFailures(t *testing.T) {
	r := newRun(t, Options{})
	if err := r.SetMemoOnStart(scheduledMemo); err != nil {
		t.Fatal(err)
	}
	r.fakes.before[contract.TakeBackupActivity] = always(typed(contract.ErrorFailed, "corrupt"))
	r.execute(contract.BackupWorkflow, backupInput)
	r.failure(contract.ErrorFailed, "corrupt")

	r = newRun(t, Options{})
	r.fakes.before[contract.PrepareDrillActivity] = always(errBusy)
	r.execute(contract.DrillWorkflow, drillInput)
	if got := resultOf[contract.DrillResult](r); got.Verdict != contract.CouldNotVerify || got.Skipped != "" || got.Report == "" {
		t.Errorf("a drill that nobody scheduled: %+v", got)
	}
	r = newRun(t, Options{})
	if err := r.SetMemoOnStart(map[string]any{contract.ScheduleMemo: 7}); err != nil { // not one of ours
		t.Fatal(err)
	}
	r.fakes.before[contract.TakeBackupActivity] = always(errBusy)
	r.execute(contract.BackupWorkflow, backupInput)
	r.failure(contract.ErrorBusy, "held by run-0")
}
