package workflows

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

func TestHealth(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.HealthWorkflow, backupInput)
	want := r.fakes.healthy
	want.WorkflowID = "run-1"
	if got := resultOf[contract.HealthCheckResult](r); !reflect.DeepEqual(got, want) {
		t.Errorf("result is %+v, want %+v", got, want)
	}
	if in := inputOf[contract.HealthCheckInput](t, r.fakes, contract.CheckHealthActivity); in.Cluster != "orders" || in.Previous != nil {
		t.Errorf("input is %+v", in)
	}
	checkList(t, "search attributes", r.spy.attributes,
		"LifeboatCluster=orders", "LifeboatPhase=check health", "LifeboatPhase=done", "LifeboatVerdict=FAIL")
	_, details := r.shown()
	for _, text := range []string{"### HealthCheck of orders", "✅ check health", "1 findings open", "1 areas not looked at", "critical exposure: too much", "disk, no access"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

// TestHealth_GoesOn from the schedule's last result; an input that says what was before wins, and a result of another
// cluster, as after a change of the schedule, is none.
func TestHealth_GoesOn(t *testing.T) {
	last := newFakes().healthy
	other := last
	other.Cluster = "shop"
	given := `{"cluster":"orders","previous":{"at":"2026-11-23T07:00:00Z","findings":[]}}`
	for name, tt := range map[string]struct {
		last  any
		input string
		want  *contract.HealthMemory
	}{
		"last":          {last, backupInput, last.Memory()},
		"other cluster": {other, backupInput, nil},
		"no result":     {"something else", backupInput, nil},
		"given":         {last, given, &contract.HealthMemory{At: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), Findings: []contract.HealthFinding{}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t, Options{})
			r.SetLastCompletionResult(tt.last)
			r.execute(contract.HealthWorkflow, tt.input)
			resultOf[contract.HealthCheckResult](r)
			if in := inputOf[contract.HealthCheckInput](t, r.fakes, contract.CheckHealthActivity); !reflect.DeepEqual(in.Previous, tt.want) {
				t.Errorf("previous is %+v, want %+v", in.Previous, tt.want)
			}
		})
	}
}

// TestServer_HealthSchedule: on a real server, runs of a schedule hand their findings on, also over a run that failed
// (decision 0015).
func TestServer_HealthSchedule(t *testing.T) {
	c := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const queue = contract.DefaultTaskQueue + "-health-schedule"
	f := newFakes()
	runs := make(chan workflow.Execution, 100) // one at a time: the schedule skips what would overlap
	seen := 0
	f.before[contract.CheckHealthActivity] = func(ctx context.Context) error {
		runs <- activity.GetInfo(ctx).WorkflowExecution
		if seen++; seen == 2 {
			return typed(contract.ErrorConfiguration, "no such cluster")
		}
		return nil
	}
	startWorkers(t, c, f, queue, false)
	schedule, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: "health", Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Second}}}, Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
		Action: &client.ScheduleWorkflowAction{ID: "health", Workflow: contract.HealthWorkflow, TaskQueue: queue, Args: []any{contract.HealthCheckInput{Cluster: "orders"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var history *historypb.History
	for i := range 4 {
		select {
		case run := <-runs:
			if err := c.GetWorkflow(ctx, run.ID, run.RunID).Get(ctx, nil); (err == nil) != (i != 1) {
				t.Errorf("run %d: %v", i+1, err)
			}
			history = historyOf(ctx, t, c, run)
		case <-ctx.Done():
			t.Fatalf("the schedule ran %d times", i)
		}
	}
	if err := schedule.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	want := f.healthy.Memory()
	for i, call := range f.seenCalls()[:4] {
		in, err := contract.Decode[contract.HealthCheckInput](call.input)
		if err != nil || (in.Previous == nil) != (i == 0) || i > 0 && !reflect.DeepEqual(in.Previous, want) {
			t.Errorf("run %d began with %s, %v", i+1, call.input, err)
		}
	}
	if err := newReplayer(t, Register).ReplayWorkflowHistory(quiet{}, history); err != nil {
		t.Errorf("replay: %v", err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(replayFolder, "health-scheduled.json"), encodeHistory(t, history), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
