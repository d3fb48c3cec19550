package workflows

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

const (
	restoreInput = `{"cluster":"orders","targetDir":"/restore","host":"db1","backup":"B","timeline":3,"action":"pause","owner":"pg","planHash":"b3:1234",` +
		`"tablespaces":["/a=/b"],"delta":true,"discardWal":true}`
	startInput = `{"cluster":"orders","targetDir":"/restore","host":"db1","start":true,"port":5544,"owner":"pg"}`
)

func TestRestoreLaysFilesOnly(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.RestoreWorkflow, restoreInput)
	got := resultOf[contract.RestoreResult](r)
	checkList(t, "activities", r.fakes.where(), "PlanRestore lifeboat@db1", "LayFiles lifeboat@db1")
	plan := inputOf[contract.PlanRestoreInput](t, r.fakes, contract.PlanRestoreActivity)
	want := contract.PlanRestoreInput{
		Cluster: "orders", TargetDir: "/restore", Backup: "B", Target: contract.Target{Kind: "latest"}, Timeline: 3,
		Action: "pause", PlanHash: "b3:1234", Tablespaces: []string{"/a=/b"}, Delta: true, DiscardWAL: true,
	}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("PlanRestore got %+v, want %+v", plan, want)
	}
	lay := inputOf[contract.LayFilesInput](t, r.fakes, contract.LayFilesActivity)
	if string(lay.Plan) != string(r.fakes.planned.Plan) || lay.Owner != "pg" || lay.DrillID != "" {
		t.Errorf("LayFiles got %+v", lay)
	}
	if got.Cluster != "orders" || got.TargetDir != "/restore" || got.Target.Kind != "latest" || got.BackupID != "20261123T074500Z-full" ||
		got.WALSegments != 7 || got.Bytes != 5<<20 || got.ReusedBytes != 1<<20 || got.WorkflowID != "run-1" {
		t.Errorf("result is %+v", got)
	}
	if got.Reached != nil || got.Port != 0 || got.Spans != (contract.Spans{Fetch: 1.5}) {
		t.Errorf("nothing was started, yet the result is %+v", got)
	}
	if string(got.Plan) != string(r.fakes.planned.Plan) {
		t.Errorf("the plan was changed to %s", got.Plan)
	}
	_, details := r.shown()
	if !strings.Contains(details, "Nothing was started") || strings.Contains(details, phaseServer) {
		t.Errorf("details are\n%s", details)
	}
}

func TestRestoreStartsServer(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.LayFilesActivity] = failing(2, temporal.NewHeartbeatTimeoutError())
	r.execute(contract.RestoreWorkflow, startInput)
	got := resultOf[contract.RestoreResult](r)
	checkList(t, "activities", r.fakes.where(), "PlanRestore lifeboat@db1", "LayFiles lifeboat@db1", "StartServer lifeboat@db1")
	server := inputOf[contract.StartServerInput](t, r.fakes, contract.StartServerActivity)
	if server.Port != 5544 || server.Owner != "pg" || string(server.Plan) != string(r.fakes.planned.Plan) {
		t.Errorf("StartServer got %+v", server)
	}
	if got.Reached == nil || got.Reached.LSN != "0/5000060" || got.Port != 54321 || got.SocketDir != "/tmp/s" {
		t.Errorf("result is %+v", got)
	}
	if want := (contract.Spans{Fetch: 1.5, Replay: 2, Start: 0.5, Check: 0.1}); got.Spans != want {
		t.Errorf("spans are %+v, want %+v", got.Spans, want)
	}
	if got.Seconds < 3 || got.Seconds > 4 {
		t.Errorf("took %v s, want the 3 s that were lost with two workers", got.Seconds)
	}
	checkList(t, "search attributes", r.spy.attributes, "LifeboatCluster=orders", "LifeboatPhase=plan",
		"LifeboatPhase=lay files", "LifeboatPhase=start server", "LifeboatPhase=done")
}

// A step that fails ends the run; what comes after it does not happen.
func TestRestoreFailures(t *testing.T) {
	steps := []string{contract.PlanRestoreActivity, contract.LayFilesActivity, contract.StartServerActivity}
	attempts := []int{30, 1440, 20}
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[step] = always(typed(contract.ErrorRefused, "the directory is not empty"))
			r.execute(contract.RestoreWorkflow, startInput)
			r.failure(contract.ErrorRefused, step+": the directory is not empty")
			if got := len(r.fakes.where()); got != i+1 || r.fakes.attempts(step) != 1 {
				t.Errorf("ran %q, %d attempts", r.fakes.where(), r.fakes.attempts(step))
			}
		})
		t.Run(step+" for ever", func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[step] = always(typed("connect", "connection refused"))
			r.execute(contract.RestoreWorkflow, startInput)
			r.failure("connect", step+": connection refused")
			if got := r.fakes.attempts(step); got != attempts[i] {
				t.Errorf("%d attempts, want %d", got, attempts[i])
			}
		})
	}
}

// A host without a worker is named, with what to do about it.
func TestRestoreWithoutWorkerOnHost(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.LayFilesActivity] = always(temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	r.execute(contract.RestoreWorkflow, restoreInput)
	r.failure(errorNoWorker, "no worker on host db1", "task queue lifeboat@db1", "within 2m0s", "lifeboat-worker", "is kept")
	if got := r.fakes.attempts(contract.LayFilesActivity); got != 1 {
		t.Errorf("%d attempts", got)
	}
}

func TestRestoreTookTooLong(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.PlanRestoreActivity] = always(temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, nil))
	r.execute(contract.RestoreWorkflow, restoreInput)
	r.failure("Timeout", "PlanRestore: not finished", "ScheduleToClose")
}

// A plan that this version cannot read stops the run before anything is laid.
func TestRestorePlanUnreadable(t *testing.T) {
	for _, plan := range []string{`{"walSegments":"many"}`, `[]`} {
		r := newRun(t, Options{})
		r.fakes.planned.Plan = json.RawMessage(plan)
		r.execute(contract.RestoreWorkflow, restoreInput)
		r.failure(contract.ErrorConfiguration, "cannot be read")
		checkList(t, "activities", r.fakes.where(), "PlanRestore lifeboat@db1")
	}
}

// An activity of another version may answer with something else entirely.
func TestRestoreResultUnreadable(t *testing.T) {
	r := newRun(t, Options{})
	fake(r.fakes, r, contract.PlanRestoreActivity, func(contract.PlanRestoreInput) []int { return []int{1} })
	r.execute(contract.RestoreWorkflow, restoreInput)
	if err := r.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), contract.PlanRestoreActivity+": payload item 0: unable to decode") {
		t.Errorf("error is %v", err)
	}
}

func TestRestoreCancelled(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.LayFilesActivity] = untilCancelled(r.CancelWorkflow)
	r.execute(contract.RestoreWorkflow, startInput)
	r.cancelled()
	checkList(t, "activities", r.fakes.where(), "PlanRestore lifeboat@db1", "LayFiles lifeboat@db1")
	p, _ := r.shown()
	if p.Phases[1].State != PhaseFailed || p.Phases[1].Note != "cancelled" || p.Phases[2].State != PhasePending {
		t.Errorf("phases are %+v", p.Phases)
	}
}
