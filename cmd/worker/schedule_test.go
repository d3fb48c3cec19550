package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
)

// applied and listed are what `schedule apply` and `schedule list` print.
type (
	applied struct {
		TaskQueue                                     string
		Applied                                       bool
		Created, Updated, Deleted, Unchanged, Skipped int
		Changes                                       []struct{ Schedule, Action, Reason string }
	}
	listed struct {
		Verdict   string
		Schedules []struct {
			Schedule, Cluster, Verb, State, Note, Verdict, Reason string
			Last                                                  *struct{ WorkflowID, Status string }
			Next                                                  *time.Time
			Findings                                              []struct{ Kind, Text string }
		}
	}
)

// schedules writes the section of the one cluster.
func (s *stack) schedules(t *testing.T, section string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "\nclusters:")
	_, dsn, _ := strings.Cut(string(text), `dsn: `)
	dsn = dsn[:strings.Index(dsn[1:], `"`)+2]
	more := fmt.Sprintf("%s\nclusters: {c1: {dsn: %s, schedules: {%s}}}\n", before, dsn, section)
	if err := os.WriteFile(s.config, []byte(more), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s *stack) schedule(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	return s.lifeboat(t, code, append([]string{"schedule", "--config", s.config}, args...)...)
}

func (s *stack) apply(t *testing.T, args ...string) applied {
	t.Helper()
	out, _ := s.schedule(t, 0, append([]string{"apply", "--json"}, args...)...)
	return decode[applied](t, out)
}

func (s *stack) list(t *testing.T, code int) map[string]string {
	t.Helper()
	out, _ := s.schedule(t, code, "list", "c1", "--json")
	rows := map[string]string{}
	for _, r := range decode[listed](t, out).Schedules {
		status := "-"
		if r.Last != nil {
			status = r.Last.Status
		}
		rows[r.Verb] = fmt.Sprintf("%s %s %s", r.State, status, r.Verdict)
		for _, f := range r.Findings {
			rows[r.Verb] += " " + f.Kind
		}
		if planned := r.State == "active" || r.State == "extra"; planned != (r.Next != nil) {
			t.Errorf("%s is %s, next %v", r.Verb, r.State, r.Next)
		}
	}
	return rows
}

// TestSchedule_ThroughTemporal drives schedules by the program, as a person does, with a worker and a cluster that is busy.
func TestSchedule_ThroughTemporal(t *testing.T) {
	s := newStack(t, nil)
	s.schedules(t, `backup_full: "0 2 1 1 *", verify: "0 3 1 1 *", drill_table: "0 4 * * 0", health: 1h`)
	s.Exec(t, "create table small as select g as id from generate_series(1, 1000) g")

	unregistered := s.fails(t, 1, "Failed", "schedule", "apply", "--config", s.config)
	if !strings.Contains(unregistered.Error.Hint, "search attributes") {
		t.Errorf("without search attributes: %+v", unregistered)
	}
	s.worker(t, "worker")
	s.checkApply(t)
	s.checkBusy(t)
	s.checkPause(t)
	s.checkRemoved(t)
}

func (s *stack) checkApply(t *testing.T) {
	plan := s.apply(t, "--plan")
	if plan.Applied || plan.Created != 3 || plan.Skipped < 1 || plan.TaskQueue != "lifeboat" {
		t.Errorf("plan %+v", plan)
	}
	s.health(t, true)
	absent := s.list(t, 3)
	if absent["backup-full"] != "absent -  absent" || absent["drill-table"] != "skipped - SKIPPED" {
		t.Errorf("after a plan alone: %q", absent)
	}
	if first := s.apply(t); !first.Applied || first.Created != 3 || first.Skipped != plan.Skipped {
		t.Errorf("applied %+v", first)
	}
	if again := s.apply(t); again.Created+again.Updated+again.Deleted != 0 || again.Unchanged != 3 {
		t.Errorf("applied again %+v", again)
	}
	s.health(t, false)
	list := s.list(t, 0)
	if list["backup-full"] != "active - " || list["verify"] != "active - " {
		t.Errorf("listed %q", list)
	}
	s.schedules(t, `backup_full: "0 2 1 2 *", verify: "0 3 1 1 *", drill_table: "0 4 * * 0", health: 1h`)
	if differs := s.list(t, 3); differs["backup-full"] != "active -  differs" {
		t.Errorf("changed and not applied: %q", differs)
	}
	text, _ := s.schedule(t, 0, "apply")
	if !strings.Contains(text, "times: 0 2 1 1 * -> 0 2 1 2 *") || !strings.Contains(text, `skip       lifeboat-c1-drill-table  0 4 * * 0  not in this version`) ||
		!strings.Contains(text, "done: 0 created, 1 changed, 0 removed") {
		t.Errorf("applied a change:\n%s", text)
	}
}

// health checks the cluster and tells of schedules that are not as configured, or of none.
func (s *stack) health(t *testing.T, drift bool) {
	t.Helper()
	out, _ := s.lifeboat(t, 3, "health", "c1", "--json") // 3: there is no backup yet
	if got := strings.Contains(out, `"id":"schedule_drift/backup-full"`); got != drift {
		t.Errorf("drift found: %v, want %v: %s", got, drift, out)
	}
}

// trigger starts a run and waits until it has ended.
func (s *stack) trigger(t *testing.T, verb string) string {
	t.Helper()
	out, _ := s.schedule(t, 0, "trigger", "c1", verb, "--quiet")
	id := strings.TrimSpace(out)
	if !strings.HasPrefix(id, "lifeboat-c1-"+strings.ReplaceAll(verb, "_", "-")+"-") {
		t.Errorf("triggered %q", id)
	}
	_ = s.temporal.Client().GetWorkflow(t.Context(), id, "").Get(t.Context(), nil) // the list tells how it ended
	return id
}

// A backup that meets another one is SKIPPED; the other one is left alone.
func (s *stack) checkBusy(t *testing.T) {
	s.trigger(t, "backup_full")
	s.trigger(t, "verify")
	s.trigger(t, "health")
	// FAIL: the server has no archive_timeout.
	if list := s.list(t, 0); list["backup-full"] != "active completed PASS" || list["verify"] != "active completed PASS" || list["health"] != "active completed FAIL" {
		t.Errorf("after both ran: %q", list)
	}
	s.Exec(t, "alter system set archive_command = 'false'")
	s.Exec(t, "select pg_reload_conf()")
	other, _, said := s.command(t, "backup", "c1", "--local", "--wal-timeout", "10m", "--config", s.config)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- other.Wait() }()
	waitFor(t, "the other backup waits for its WAL", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("the other backup has ended: %v: %s", err, said)
		default:
		}
		return strings.Contains(said.String(), "wal")
	})
	id := s.trigger(t, "backup_full")
	list := s.list(t, 0)
	if list["backup-full"] != "active completed SKIPPED" {
		t.Errorf("beside another backup: %q, %s", list, said)
	}
	text, _ := s.schedule(t, 0, "list")
	if !strings.Contains(text, "lifeboat-c1-backup-full: SKIPPED: busy: TakeBackup: backup of cluster c1 is held by local-lifeboat-backup-c1-") {
		t.Errorf("listed (%s):\n%s", id, text)
	}
	if err := other.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCodeOf(<-ended); code != 130 {
		t.Errorf("the other backup ended with %d: %s", code, said)
	}
	s.Exec(t, "alter system reset archive_command")
	s.Exec(t, "select pg_reload_conf()")
}

func (s *stack) checkPause(t *testing.T) {
	s.fails(t, 2, "Usage", "schedule", "pause", "c1", "--config", s.config)
	s.fails(t, 2, "Usage", "schedule", "trigger", "c1", "dance", "--config", s.config)
	s.fails(t, 2, "Configuration", "schedule", "trigger", "c1", "drill-table", "--config", s.config)
	s.fails(t, 2, "Configuration", "schedule", "trigger", "c1", "backup-incremental", "--config", s.config)
	s.fails(t, 2, "Configuration", "schedule", "list", "c2", "--config", s.config)
	out, _ := s.schedule(t, 0, "pause", "c1", "verify", "--reason", "moving house")
	if out != "paused lifeboat-c1-verify\n" {
		t.Errorf("paused %q", out)
	}
	if list := s.list(t, 0); list["verify"] != "paused completed PASS" {
		t.Errorf("paused: %q", list)
	}
	text, _ := s.schedule(t, 0, "list")
	if !strings.Contains(text, "lifeboat-c1-verify: paused: moving house (paused by ") {
		t.Errorf("listed:\n%s", text)
	}
	if again := s.apply(t); again.Unchanged != 3 {
		t.Errorf("applied while one is paused: %+v", again)
	}
	if list := s.list(t, 0); list["verify"] != "paused completed PASS" {
		t.Errorf("applying resumed it: %q", list)
	}
	out, _ = s.schedule(t, 0, "resume", "c1")
	if !strings.Contains(out, "resumed lifeboat-c1-verify\n") || !strings.Contains(out, "lifeboat-c1-backup-full was resumed already\n") {
		t.Errorf("resumed %q", out)
	}
}

func (s *stack) checkRemoved(t *testing.T) {
	_, err := s.temporal.Client().ScheduleClient().Create(t.Context(), client.ScheduleOptions{
		ID: "lifeboat-c1-drill-restore", Spec: client.ScheduleSpec{CronExpressions: []string{"0 0 1 1 *"}},
		Action: &client.ScheduleWorkflowAction{ID: "theirs", Workflow: "Theirs", TaskQueue: "theirs"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.schedules(t, `backup_full: "0 2 1 2 *", drill_restore: "0 0 1 1 *"`)
	taken := s.fails(t, 5, "Refused", "schedule", "apply", "--config", s.config)
	if !strings.Contains(taken.Error.Message, "lifeboat-c1-drill-restore") || !strings.Contains(taken.Error.Hint, "temporal schedule delete") {
		t.Errorf("a name that is taken: %+v", taken)
	}
	s.fails(t, 5, "Refused", "schedule", "apply", "--plan", "--config", s.config)
	if list := s.list(t, 3); list["verify"] != "extra completed PASS extra" {
		t.Errorf("a plan with a conflict was begun: %q", list)
	}
	s.schedules(t, `backup_full: "0 2 1 2 *"`)
	if gone := s.apply(t); gone.Deleted != 2 || gone.Unchanged != 1 || !slices.ContainsFunc(gone.Changes, func(c struct{ Schedule, Action, Reason string }) bool {
		return c.Schedule == "lifeboat-c1-verify" && c.Action == "delete" && c.Reason == "not in the configuration"
	}) {
		t.Errorf("removed %+v", gone)
	}
	if d, err := s.temporal.Client().ScheduleClient().GetHandle(t.Context(), "lifeboat-c1-drill-restore").Describe(t.Context()); err != nil || d.Schedule.State.Paused {
		t.Errorf("another's schedule: %+v, %v", d, err)
	}
	if list := s.list(t, 0); list["backup-full"] != "active completed SKIPPED" || len(list) != 1 {
		t.Errorf("in the end: %q", list)
	}
}
