package workflows

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

const backupInput = `{"cluster":"orders"}`

func TestBackup(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.BackupWorkflow, backupInput)
	want := r.fakes.backup
	want.WorkflowID = "run-1"
	if got := resultOf[contract.BackupResult](r); got != want {
		t.Errorf("result is %+v, want %+v", got, want)
	}
	checkList(t, "activities", r.fakes.where(), "PlanBackup lifeboat", "TakeBackup lifeboat")
	in := inputOf[contract.TakeBackupInput](t, r.fakes, contract.TakeBackupActivity)
	if in != (contract.TakeBackupInput{Cluster: "orders", Type: contract.TypeFull}) {
		t.Errorf("input is %+v", in)
	}
	checkList(t, "search attributes", r.spy.attributes,
		"LifeboatCluster=orders", "LifeboatPhase=take backup", "LifeboatPhase=done")
	p, details := r.shown()
	if len(p.Phases) != 1 || p.Phases[0].State != PhaseDone || p.Waiting != "" || p.Cluster != "orders" {
		t.Errorf("progress is %+v", p)
	}
	for _, text := range []string{"### Backup of orders", "✅ take backup", "3.0 MiB read", "1.5 KiB stored", "3 of 12 chunks new", "is in the repository"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

// While an activity runs, a person sees what is awaited.
func TestBackupShowsWhatIsAwaited(t *testing.T) {
	r := newRun(t, Options{})
	var during Progress
	r.fakes.before[contract.TakeBackupActivity] = failing(2, errOutage)
	r.RegisterDelayedCallback(func() { during, _ = r.shown() }, 1500*time.Millisecond)
	r.execute(contract.BackupWorkflow, backupInput)
	resultOf[contract.BackupResult](r)
	if len(during.Phases) != 1 || during.Phases[0].State != PhaseActive || during.Waiting != "full backup of orders" || during.Outcome != "" {
		t.Errorf("during the backup, progress is %+v", during)
	}
	p, _ := r.shown()
	if s := p.Phases[0].Seconds; s < 3 || s > 4 {
		t.Errorf("the phase took %v s, want the 3 s of two pauses", s)
	}
}

// An error of one of the contract's types ends the run at once; any other is tried again.
func TestBackupErrors(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      func(context.Context) error
		attempts int
		kind     string // "": success
		text     string
	}{
		{"outage that ends", failing(7, errOutage), 8, "", ""},
		{"lost worker", failing(2, temporal.NewHeartbeatTimeoutError()), 3, "", ""},
		{"outage that does not end", always(typed("connect", "connection refused")), 60, "connect", "TakeBackup: connection refused"},
		{"lost workers without end", always(temporal.NewHeartbeatTimeoutError()), 60, "Timeout", "went silent for 30s"},
		{"refused", always(typed(contract.ErrorRefused, "wrong system identifier")), 1, contract.ErrorRefused, "TakeBackup: wrong system identifier"},
		{"input", always(typed(contract.ErrorInvalidInput, "no")), 1, contract.ErrorInvalidInput, "no"},
		{"busy", always(typed(contract.ErrorBusy, "another backup runs")), 1, contract.ErrorBusy, "another backup runs"},
		{"configuration", always(typed(contract.ErrorConfiguration, "no cluster orders")), 1, contract.ErrorConfiguration, "no cluster orders"},
		{"failed", always(typed(contract.ErrorFailed, "corrupt")), 1, contract.ErrorFailed, "corrupt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[contract.TakeBackupActivity] = c.err
			r.execute(contract.BackupWorkflow, backupInput)
			if got := r.fakes.attempts(contract.TakeBackupActivity); got != c.attempts {
				t.Errorf("%d attempts, want %d", got, c.attempts)
			}
			if c.kind == "" {
				resultOf[contract.BackupResult](r)
				return
			}
			r.failure(c.kind, c.text)
			p, details := r.shown()
			if p.Phases[0].State != PhaseFailed || !strings.Contains(details, "Failed: ") {
				t.Errorf("progress is %+v, details\n%s", p, details)
			}
			if last := r.spy.attributes[len(r.spy.attributes)-1]; last != "LifeboatPhase=failed" {
				t.Errorf("last attribute is %s", last)
			}
		})
	}
}

func TestBackupCancelled(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.TakeBackupActivity] = untilCancelled(r.CancelWorkflow)
	r.execute(contract.BackupWorkflow, backupInput)
	r.cancelled()
	p, _ := r.shown()
	if p.Outcome != "Cancelled." {
		t.Errorf("progress is %+v", p)
	}
	if last := r.spy.attributes[len(r.spy.attributes)-1]; last != "LifeboatPhase=cancelled" {
		t.Errorf("last attribute is %s", last)
	}
}

// A backup from a data directory is taken on the host that has it.
func TestBackupOnHost(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.place = contract.PlanBackupResult{Host: testHost, Queue: "lifeboat@" + testHost}
	r.execute(contract.BackupWorkflow, backupInput)
	resultOf[contract.BackupResult](r)
	checkList(t, "activities", r.fakes.where(), "PlanBackup lifeboat", "TakeBackup lifeboat@"+testHost)
	in := inputOf[contract.TakeBackupInput](t, r.fakes, contract.TakeBackupActivity)
	if in != (contract.TakeBackupInput{Cluster: "orders", Type: contract.TypeFull, Queue: "lifeboat@" + testHost}) {
		t.Errorf("input is %+v", in)
	}
}

// A host that cannot be chosen ends the run with the reason, before anything is taken.
func TestBackupNoHost(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.PlanBackupActivity] = always(typed(contract.ErrorConfiguration, "data directory /x: there is none on this host"))
	r.execute(contract.BackupWorkflow, backupInput)
	r.failure(contract.ErrorConfiguration, "PlanBackup: data directory /x")
	if n := r.fakes.attempts(contract.TakeBackupActivity); n != 0 {
		t.Errorf("%d attempts at the backup", n)
	}
	if _, details := r.shown(); !strings.Contains(details, "there is none on this host") {
		t.Errorf("details do not tell why:\n%s", details)
	}
}
