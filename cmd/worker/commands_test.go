package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
)

// command prepares the program lifeboat as a person's shell would run it, with no configuration of its own.
func (s *stack) command(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *buffer) {
	t.Helper()
	stdout, stderr = &buffer{}, &buffer{}
	cmd = exec.Command(filepath.Join(s.bin, "lifeboat"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", stdout, stderr
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=/", "TEMPORAL_ADDRESS=" + s.address, "TEMPORAL_UI_ADDRESS=ui.example:8233",
		fmt.Sprintf("KILLTEST_PORT=%d", s.Port),
	}
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	return cmd, stdout, stderr
}

// buffer may be read while a process writes to it.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// lifeboat runs the program, which must exit with code.
func (s *stack) lifeboat(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd, out, errs := s.command(t, args...)
	if got := exitCodeOf(cmd.Run()); got != code {
		t.Fatalf("lifeboat %s: exit code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, out, errs)
	}
	return out.String(), errs.String()
}

func exitCodeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// failure is what the program says on stderr with --json.
type failure struct {
	Error struct{ Code, Message, Hint, WorkflowID string }
}

func (s *stack) fails(t *testing.T, exit int, code string, args ...string) failure {
	t.Helper()
	_, stderr := s.lifeboat(t, exit, append(args, "--json")...)
	f := decode[failure](t, stderr)
	if f.Error.Code != code || f.Error.Message == "" {
		t.Errorf("lifeboat %s: code %q, want %q: %s", strings.Join(args, " "), f.Error.Code, code, stderr)
	}
	return f
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	return v
}

// TestCommands_ThroughTemporal drives workflows by the program, as a person does.
func TestCommands_ThroughTemporal(t *testing.T) {
	s := newStack(t, map[string]string{"archive_timeout": "60"})
	s.besideServer(t)
	s.Exec(t, "create table small as select g as id from generate_series(1, 1000) g")

	refused := s.fails(t, 1, "NoWorker", "restore", "c1", "--host", "h1", "--target-dir", "/tmp/x")
	if !strings.Contains(refused.Error.Hint, "start lifeboat-worker on h1") {
		t.Errorf("hint %q", refused.Error.Hint)
	}
	victim := s.worker(t, "worker")

	t.Run("backup", func(t *testing.T) { s.checkBackup(t) })
	t.Run("errors of the worker", func(t *testing.T) {
		if f := s.fails(t, 2, "Configuration", "backup", "nosuch"); !strings.HasPrefix(f.Error.WorkflowID, "lifeboat-backup-nosuch-") {
			t.Errorf("workflow %q", f.Error.WorkflowID)
		}
		s.fails(t, 5, "Refused", "restore", "c1", "--host", "h1", "--target-dir", filepath.Join(s.dir, "r0"), "--plan-hash", strings.Repeat("0", 64))
		s.fails(t, 5, "Refused", "restore", "c1", "--host", "h1", "--target-dir", s.DataDir)
	})
	t.Run("restore", func(t *testing.T) {
		dir := filepath.Join(s.dir, "r1")
		out, _ := s.lifeboat(t, 0, "restore", "c1", "--host", "h1", "--target-dir", dir, "--json")
		res := decode[contract.RestoreResult](t, out)
		if res.TargetDir != dir || res.Reached != nil || res.Bytes == 0 || res.WorkflowID == "" {
			t.Errorf("restored %+v", res)
		}
	})
	t.Run("drill: interrupted, twice, and its report", func(t *testing.T) { s.checkDrill(t) })

	if err := victim.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCodeOf(victim.Wait()); code != 0 {
		t.Errorf("the worker ended with %d on SIGTERM", code)
	}
}

func (s *stack) checkBackup(t *testing.T) {
	out, stderr := s.lifeboat(t, 0, "backup", "c1", "--json")
	res := decode[contract.BackupResult](t, out)
	if !strings.HasPrefix(res.WorkflowID, "lifeboat-backup-c1-") || res.BackupID == "" || res.Cluster != "c1" || stderr != "" {
		t.Errorf("backup %+v, stderr %q", res, stderr)
	}
	d, err := s.temporal.Client().DescribeWorkflowExecution(t.Context(), res.WorkflowID, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(d.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields()[contract.AttributeCluster].GetData()); got != `"c1"` {
		t.Errorf("search attribute %s", got)
	}
	if got := string(d.GetExecutionConfig().GetUserMetadata().GetSummary().GetData()); got != `"Backup of c1"` {
		t.Errorf("summary %s", got)
	}
	if got := s.queueOf(t, res.WorkflowID, contract.TakeBackupActivity); got != "lifeboat@h1" {
		t.Errorf("the backup from the data directory was taken by queue %q", got)
	}
	if shown, _ := s.lifeboat(t, 0, "show", "c1", res.BackupID, "--json", "--config", s.config); !strings.Contains(shown, `"synthesizedManifest":true`) {
		t.Errorf("shown %s", shown)
	}
	text, notes := s.lifeboat(t, 0, "backup", "c1", "--workflow-id", "mine", "--no-color")
	if !strings.Contains(text, "backup ") || !strings.Contains(notes, "workflow mine  http://ui.example:8233/namespaces/default/workflows/mine/") {
		t.Errorf("stdout %q, stderr %q", text, notes)
	}
	list, _ := s.lifeboat(t, 0, "backups", "c1", "--json", "--config", s.config)
	if n := len(decode[contract.BackupList](t, list).Backups); n != 2 {
		t.Errorf("%d backups", n)
	}
	rep, _ := s.lifeboat(t, 0, "check", "--json", "--config", s.config)
	if !strings.Contains(rep, `"id":"worker","outcome":"ok"`) {
		t.Errorf("check: %s", rep)
	}
}

// besideServer tells the worker, before it starts, where the server's data directory is.
func (s *stack) besideServer(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(text), "{c1: {", fmt.Sprintf("{c1: {data_directory: %q, ", s.DataDir), 1)
	if err := os.WriteFile(s.config, []byte(more), 0o644); err != nil || more == string(text) {
		t.Fatalf("%v: %s", err, more)
	}
}

// queueOf is the task queue that an activity of a run was sent to.
func (s *stack) queueOf(t *testing.T, workflowID, activity string) string {
	t.Helper()
	events := s.temporal.Client().GetWorkflowHistory(t.Context(), workflowID, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == activity {
			return a.GetTaskQueue().GetName()
		}
	}
	return ""
}

func (s *stack) checkDrill(t *testing.T) {
	// One that waits is interrupted: its work goes on.
	cmd, _, stderr := s.command(t, "drill", "c1", "--workflow-id", "d1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the drill's start", func() bool { return strings.Contains(stderr.String(), "workflow d1") })
	again := s.fails(t, 1, "AlreadyRunning", "drill", "c1", "--workflow-id", "d1")
	if again.Error.WorkflowID != "d1" {
		t.Errorf("workflow %q", again.Error.WorkflowID)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCodeOf(cmd.Wait()); code != 130 || !strings.Contains(stderr.String(), "the work goes on") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var res contract.DrillResult
	if err := s.temporal.Client().GetWorkflow(t.Context(), "d1", "").Get(t.Context(), &res); err != nil {
		t.Fatalf("the interrupted drill: %v", err)
	}
	if res.Verdict == contract.Fail || res.DrillID == "" {
		t.Errorf("drill %+v", res)
	}
	shown, _ := s.lifeboat(t, 0, "report", "show", res.DrillID, "--format", "json", "--config", s.config)
	if rep := decode[contract.Report](t, shown); rep.WorkflowID != "d1" || rep.Verdict != res.Verdict {
		t.Errorf("report %+v", rep)
	}

	out, _ := s.lifeboat(t, 0, "drill", "c1", "--detach", "--workflow-id", "d2", "--json")
	if got := decode[map[string]string](t, out); got["workflowId"] != "d2" {
		t.Errorf("detached: %s", out)
	}
	if err := s.temporal.Client().GetWorkflow(t.Context(), "d2", "").Get(t.Context(), nil); err != nil {
		t.Errorf("the detached drill: %v", err)
	}

	// A check that is wrong makes the drill fail: exit code 3, and the result is printed.
	checks := filepath.Join(s.dir, "checks.yaml")
	if err := os.WriteFile(checks, []byte("checks: [{name: wrong, sql: \"select count(*) from small\", expect: \"7\"}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ = s.lifeboat(t, 3, "drill", "c1", "--checks", checks, "--json")
	if res := decode[contract.DrillResult](t, out); res.Verdict != contract.Fail {
		t.Errorf("drill %+v", res)
	}
}

// settings are those of a worker that protects nothing.
func settings(t *testing.T) activities.Settings {
	t.Helper()
	set, err := assemble.Settings(config.Default(), assemble.Host{Name: "h9", WorkDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// usual are the times of a worker that was started without flags.
var usual = timeouts{heartbeat: heartbeatTimeout, host: hostTimeout}

// TestRun_PollsUntilStopped runs the worker in this process: it adds the search attributes, polls both queues, and
// stops in order.
func TestRun_PollsUntilStopped(t *testing.T) {
	temporal, address := startTemporal(t)
	t.Setenv("TEMPORAL_ADDRESS", address)
	set := settings(t)
	var said buffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, set, usual, slog.New(slog.NewTextHandler(&said, nil))) }()
	waitFor(t, "worker ready", func() bool { return strings.Contains(said.String(), "worker ready") })

	c := temporal.Client()
	have, err := c.OperatorService().ListSearchAttributes(t.Context(), &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range contract.Attributes() {
		if have.GetCustomAttributes()[name] != enums.INDEXED_VALUE_TYPE_KEYWORD {
			t.Errorf("search attribute %s is %v", name, have.GetCustomAttributes()[name])
		}
	}
	for queue, kind := range map[string]enums.TaskQueueType{"lifeboat": enums.TASK_QUEUE_TYPE_WORKFLOW, "lifeboat@h9": enums.TASK_QUEUE_TYPE_ACTIVITY} {
		waitFor(t, "a poller of "+queue, func() bool {
			d, err := c.DescribeTaskQueue(t.Context(), queue, kind)
			return err == nil && len(d.GetPollers()) > 0
		})
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("stopped with %v", err)
		}
	case <-time.After(2 * stopTimeout):
		t.Fatal("the worker did not stop")
	}
}

func TestStart_RefusesWrongUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag": {"--nosuch"}, "argument": {"x"}, "log level": {"--log-level", "loud"}, "log format": {"--log-format", "xml"},
		"heartbeat timeout": {"--heartbeat-timeout", "999ms"}, "host timeout": {"--host-timeout", "0"}, "a number without a unit": {"--host-timeout", "5"},
		"no configuration": {"--config", filepath.Join(t.TempDir(), "none")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := start(t.Context(), args); err == nil || exitCode(err) != 2 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRun_NoTemporal(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	err := run(t.Context(), settings(t), usual, slog.New(slog.DiscardHandler))
	if err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "TEMPORAL_ADDRESS") {
		t.Errorf("got %v", err)
	}
}
