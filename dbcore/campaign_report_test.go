package dbcore_test

import (
	"fmt"
	"strings"
	"time"

	"lifeboat/dbcore"
)

// tally is a line of the campaign's table.
type tally struct {
	injected, unseen, verified, ambiguous, definite, wrong int
}

func (a *tally) add(b tally) {
	a.injected += b.injected
	a.unseen += b.unseen
	a.verified += b.verified
	a.ambiguous += b.ambiguous
	a.definite += b.definite
	a.wrong += b.wrong
}

// tallyOf says which columns a call belongs to.
func tallyOf(rec *callRecord, wrong string) tally {
	t := tally{injected: 1, wrong: count(wrong != "")}
	switch {
	case rec.said == saidOpen:
		t.ambiguous = 1
	case rec.said == saidNo:
		t.definite = 1
	case rec.report.Verified, rec.report.NotReplicated:
		t.verified = 1
	default:
		t.unseen = 1
	}
	return t
}

// minUnseen is how much of what is safe to repeat must not be seen by callers, in percent.
const minUnseen = 95

// report compares all calls with the truth, prints the table, and fails the test for what must not be.
func (c *campaign) report(draws []*draw, took time.Duration, retried bool) {
	c.quiesce()
	for _, d := range draws {
		if !d.harmed {
			c.t.Errorf("fault %s did no harm in %d attempts", d, d.tries)
		}
	}
	tr, err := readTruth(c.ctx, c.admin)
	if err != nil {
		c.t.Fatal(err)
	}
	type cell struct {
		kind  *faultKind
		phase dbcore.Phase
	}
	cells, by := map[cell]*tally{}, map[expectation]*tally{mustHide: {}, mustTell: {}, mustDecide: {}, mustFail: {}}
	var load tally
	for _, rec := range c.records {
		wrong := tr.wrong(rec)
		if wrong != "" {
			c.t.Errorf("%s by worker %d, %s, fault %s: %s (%v)", rec.id, rec.worker, rec.kind, rec.fault, wrong, rec.err)
		}
		t := tallyOf(rec, wrong)
		if rec.fault == nil {
			load.add(t)
			continue
		}
		at := cell{rec.fault.kind, rec.fault.phase}
		if cells[at] == nil {
			cells[at] = new(tally)
		}
		cells[at].add(t)
		want := rec.fault.expect()
		by[want].add(t)
		c.judge(rec, want, retried)
	}
	var b strings.Builder
	line := func(name, phase string, t tally) {
		fmt.Fprintf(&b, "%-34s %-12s %8d %8d %8d %9d %8d %6d\n", name, phase, t.injected, t.unseen, t.verified, t.ambiguous, t.definite, t.wrong)
	}
	fmt.Fprintf(&b, "%-34s %-12s %8s %8s %8s %9s %8s %6s\n", "fault", "phase", "injected", "unseen", "verified", "ambiguous", "definite", "wrong")
	var sum tally
	for _, kind := range faultKinds {
		for _, phase := range kind.phases {
			if t := cells[cell{kind, phase}]; t != nil {
				line(kind.name, phase.String(), *t)
				sum.add(*t)
			}
		}
	}
	line("all faults", "", sum)
	for _, want := range []expectation{mustHide, mustTell, mustDecide, mustFail} {
		line("by the table: "+string(want), "", *by[want])
	}
	line("calls without a fault", "", load)
	c.t.Logf("%d calls in %s\n%s", len(c.records), took.Round(100*time.Millisecond), b.String())
	c.judgeCounters(tr)
	if hide := by[mustHide]; retried && (hide.injected == 0 || 100*(hide.unseen+hide.verified) < minUnseen*hide.injected) {
		c.t.Errorf("of %d faults that are safe to repeat %d were not seen, want %d %%", hide.injected, hide.unseen+hide.verified, minUnseen)
	}
}

// judge compares what was said of a fault with what the table says must be said.
func (c *campaign) judge(rec *callRecord, want expectation, retried bool) {
	complain := func(text string) {
		c.t.Errorf("%s, %s, fault %s: %s (%v)", rec.id, rec.kind, rec.fault, text, rec.err)
	}
	// Whoever waits for a standby is told by the server's own warning that it is committed.
	decided := rec.report.NotReplicated
	switch want {
	case mustTell:
		if rec.said != saidOpen && !decided {
			complain("nobody can know, and yet it was not called ambiguous")
		}
	case mustDecide:
		// A transaction id means nothing any more once the server was restarted.
		if rec.said == saidOpen && (rec.kind != callTxXID || rec.fault.kind.event != "crash") {
			complain("verification did not decide")
		}
		if rec.said == saidYes && !rec.report.Verified && !decided {
			complain("said to be committed without verification")
		}
	case mustHide:
		if retried && rec.said != saidYes {
			c.t.Logf("seen: %s, %s, fault %s: %v", rec.id, rec.kind, rec.fault, rec.err)
		}
		if !retried && rec.said == saidYes && rec.fault.kind.means(rec.fault.phase) != nil && !decided {
			complain("an attempt failed, none is repeated, and yet all is well")
		}
	}
}

// judgeCounters: each worker has counted as often as its transactions are there.
func (c *campaign) judgeCounters(tr *truth) {
	want := map[int]int{}
	for _, rec := range c.records {
		if rec.kind == callTx || rec.kind.verified() {
			want[rec.worker] += max(0, tr.times(rec))
		}
	}
	for w := range campaignWorkers {
		if tr.counters[w] != want[w] {
			c.t.Errorf("worker %d has counted to %d in %d transactions", w, tr.counters[w], want[w])
		}
	}
}

// quiesce waits until no session of the campaign is at work any more: what is under way may still commit.
func (c *campaign) quiesce() {
	for _, db := range []*dbcore.DB{c.pooled, c.fresh, c.patientPooled, c.patientFresh} {
		db.Close()
	}
	eventually(c.t, "all sessions of the workers have ended", func() bool {
		return one[int](c.t, c.admin, "select count(*) from pg_stat_activity where usename = 'app'") == 0
	})
}

// String is for messages.
func (d *draw) String() string {
	if d == nil {
		return "none"
	}
	return fmt.Sprintf("%q in phase %s of %s (statement %d, late %t)", d.kind.name, d.phase, d.call, d.nth, d.late)
}
