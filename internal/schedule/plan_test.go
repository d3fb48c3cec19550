package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/contract"
)

var options = Options{TaskQueue: "lifeboat"}

// designed is the configuration of the interface.
func designed(name string) Cluster {
	return Cluster{Name: name, Wishes: []Wish{
		{Verb: BackupFull, Cron: "0 2 * * *", Text: "0 2 * * *"},
		{Verb: BackupIncremental, Cron: "0 */6 * * *", Text: "0 */6 * * *"},
		{Verb: BackupLogical},
		{Verb: Verify, Cron: "30 3 * * *", Text: "30 3 * * *"},
		{Verb: DrillTable, Cron: "0 4 * * 0", Text: "0 4 * * 0"},
		{Verb: DrillRestore, Cron: "0 5 1 * *", Text: "0 5 1 * *"},
		{Verb: DrillDisaster, Cron: "0 6 1 1,4,7,10 *", Text: "0 6 1 1,4,7,10 *"},
		{Verb: Health, Every: time.Minute, Text: "1m"},
	}}
}

func mustDesire(t *testing.T, opts Options, clusters ...Cluster) ([]Schedule, []Skipped) {
	t.Helper()
	d, s, err := Desired(clusters, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d, s
}

func TestDesired(t *testing.T) {
	d, skipped := mustDesire(t, options, designed("orders"))
	var got []string
	for _, s := range d {
		got = append(got, fmt.Sprintf("%s %s %s | %s %s | jitter %v, %s, catch up %v", s.ID, s.When, s.TimeZone, s.Workflow, s.Input, s.Jitter, s.Overlap, s.CatchUp))
	}
	for _, s := range skipped {
		got = append(got, fmt.Sprintf("skipped %s %s: %s", s.Mark.Verb, s.Text, s.Reason))
	}
	want := []string{
		`lifeboat-orders-backup-full 0 2 * * * UTC | Backup {"cluster":"orders","type":"full"} | jitter 5m0s, skip, catch up 12h0m0s`,
		`lifeboat-orders-backup-incremental 0 0,6,12,18 * * * UTC | Backup {"cluster":"orders","type":"incremental"} | jitter 5m0s, skip, catch up 3h0m0s`,
		`lifeboat-orders-verify 30 3 * * * UTC | Verify {"cluster":"orders"} | jitter 10m0s, skip, catch up 12h0m0s`,
		`lifeboat-orders-drill-restore 0 5 1 * * UTC | Drill {"cluster":"orders","scenario":"restore"} | jitter 15m0s, skip, catch up 72h0m0s`,
		`lifeboat-orders-drill-disaster 0 6 1 1,4,7,10 * UTC | Drill {"cluster":"orders","scenario":"restore"} | jitter 15m0s, skip, catch up 168h0m0s`,
		`lifeboat-orders-health every 1m0s UTC | HealthCheck {"cluster":"orders"} | jitter 5s, skip, catch up 1m0s`,
		`skipped drill-table 0 4 * * 0: not in this version: scenario "table"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("desired:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Jitter is at most a tenth of the time between two starts, in whole seconds.
func TestDesired_Jitter(t *testing.T) {
	d, _ := mustDesire(t, options, Cluster{Name: "c", Wishes: []Wish{
		{Verb: Health, Every: 30 * time.Second}, {Verb: Verify, Every: time.Second}, {Verb: BackupFull, Cron: "*/20 * * * *"},
	}})
	if len(d) != 3 || d[0].Jitter != 2*time.Minute || d[1].Jitter != 0 || d[2].Jitter != 3*time.Second {
		t.Errorf("desired %+v", d)
	}
}

func TestDesired_Refuses(t *testing.T) {
	for says, c := range map[string]Cluster{
		"both the day":    {Name: "c", Wishes: []Wish{{Verb: Verify, Cron: "0 0 1 * 1"}}},
		"whole seconds":   {Name: "c", Wishes: []Wish{{Verb: Verify, Every: 1500 * time.Millisecond}}},
		"time zone":       {Name: "c", TimeZone: "Nowhere", Wishes: nil},
		"unknown verb":    {Name: "c", Wishes: []Wish{{Verb: "dance", Every: time.Minute}}},
		"schedule of ver": {Name: "c", Wishes: []Wish{{Verb: Verify, Cron: "x"}}},
	} {
		if _, _, err := Desired([]Cluster{c}, options); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "cluster c") {
			t.Errorf("error is %v, want %q", err, says)
		}
	}
}

// as is a desired schedule as Temporal would have it.
func as(s Schedule, change func(*Existing)) Existing {
	e := Existing{Schedule: s, Marked: true}
	if change != nil {
		change(&e)
	}
	return e
}

func lines(p Plan) []string {
	var out []string
	for _, c := range p.Changes {
		line := fmt.Sprintf("%s %s", c.Action, c.ID)
		for _, d := range c.Differences {
			line += fmt.Sprintf(" [%s: %s -> %s]", d.Property, d.Is, d.Shall)
		}
		if c.Action == Delete || c.Action == Conflict || c.Action == Skip {
			line += ": " + c.Reason
		}
		out = append(out, line)
	}
	return out
}

// The plan changes what differs, removes what is ours and not wanted, and nothing else.
func TestMakePlan(t *testing.T) {
	d, skipped := mustDesire(t, options, designed("orders"))
	full, incremental, verify, restore := d[0], d[1], d[2], d[3]
	left := as(verify, func(e *Existing) { e.Mark.Cluster, e.ID = "gone", ID("gone", Verify) })
	existing := []Existing{
		as(full, func(e *Existing) { e.Paused, e.Note, e.TimeZone = true, "moving", "" }),
		as(incremental, func(e *Existing) {
			e.When = When{Every: time.Hour}
			e.CatchUp, e.Input, e.TimeZone = 365*24*time.Hour, `{"cluster": "orders"}`, "Europe/Berlin"
		}),
		as(restore, func(e *Existing) { e.Marked, e.Mark = false, Mark{} }),
		as(d[4], func(e *Existing) { e.Mark.TaskQueue = "other" }),
		as(Schedule{ID: ID("orders", DrillTable), Mark: Mark{"orders", DrillTable, "lifeboat"}}, nil), // of a version that could
		left,
		as(verify, func(e *Existing) { e.ID = "my-copy" }),                                         // made by hand of one of ours
		as(verify, func(e *Existing) { e.ID, e.Marked = "lifeboat-orders-dance", false }),          // named as ours
		as(left.Schedule, func(e *Existing) { e.ID, e.Mark.TaskQueue = ID("b", Verify), "other" }), // another configuration's
	}
	want := []string{
		"delete lifeboat-gone-verify: not in the configuration",
		"unchanged lifeboat-orders-backup-full",
		`update lifeboat-orders-backup-incremental [times: every 1h0m0s -> 0 0,6,12,18 * * *] [time zone: Europe/Berlin -> UTC]` +
			` [catch-up window: 8760h0m0s -> 3h0m0s] [input: {"cluster":"orders"} -> {"cluster":"orders","type":"incremental"}]`,
		"create lifeboat-orders-verify",
		`delete lifeboat-orders-drill-table: not in this version: scenario "table"`,
		`skip lifeboat-orders-drill-table: not in this version: scenario "table"`,
		"conflict lifeboat-orders-drill-restore: it has no mark of Lifeboat's: somebody else made it",
		`conflict lifeboat-orders-drill-disaster: it belongs to the configuration of task queue "other"`,
		"create lifeboat-orders-health",
	}
	p := MakePlan(d, skipped, existing, "lifeboat")
	if got := lines(p); !slices.Equal(got, want) {
		t.Errorf("plan:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c := p.Changes[1]; !c.Paused || c.Note != "moving" {
		t.Errorf("a paused schedule: %+v", c)
	}
	slices.Reverse(existing)
	slices.Reverse(d)
	slices.Reverse(skipped)
	if got := lines(MakePlan(d, skipped, existing, "lifeboat")); !slices.Equal(got, want) {
		t.Errorf("in another order the plan is:\n%s", strings.Join(got, "\n"))
	}
	if _, err := Execute(t.Context(), nil, p); !errors.As(err, new(*ConflictError)) {
		t.Errorf("a plan with conflicts was begun: %v", err)
	}
}

// Each property that somebody may have changed by hand is seen.
func TestDifferences(t *testing.T) {
	d, _ := mustDesire(t, options, designed("orders"))
	for property, change := range map[string]func(*Existing){
		"times":            func(e *Existing) { e.When.Other = "limits" },
		"time zone":        func(e *Existing) { e.TimeZone = "Asia/Tokyo" },
		"jitter":           func(e *Existing) { e.Jitter = 0 },
		"overlap":          func(e *Existing) { e.Overlap = "AllowAll" },
		"catch-up window":  func(e *Existing) { e.CatchUp = 0 },
		"pause on failure": func(e *Existing) { e.PauseOnFailure = true },
		"workflow":         func(e *Existing) { e.Workflow = contract.VerifyWorkflow },
		"input":            func(e *Existing) { e.Input = "no JSON" },
		"task queue":       func(e *Existing) { e.TaskQueue = "q" },
		"summary":          func(e *Existing) { e.Summary = "" },
	} {
		got := Differences(d[0], as(d[0], change))
		if len(got) != 1 || got[0].Property != property {
			t.Errorf("%s: %+v", property, got)
		}
	}
	if got := Differences(d[0], as(d[0], func(e *Existing) { e.Paused, e.Text = true, "other words" })); len(got) != 0 {
		t.Errorf("no property of it: %+v", got)
	}
}

func TestChange_Drift(t *testing.T) {
	kinds := map[Action]FindingKind{
		Create: FindingAbsent, Update: FindingDiffers, Delete: FindingExtra, Conflict: FindingConflict, Unchanged: "", Skip: "",
	}
	for action, kind := range kinds {
		f, ok := Change{Action: action, Differences: []Difference{{"jitter", "1s", "2s"}}}.Drift()
		if f.Kind != kind || ok != (kind != "") || ok && (!f.Urgent() || f.Text == "") {
			t.Errorf("%s: %+v, %v", action, f, ok)
		}
	}
}

// failing is a service of which some calls fail.
type failing struct {
	calls []string
	bad   string
}

func (f *failing) call(name, id string) error {
	f.calls = append(f.calls, name+" "+id)
	if strings.Contains(f.bad, id) {
		return errors.New("connection refused")
	}
	return nil
}

func (f *failing) Read(context.Context, []string) ([]Existing, error) { return nil, nil }
func (f *failing) Create(_ context.Context, s Schedule) error         { return f.call("create", s.ID) }

func (f *failing) Delete(_ context.Context, id string, _ func(Existing) error) error {
	return f.call("delete", id)
}

func (f *failing) Update(_ context.Context, s Schedule, _ func(Existing) error) error {
	return f.call("update", s.ID)
}

// A failure does not keep the rest from being done, removing comes last, and what was done is told.
func TestExecute_Failure(t *testing.T) {
	d, _ := mustDesire(t, options, designed("b"))
	gone := as(d[0], func(e *Existing) { e.Mark.Cluster, e.ID = "a", ID("a", BackupFull) })
	changed := as(d[1], func(e *Existing) { e.Jitter = 0 })
	p := MakePlan(d[:3], nil, []Existing{gone, changed}, "lifeboat")
	svc := &failing{bad: d[0].ID}
	done, err := Execute(t.Context(), svc, p)
	want := []string{"create " + d[0].ID, "create " + d[2].ID, "update " + d[1].ID, "delete " + gone.ID}
	if !slices.Equal(svc.calls, want) {
		t.Errorf("calls %q, want %q", svc.calls, want)
	}
	if len(done) != 3 || err == nil || !strings.Contains(err.Error(), "create schedule "+d[0].ID+": connection refused") {
		t.Errorf("done %+v, error %v", done, err)
	}
}
