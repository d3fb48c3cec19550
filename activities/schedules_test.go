package activities

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/schedule"
)

// temporalServer is a real one, whose process can be stopped for a while.
type temporalServer struct {
	client.Client
	process *os.Process
}

func startTemporal(t *testing.T) *temporalServer {
	t.Helper()
	path := os.Getenv("TEMPORAL_DEV_SERVER")
	if path == "" {
		t.Skip("TEMPORAL_DEV_SERVER is not set: no Temporal server to test with; make test sets it")
	}
	port, err := pginstance.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", fmt.Sprint(port), "--log-level", "error"}
	for _, name := range contract.Attributes() {
		args = append(args, "--search-attribute", name+"=Keyword")
	}
	cmd := exec.Command(path, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server said:\n%s", &said)
		}
	})
	var c client.Client
	quiet := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	pgtest.Eventually(t, "Temporal to answer", func() bool {
		c, err = client.DialContext(t.Context(), client.Options{HostPort: fmt.Sprintf("127.0.0.1:%d", port), Logger: quiet})
		return err == nil
	})
	t.Cleanup(c.Close)
	return &temporalServer{c, cmd.Process}
}

// bench is a configuration that is applied to a server.
type bench struct {
	*Schedules
	t *testing.T
}

var scheduleOptions = schedule.Options{TaskQueue: "schedules"}

func (b bench) plan(clusters ...schedule.Cluster) schedule.Plan {
	b.t.Helper()
	desired, skipped, err := schedule.Desired(clusters, scheduleOptions)
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	existing, err := schedule.Read(b.t.Context(), b, names)
	if err != nil {
		b.t.Fatal(err)
	}
	return schedule.MakePlan(desired, skipped, existing, scheduleOptions.TaskQueue)
}

// apply does what the plan says, and tells which actions that were.
func (b bench) apply(clusters ...schedule.Cluster) string {
	b.t.Helper()
	done, err := schedule.Execute(b.t.Context(), b, b.plan(clusters...))
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, c := range done {
		text := fmt.Sprintf("%s %s", c.Action, c.ID)
		for _, d := range c.Differences {
			text += " " + d.Property
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (b bench) seen(id string) schedule.Seen {
	b.t.Helper()
	seen, ok, err := b.Seen(b.t.Context(), id)
	if err != nil || !ok {
		b.t.Fatalf("schedule %s: there %v, %v", id, ok, err)
	}
	return seen
}

func wish(v schedule.Verb, cron string) schedule.Wish {
	return schedule.Wish{Verb: v, Cron: cron, Text: cron}
}

// TestSchedules drives Temporal's schedules on a real server.
func TestSchedules(t *testing.T) {
	server := startTemporal(t)
	s := NewSchedules(server.Client)
	t.Run("reconcile", func(t *testing.T) { reconcileSchedules(t, server, bench{s, t}) })
	t.Run("others", func(t *testing.T) { leaveOthersAlone(t, server, bench{s, t}) })
	t.Run("overlap", func(t *testing.T) { skipOverlap(t, server, bench{s, t}) })
	t.Run("catch up", func(t *testing.T) { catchUp(t, server, bench{s, t}) })
}

// Applying twice is applying once; what changed in the configuration, or by hand in Temporal, is mended; what is paused
// stays paused; what was removed goes.
func reconcileSchedules(t *testing.T, server *temporalServer, b bench) {
	wishes := []schedule.Wish{
		wish(schedule.BackupFull, "0 2 * * *"), wish(schedule.BackupIncremental, "7,22 */6 1-7 * *"), wish(schedule.Verify, "30 3 * jan-nov mon-fri"),
		wish(schedule.DrillTable, "0 4 * * 0"), wish(schedule.DrillRestore, "0 5 31 * *"), wish(schedule.DrillDisaster, "0 6 1 1,4,7,10 *"),
	}
	orders := schedule.Cluster{Name: "orders", TimeZone: "Europe/Berlin", Wishes: wishes}
	bills := schedule.Cluster{Name: "bills", Wishes: []schedule.Wish{{Verb: schedule.Verify, Every: 36 * time.Hour, Text: "36h"}}}

	planned := b.plan(orders, bills)
	if n := planned.Count(schedule.Create); n != 6 {
		t.Fatalf("%d to create: %+v", n, planned.Changes)
	}
	if problems, err := b.problems(t.Context(), orders, scheduleOptions.TaskQueue); err != nil || len(problems) != 5 || !problems[0].Drifted {
		t.Errorf("health before: %+v, %v", problems, err)
	}
	if again := b.plan(orders, bills); again.Count(schedule.Create) != 6 {
		t.Error("a plan alone made something")
	}
	if got := b.apply(orders, bills); strings.Count(got, "create ") != 6 {
		t.Errorf("applied %s", got)
	}
	if got := b.apply(orders, bills); got != "" {
		t.Errorf("applied once more: %s", got)
	}

	if problems, err := b.problems(t.Context(), orders, scheduleOptions.TaskQueue); err != nil || len(problems) != 0 {
		t.Errorf("health after applying: %+v, %v", problems, err)
	}
	id := schedule.ID("orders", schedule.BackupFull)
	next := b.seen(id).Next
	if h, m, _ := next.In(mustZone(t, "Europe/Berlin")).Clock(); h != 2 || m > 5 {
		t.Errorf("next run at %s, want 02:00 to 02:05 in Berlin", next)
	}
	if err := b.SetPaused(t.Context(), id, true, "moving", schedule.Ours(scheduleOptions.TaskQueue)); err != nil {
		t.Fatal(err)
	}
	orders.Wishes[0] = wish(schedule.BackupFull, "15 4 * * *")
	if got := b.apply(orders, bills); got != "update "+id+" times" {
		t.Errorf("a changed time: %s", got)
	}
	orders.TimeZone = ""
	if got := b.apply(orders, bills); strings.Count(got, " time zone") != 5 {
		t.Errorf("a changed zone: %s", got)
	}
	if e := b.read(id); !e.Paused || e.Note != "moving" || e.When.String() != "15 4 * * *" {
		t.Errorf("after the update: %+v", e)
	}
	if err := b.SetPaused(t.Context(), id, false, "moved", schedule.Ours(scheduleOptions.TaskQueue)); err != nil {
		t.Fatal(err)
	}
	next = b.seen(id).Next
	if h, m, _ := next.UTC().Clock(); h != 4 || m < 15 || m > 20 {
		t.Errorf("next run at %s, want 04:15 to 04:20", next)
	}

	// Somebody changes one in the UI.
	err := server.ScheduleClient().GetHandle(t.Context(), id).Update(t.Context(), client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			in.Description.Schedule.Policy.Overlap = enums.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL
			in.Description.Schedule.Policy.CatchupWindow = time.Hour
			in.Description.Schedule.Spec.EndAt = time.Now().Add(time.Hour)
			in.Description.Schedule.Action.(*client.ScheduleWorkflowAction).Memo = nil
			return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.apply(orders, bills); got != "update "+id+" times overlap catch-up window workflow" {
		t.Errorf("changed by hand: %s", got)
	}

	orders.Wishes = orders.Wishes[:2]
	pgtest.Eventually(t, "the list to have the removed cluster's schedule", func() bool {
		return b.plan(orders).Count(schedule.Delete) == 4
	})
	if got := b.apply(orders); strings.Count(got, "delete ") != 4 {
		t.Errorf("removed: %s", got)
	}
	if got := b.apply(orders); got != "" {
		t.Errorf("removed once more: %s", got)
	}
	if _, ok, err := b.Seen(t.Context(), schedule.ID("bills", schedule.Verify)); ok || err != nil {
		t.Errorf("the removed one is there: %v, %v", ok, err)
	}
	if err := b.Delete(t.Context(), schedule.ID("bills", schedule.Verify), nil); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
}

func (b bench) read(id string) schedule.Existing {
	b.t.Helper()
	all, err := b.Read(b.t.Context(), []string{id})
	i := slices.IndexFunc(all, func(e schedule.Existing) bool { return e.ID == id })
	if err != nil || i < 0 {
		b.t.Fatalf("schedule %s: %v, %v", id, all, err)
	}
	return all[i]
}

func mustZone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Schedules of others stay as they are, whatever their names and marks.
func leaveOthersAlone(t *testing.T, server *temporalServer, b bench) {
	foreign := map[string]map[string]any{
		"lifeboat-sales-verify":       nil,
		"nightly":                     nil,
		"my-copy":                     {contract.ScheduleMark: schedule.Mark{Cluster: "gone", Verb: schedule.Verify, TaskQueue: scheduleOptions.TaskQueue}},
		"lifeboat-elsewhere-verify":   {contract.ScheduleMark: schedule.Mark{Cluster: "elsewhere", Verb: schedule.Verify, TaskQueue: "another"}},
		"lifeboat-gone-backup-full":   {contract.ScheduleMark: "no mark"},
		"lifeboat-gone-drill-restore": {"other": "lifeboat"},
	}
	for id, memo := range foreign {
		_, err := server.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
			ID: id, Memo: memo, Spec: client.ScheduleSpec{CronExpressions: []string{"0 0 1 1 *"}},
			Action: &client.ScheduleWorkflowAction{ID: id, Workflow: "Theirs", TaskQueue: "theirs"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := schedule.Cluster{Name: "gone", Wishes: []schedule.Wish{wish(schedule.Verify, "0 0 1 1 *")}}
	b.apply(gone)
	pgtest.Eventually(t, "the list to have them all", func() bool {
		list, err := server.ScheduleClient().List(t.Context(), client.ScheduleListOptions{})
		n := 0
		for err == nil && list.HasNext() {
			if e, err := list.Next(); err == nil {
				if _, ok := foreign[e.ID]; ok || e.ID == schedule.ID("gone", schedule.Verify) {
					n++
				}
			}
		}
		return n == len(foreign)+1
	})
	gone.Wishes[0].Cron = ""
	b.apply(gone) // removes all that is ours
	for id := range foreign {
		d, err := server.ScheduleClient().GetHandle(t.Context(), id).Describe(t.Context())
		if err != nil || d.Schedule.Action.(*client.ScheduleWorkflowAction).Workflow != "Theirs" || !d.Info.LastUpdateAt.IsZero() && d.Info.LastUpdateAt.Unix() > 0 {
			t.Errorf("%s: %+v, %v", id, d, err)
		}
	}
	if _, ok, _ := b.Seen(t.Context(), schedule.ID("gone", schedule.Verify)); ok {
		t.Error("our own one is still there: nothing was tested")
	}
	// A name that is taken stops the whole plan, also when it was taken since.
	plan := b.plan(schedule.Cluster{Name: "sales", Wishes: []schedule.Wish{wish(schedule.Verify, "0 0 1 1 *"), wish(schedule.BackupFull, "0 0 1 1 *")}})
	if done, err := schedule.Execute(t.Context(), b, plan); err == nil || len(done) != 0 || !strings.Contains(err.Error(), "lifeboat-sales-verify") {
		t.Errorf("done %+v, error %v", done, err)
	}
	for _, try := range []func(string) error{
		func(id string) error {
			return b.Create(t.Context(), schedule.Schedule{ID: id, Workflow: "Verify", TaskQueue: "q", Input: "{}", When: schedule.When{Every: time.Hour}, Mark: schedule.Mark{Cluster: "sales"}})
		},
		func(id string) error { return b.Update(t.Context(), schedule.Schedule{ID: id}, schedule.Ours("q")) },
		func(id string) error { return b.Delete(t.Context(), id, schedule.Ours("q")) },
		func(id string) error { return b.SetPaused(t.Context(), id, true, "", schedule.Ours("q")) },
	} {
		if err := try("lifeboat-sales-verify"); err == nil || !strings.Contains(err.Error(), "lifeboat-sales-verify") {
			t.Errorf("error %v, want one of a conflict", err)
		}
	}
}

// A run that is still going drops the starts that meet it, and is an overrun.
func skipOverlap(t *testing.T, server *temporalServer, b bench) {
	held := worker.New(server.Client, scheduleOptions.TaskQueue, worker.Options{})
	held.RegisterWorkflowWithOptions(func(ctx workflow.Context, in json.RawMessage) (contract.VerifyResult, error) {
		workflow.GetSignalChannel(ctx, "end").Receive(ctx, nil)
		return contract.VerifyResult{Cluster: string(in), Verdict: contract.Pass}, nil
	}, workflow.RegisterOptions{Name: contract.VerifyWorkflow})
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Stop)
	c := schedule.Cluster{Name: "busy", Wishes: []schedule.Wish{{Verb: schedule.Verify, Every: time.Second, Text: "1s"}}}
	b.apply(c)
	id := schedule.ID("busy", schedule.Verify)
	var seen schedule.Seen
	pgtest.Eventually(t, "starts that meet a run", func() bool {
		seen = b.seen(id)
		return seen.SkippedOverlap >= 2
	})
	if len(seen.Started) != 1 || len(seen.Running) != 1 {
		t.Fatalf("seen %+v", seen)
	}
	if run, err := b.RunOf(t.Context(), seen.Started[0]); err != nil || run.Status != schedule.Running {
		t.Errorf("run %+v, %v", run, err)
	}
	desired, _, _ := schedule.Desired([]schedule.Cluster{c}, scheduleOptions)
	later := seen.Started[0].ScheduledAt.Add(desired[0].Grace() + 2*time.Second)
	if f := schedule.Overdue(desired[0], seen, later); len(f) != 1 || f[0].Kind != schedule.FindingOverrun {
		t.Errorf("findings %+v", f)
	}
	if err := server.SignalWorkflow(t.Context(), seen.Running[0], "", "end", nil); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the next start", func() bool { return len(b.seen(id).Started) > 1 })
	run, err := b.RunOf(t.Context(), seen.Started[0])
	if v, why := run.Verdict(); err != nil || v != contract.Pass || why != "" || !strings.Contains(string(run.Result), `{\"cluster\":\"busy\"}`) {
		t.Errorf("run %+v is %s %q, %v", run, v, why, err)
	}
	b.apply() // removes it
}

// While Temporal does not run, nothing starts. Afterwards, starts within the catch-up window are made, and older ones are
// not; the hole is a finding. Temporal's least window is 10 s.
func catchUp(t *testing.T, server *temporalServer, b bench) {
	ended := worker.New(server.Client, "catch-up", worker.Options{})
	ended.RegisterWorkflowWithOptions(func(workflow.Context, json.RawMessage) (contract.VerifyResult, error) {
		return contract.VerifyResult{Verdict: contract.Pass}, nil
	}, workflow.RegisterOptions{Name: contract.VerifyWorkflow})
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ended.Stop)
	desired, _, err := schedule.Desired([]schedule.Cluster{{
		Name: "late", Wishes: []schedule.Wish{{Verb: schedule.Verify, Every: 2 * time.Second, Text: "2s"}},
	}}, schedule.Options{TaskQueue: "catch-up"})
	if err != nil {
		t.Fatal(err)
	}
	s := desired[0]
	s.CatchUp = 10 * time.Second
	if err := b.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	// Of a run that is under way Temporal learns the end after the outage: until then the starts would meet it.
	pgtest.Eventually(t, "a first run that has ended", func() bool {
		seen := b.seen(s.ID)
		return len(seen.Started) > 0 && len(seen.Running) == 0
	})
	if err := server.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	<-time.After(s.CatchUp + 5*time.Second)
	if err := server.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	var seen schedule.Seen
	pgtest.Eventually(t, "runs after the outage", func() bool {
		now, ok, err := b.Seen(t.Context(), s.ID)
		seen = now
		return err == nil && ok && len(seen.Started) > 0 && seen.Started[len(seen.Started)-1].ScheduledAt.After(resumed.Add(time.Second))
	})
	late := 0
	for _, run := range seen.Started {
		if run.StartedAt.Before(resumed) || run.StartedAt.Sub(run.ScheduledAt) <= s.When.Every {
			continue
		}
		t.Logf("due at %s, %v before Temporal ran again; started at %s", run.ScheduledAt.Format(time.TimeOnly), resumed.Sub(run.ScheduledAt).Round(time.Millisecond), run.StartedAt.Format(time.TimeOnly))
		if late++; resumed.Sub(run.ScheduledAt) > s.CatchUp {
			t.Error("it was older than the catch-up window")
		}
	}
	if late == 0 || seen.MissedCatchUp == 0 {
		t.Errorf("%d late starts, %d missed: %+v", late, seen.MissedCatchUp, seen)
	}
	findings := schedule.Overdue(s, seen, time.Now())
	if len(findings) == 0 || findings[0].Kind != schedule.FindingMissed || findings[0].Count < seen.MissedCatchUp || findings[0].Since.After(resumed) {
		t.Errorf("findings %+v, stopped from %s to %s", findings, stopped, resumed)
	}
	if err := b.Delete(t.Context(), s.ID, schedule.Ours("catch-up")); err != nil {
		t.Error(err)
	}
}
