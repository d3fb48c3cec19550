package workflows

import (
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

type activityOptions = workflow.ActivityOptions

// registry records what is registered.
type registry struct {
	names   []string
	dynamic bool
}

func (r *registry) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) {
	r.names = append(r.names, o.Name)
}

func (r *registry) RegisterDynamicWorkflow(any, workflow.DynamicRegisterOptions) { r.dynamic = true }

// Every activity notices a dead worker and a cancellation, gives up some day, and never repeats a decision.
func TestActivityOptions(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.DrillWorkflow, drillInput)
	drill := r.spy.options
	r = newRun(t, Options{})
	r.execute(contract.RestoreWorkflow, startInput)
	restore := r.spy.options
	r = newRun(t, Options{})
	r.execute(contract.BackupWorkflow, backupInput)
	backup := r.spy.options
	r = newRun(t, Options{})
	r.execute(contract.VerifyWorkflow, backupInput)
	verify := r.spy.options
	r = newRun(t, Options{})
	r.execute(contract.HealthWorkflow, backupInput)
	health := r.spy.options

	seenActivities := map[string]bool{}
	for _, all := range []map[string]activityOptions{drill, restore, backup, verify, health} {
		for name, o := range all {
			seenActivities[name] = true
			if o.HeartbeatTimeout != 30*time.Second || !o.WaitForCancellation || o.StartToCloseTimeout < time.Hour && name != contract.CheckHealthActivity || o.Summary == "" {
				t.Errorf("%s: %+v", name, o)
			}
			p := o.RetryPolicy
			if p.InitialInterval != time.Second || p.BackoffCoefficient != 2 || p.MaximumInterval != time.Minute || p.MaximumAttempts < 2 {
				t.Errorf("%s: %+v", name, p)
			}
			want := []string{contract.ErrorInvalidInput, contract.ErrorRefused, contract.ErrorBusy, contract.ErrorConfiguration, contract.ErrorFailed}
			if !slices.Equal(p.NonRetryableErrorTypes, want) {
				t.Errorf("%s: never retried are %q", name, p.NonRetryableErrorTypes)
			}
		}
	}
	if len(seenActivities) != 11 {
		t.Errorf("%d activities were called, want all 11: %v", len(seenActivities), seenActivities)
	}
	for name, want := range map[string]time.Duration{
		contract.PrepareDrillActivity: 0, contract.PlanRestoreActivity: 2 * time.Minute, contract.LayFilesActivity: 2 * time.Minute,
		contract.ProveRecoveryActivity: 2 * time.Minute, contract.CleanUpDrillActivity: 10 * time.Minute, contract.PublishReportActivity: 0,
	} {
		if got := drill[name].ScheduleToStartTimeout; got != want {
			t.Errorf("%s waits %v for a worker, want %v", name, got, want)
		}
	}
	for _, name := range []string{contract.LayFilesActivity, contract.StartServerActivity} {
		if got := restore[name].StartToCloseTimeout; got != 48*time.Hour {
			t.Errorf("%s may take %v, want 48h", name, got)
		}
	}
	if got := backup[contract.TakeBackupActivity]; got.ScheduleToCloseTimeout != 72*time.Hour || got.ScheduleToStartTimeout != 0 {
		t.Errorf("TakeBackup: %+v", got)
	}
}

func TestOptionsAreUsed(t *testing.T) {
	r := newRun(t, Options{HeartbeatTimeout: 5 * time.Second, HostTimeout: 3 * time.Second})
	r.execute(contract.RestoreWorkflow, restoreInput)
	o := r.spy.options[contract.LayFilesActivity]
	if o.HeartbeatTimeout != 5*time.Second || o.ScheduleToStartTimeout != 3*time.Second {
		t.Errorf("options are %+v", o)
	}
}

func TestRegisterDefaults(t *testing.T) {
	r := newRun(t, Options{}) // Options.Register
	r.execute(contract.BackupWorkflow, backupInput)
	want := r.spy.options[contract.TakeBackupActivity].HeartbeatTimeout

	spied := &registry{}
	Register(spied)
	checkList(t, "registered", spied.names, Names()...)
	if !spied.dynamic || want != defaultHeartbeatTimeout {
		t.Errorf("dynamic: %v, heartbeat timeout: %v", spied.dynamic, want)
	}
}
