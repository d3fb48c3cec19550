package workflows

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

var update = flag.Bool("update", false, "store the histories of TestServer's runs in "+replayFolder)

// quick are options under which lost workers are noticed soon.
var quick = Options{HeartbeatTimeout: time.Second, HostTimeout: time.Second}

// scenario is one run on a real server.
type scenario struct {
	name, workflow, input string
	// prepare changes the activities; cancel ends the run.
	prepare func(f *fakes, cancel func())
	// scheduled starts the run as a schedule does.
	scheduled bool
	// noHost leaves the host's queue without a worker.
	noHost bool
	status enumspb.WorkflowExecutionStatus
	check  func(t *testing.T, f *fakes, run client.WorkflowRun)
}

const (
	completed = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	failed    = enumspb.WORKFLOW_EXECUTION_STATUS_FAILED
	cancelled = enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED
)

// silentOnce makes the first attempt fall silent, as that of a killed worker does.
func silentOnce(ctx context.Context) error {
	if failing(1, errOutage)(ctx) == nil {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// reportThreeTimes signals as a worker does, and looks at what the UI shows then.
func reportThreeTimes(ctx context.Context) error {
	c, info := activity.GetClient(ctx), activity.GetInfo(ctx)
	id := info.WorkflowExecution
	for _, r := range []struct {
		signal any
		shown  string
	}{
		{contract.ProgressReport{Activity: info.ActivityType.Name, Attempt: 1, At: start, Progress: contract.Progress{Phase: "copy", Done: 1 << 20, Total: 4 << 20}}, "25 % of 4.0 MiB"},
		{"no report at all", "25 % of 4.0 MiB"},
		{contract.ProgressReport{Activity: "another", Attempt: 1, At: start, Progress: contract.Progress{Phase: "wrong"}}, "25 % of 4.0 MiB"},
		{contract.ProgressReport{Activity: info.ActivityType.Name, Attempt: 1, At: start.Add(time.Second), Progress: contract.Progress{Phase: "wal", Waiting: "segment 7"}}, "waiting for segment 7"},
	} {
		if err := c.SignalWorkflow(ctx, id.ID, id.RunID, contract.ProgressSignal, r.signal); err != nil {
			return err
		}
		answer, err := c.QueryWorkflow(ctx, id.ID, id.RunID, "__temporal_workflow_metadata")
		if err != nil {
			return err
		}
		var metadata sdkpb.WorkflowMetadata
		if err := answer.Get(&metadata); err != nil {
			return err
		}
		if text := metadata.GetCurrentDetails(); !strings.Contains(text, r.shown) || strings.Contains(text, "wrong") {
			return typed(contract.ErrorFailed, fmt.Sprintf("after %+v the details are %s", r.signal, text))
		}
	}
	return nil
}

func scenarios() []scenario {
	return []scenario{
		{name: "backup", workflow: contract.BackupWorkflow, input: backupInput, status: completed},
		{
			name: "backup-progress", workflow: contract.BackupWorkflow, input: backupInput, status: completed,
			prepare: func(f *fakes, _ func()) { f.before[contract.TakeBackupActivity] = reportThreeTimes },
			check:   wantAttempts(contract.TakeBackupActivity, 1),
		},
		{
			name: "backup-on-host", workflow: contract.BackupWorkflow, input: backupInput, status: completed, check: wantAttempts(contract.TakeBackupActivity, 2),
			prepare: func(f *fakes, _ func()) {
				f.place.Host = testHost
				f.before[contract.TakeBackupActivity] = silentOnce
			},
		},
		{
			name: "backup-no-worker", workflow: contract.BackupWorkflow, input: backupInput, status: failed, noHost: true,
			check:   wantFailure(errorNoWorker, "no worker on host db1"),
			prepare: func(f *fakes, _ func()) { f.place.Host = testHost },
		},
		{
			name: "backup-cancelled", workflow: contract.BackupWorkflow, input: backupInput, status: cancelled,
			prepare: func(f *fakes, cancel func()) { f.before[contract.TakeBackupActivity] = untilCancelled(cancel) },
		},
		{
			name: "backup-cancelled-badly", workflow: contract.BackupWorkflow, input: backupInput, status: cancelled,
			prepare: func(f *fakes, cancel func()) {
				wait := untilCancelled(cancel)
				f.before[contract.TakeBackupActivity] = func(ctx context.Context) error {
					_ = wait(ctx) // an activity that makes an error of its cancellation
					return typed(contract.ErrorFailed, "connection closed")
				}
			},
		},
		{
			name: "backup-typo", workflow: contract.BackupWorkflow, input: `{"clutser":"orders"}`, status: failed,
			check: wantFailure(contract.ErrorInvalidInput, `unknown field "clutser"`),
		},
		{
			name: "backup-scheduled-busy", workflow: contract.BackupWorkflow, input: backupInput, status: completed, scheduled: true,
			check: wantSkipped, prepare: func(f *fakes, _ func()) { f.before[contract.TakeBackupActivity] = always(errBusy) },
		},
		{
			name: "verify-scheduled-busy", workflow: contract.VerifyWorkflow, input: backupInput, status: completed, scheduled: true,
			check: wantSkipped, prepare: func(f *fakes, _ func()) { f.before[contract.VerifyBackupsActivity] = always(errBusy) },
		},
		{
			name: "drill-scheduled-busy", workflow: contract.DrillWorkflow, input: drillInput, status: completed, scheduled: true,
			check: wantSkipped, prepare: func(f *fakes, _ func()) { f.before[contract.PrepareDrillActivity] = always(errBusy) },
		},
		{
			name: "unknown-type", workflow: "Bakcup", input: backupInput, status: failed,
			check: wantFailure(contract.ErrorInvalidInput, "use Backup, Restore, Drill, Verify"),
		},
		{
			name: "restore", workflow: contract.RestoreWorkflow, input: startInput, status: completed, check: wantAttempts(contract.LayFilesActivity, 2),
			prepare: func(f *fakes, _ func()) { f.before[contract.LayFilesActivity] = silentOnce },
		},
		{
			name: "restore-no-worker", workflow: contract.RestoreWorkflow, input: restoreInput, status: failed, noHost: true,
			check: wantFailure(errorNoWorker, "no worker on host db1"),
		},
		{
			name: "restore-long-names", workflow: contract.RestoreWorkflow, status: failed, noHost: true,
			input: `{"cluster":"` + strings.Repeat("c", maxName) + `","host":"` + strings.Repeat("h", maxName) +
				`","targetDir":"/` + strings.Repeat("<é", 500) + `"}`,
			check: wantFailure(errorNoWorker, "no worker on host hhh"),
		},
		{
			name: "verify", workflow: contract.VerifyWorkflow, input: backupInput, status: completed, check: wantAttempts(contract.VerifyBackupsActivity, 2),
			prepare: func(f *fakes, _ func()) { f.before[contract.VerifyBackupsActivity] = silentOnce },
		},
		{
			name: "health", workflow: contract.HealthWorkflow, input: backupInput, status: completed, check: wantAttempts(contract.CheckHealthActivity, 2),
			prepare: func(f *fakes, _ func()) { f.before[contract.CheckHealthActivity] = silentOnce },
		},
		{
			name: "migrate", workflow: contract.MigrateWorkflow, input: migrateInput, status: completed, check: wantOutcome(contract.MigrationApplied),
			prepare: func(f *fakes, _ func()) {
				f.sound()
				f.before[contract.ApplyMigrationActivity] = silentOnce
			},
		},
		{
			name: "migrate-reverted", workflow: contract.MigrateWorkflow, input: migrateInput, status: completed, check: wantOutcome(contract.MigrationReverted),
			prepare: func(f *fakes, _ func()) {
				f.sound()
				f.migration.fails()
			},
		},
		{
			name: "migrate-cancelled", workflow: contract.MigrateWorkflow, input: migrateInput, status: cancelled, check: wantAttempts(contract.CleanUpDrillActivity, 1),
			prepare: func(f *fakes, cancel func()) { f.before[contract.RehearseMigrationActivity] = untilCancelled(cancel) },
		},
		{name: "drill", workflow: contract.DrillWorkflow, input: drillInput, status: completed, check: wantVerdict(contract.Pass)},
		{
			name: "drill-refused", workflow: contract.DrillWorkflow, input: drillInput, status: completed, check: wantVerdict(contract.Fail),
			prepare: func(f *fakes, _ func()) {
				f.before[contract.PlanRestoreActivity] = always(typed(contract.ErrorRefused, "the target cannot be reached"))
			},
		},
		{
			name: "drill-host-lost", workflow: contract.DrillWorkflow, input: drillInput, status: completed, noHost: true,
			check: wantVerdict(contract.CouldNotVerify),
		},
		{
			name: "drill-cancelled", workflow: contract.DrillWorkflow, input: drillInput, status: cancelled, check: wantAttempts(contract.CleanUpDrillActivity, 1),
			prepare: func(f *fakes, cancel func()) {
				f.before[contract.ProveRecoveryActivity] = untilCancelled(cancel)
			},
		},
	}
}

// Workflows behave on a real server as in the test environment: timeouts, routing to hosts, cancellation, metadata.
// Each history must replay at once, before and after it goes through JSON.
func TestServer(t *testing.T) {
	c := startServer(t)
	t.Run("mistakes", func(t *testing.T) { rejectMistakes(t, c) })
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			history := s.run(t, c)
			if err := newReplayer(t, Register).ReplayWorkflowHistory(quiet{}, history); err != nil {
				t.Errorf("replay: %v", err)
			}
			encoded := encodeHistory(t, history)
			again, err := client.HistoryFromJSON(bytes.NewReader(encoded), client.HistoryJSONOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := newReplayer(t, Register).ReplayWorkflowHistory(quiet{}, again); err != nil {
				t.Errorf("replay from JSON: %v", err)
			}
			if *update {
				if err := os.WriteFile(filepath.Join(replayFolder, s.name+".json"), encoded, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// rejectMistakes starts all that people mistype on a real server: each run fails at once, by its first workflow task.
func rejectMistakes(t *testing.T, c client.Client) {
	queue := contract.DefaultTaskQueue + "-mistakes"
	f := newFakes()
	startWorkers(t, c, f, queue, true)
	var runs []client.WorkflowRun
	for i, m := range mistyped() {
		var arguments []any
		for _, in := range m.inputs {
			arguments = append(arguments, jsonPayload(in))
		}
		run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: fmt.Sprintf("mistake-%d", i), TaskQueue: queue}, m.workflow, arguments...)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		runs = append(runs, run)
	}
	for i, m := range mistyped() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var app *temporal.ApplicationError
		err := runs[i].Get(ctx, nil)
		if !errors.As(err, &app) || app.Type() != contract.ErrorInvalidInput || !strings.Contains(app.Message(), m.text) {
			t.Errorf("%s: error is %v, want %s with %q", m.name, err, contract.ErrorInvalidInput, m.text)
		}
		d, err := c.DescribeWorkflowExecution(ctx, runs[i].GetID(), "")
		if err != nil || d.GetWorkflowExecutionInfo().GetHistoryLength() > 5 {
			t.Errorf("%s: %d events in its history (%v), want no more than started, one task, failed", m.name, d.GetWorkflowExecutionInfo().GetHistoryLength(), err)
		}
		cancel()
	}
	if calls := f.where(); len(calls) != 0 {
		t.Errorf("activities ran: %q", calls)
	}
}

// run runs the scenario to its end and returns its history.
func (s scenario) run(t *testing.T, c client.Client) *historypb.History {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := newFakes()
	if s.prepare != nil {
		s.prepare(f, func() { _ = c.CancelWorkflow(context.WithoutCancel(ctx), s.name, "") })
	}
	// A queue for each scenario: on a shared one, tasks get lost with the polls of workers that have stopped.
	queue := contract.DefaultTaskQueue + "-" + s.name
	f.prepared.Queue = contract.HostQueue(queue, testHost)
	if f.place.Host != "" {
		f.place.Queue = contract.HostQueue(queue, f.place.Host)
	}
	startWorkers(t, c, f, queue, !s.noHost)
	options := client.StartWorkflowOptions{ID: s.name, TaskQueue: queue}
	if s.scheduled {
		options.Memo = scheduledMemo
	}
	run, err := c.ExecuteWorkflow(ctx, options,
		s.workflow, jsonPayload(s.input))
	if err != nil {
		t.Fatal(err)
	}
	_ = run.Get(ctx, nil) // how it ended is checked below
	described, err := c.DescribeWorkflowExecution(ctx, s.name, "")
	if err != nil {
		t.Fatal(err)
	}
	if status := described.GetWorkflowExecutionInfo().GetStatus(); status != s.status {
		t.Fatalf("status is %v, want %v: %v", status, s.status, run.Get(ctx, nil))
	}
	if s.check != nil {
		s.check(t, f, run)
	}
	return historyOf(ctx, t, c, workflow.Execution{ID: s.name})
}

// historyOf reads the history of a run, the last one if it has no run id.
func historyOf(ctx context.Context, t *testing.T, c client.Client, run workflow.Execution) *historypb.History {
	t.Helper()
	history := &historypb.History{}
	events := c.GetWorkflowHistory(ctx, run.ID, run.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if reason := event.GetWorkflowTaskFailedEventAttributes(); reason != nil {
			t.Errorf("a workflow task failed: %v", reason)
		}
		if queue := event.GetWorkflowTaskScheduledEventAttributes().GetTaskQueue(); queue.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
			queue.Name = "sticky" // else the name of the machine that recorded it
		}
		history.Events = append(history.Events, event)
	}
	return history
}

// startWorkers starts the workers of a scenario, and stops them at its end.
func startWorkers(t *testing.T, c client.Client, f *fakes, queue string, withHost bool) {
	t.Helper()
	options := worker.Options{Identity: "worker", StickyScheduleToStartTimeout: time.Second}
	main := worker.New(c, queue, options)
	quick.Register(main)
	workers := []worker.Worker{main}
	if withHost {
		options.DisableWorkflowWorker = true
		workers = append(workers, worker.New(c, contract.HostQueue(queue, testHost), options))
	}
	for _, w := range workers {
		f.register(w)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
}

// startServer starts the development server that TEMPORAL_DEV_SERVER names.
func startServer(t *testing.T) client.Client {
	t.Helper()
	path := os.Getenv("TEMPORAL_DEV_SERVER")
	if path == "" {
		t.Skip("TEMPORAL_DEV_SERVER is not set: no Temporal server to test with; make test sets it")
	}
	var arguments []string
	for _, name := range contract.Attributes() {
		arguments = append(arguments, "--search-attribute", name+"=Keyword")
	}
	server, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath: path, LogLevel: "error", ExtraArgs: arguments, Stdout: io.Discard, Stderr: os.Stderr,
		ClientOptions: &client.Options{Identity: "test", Logger: quiet{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Client().Close()
		if err := server.Stop(); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	})
	return server.Client()
}

func wantFailure(kind, text string) func(*testing.T, *fakes, client.WorkflowRun) {
	return func(t *testing.T, _ *fakes, run client.WorkflowRun) {
		t.Helper()
		var app *temporal.ApplicationError
		if err := run.Get(t.Context(), nil); !errors.As(err, &app) || app.Type() != kind || !strings.Contains(app.Message(), text) {
			t.Errorf("error is %v, want %s with %q", err, kind, text)
		}
	}
}

func wantVerdict(want contract.Verdict) func(*testing.T, *fakes, client.WorkflowRun) {
	return func(t *testing.T, _ *fakes, run client.WorkflowRun) {
		t.Helper()
		var got contract.DrillResult
		if err := run.Get(t.Context(), &got); err != nil || got.Verdict != want {
			t.Errorf("verdict is %s, %v, want %s", got.Verdict, err, want)
		}
	}
}

func wantSkipped(t *testing.T, f *fakes, run client.WorkflowRun) {
	t.Helper()
	var got struct{ Skipped string }
	if err := run.Get(t.Context(), &got); err != nil || got.Skipped != skippedText(f) {
		t.Errorf("skipped %q, %v, want %q", got.Skipped, err, skippedText(f))
	}
}

func wantAttempts(activity string, want int) func(*testing.T, *fakes, client.WorkflowRun) {
	return func(t *testing.T, f *fakes, _ client.WorkflowRun) {
		t.Helper()
		if got := f.attempts(activity); got != want {
			t.Errorf("%d attempts at %s, want %d", got, activity, want)
		}
	}
}

func mustOpen(t *testing.T, file string) io.Reader {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(data)
}
