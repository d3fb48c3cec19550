package dbcore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func primaryOn(timeline uint32, server string) claim {
	return claim{node: server, role: RolePrimary, reachable: true, systemID: "7", server: server, timeline: timeline, lsn: 100}
}

func standbyOn(timeline uint32, lsn LSN) claim {
	return claim{node: "standby", role: RoleStandby, reachable: true, systemID: "7", timeline: timeline, lsn: lsn, receiving: true}
}

func with(c claim, change func(*claim)) claim {
	change(&c)
	return c
}

func silent(c *claim)       { c.reachable = false }
func refused(c *claim)      { c.suspect = true }
func readOnlyNode(c *claim) { c.readOnly = true }
func stranger(c *claim)     { c.systemID = "8" }
func cutOff(c *claim)       { c.receiving = false }

// TestElect goes through what the nodes can say together.
func TestElect(t *testing.T) {
	unknown := claim{node: "u"}
	for _, c := range []struct {
		name     string
		claims   []claim
		timeline uint32 // known from before
		primary  int
		err      error
		fenced   string // by node: f fenced, - not
		says     string // in the error
	}{
		{"one primary", []claim{standbyOn(1, 5), primaryOn(1, "a")}, 0, 1, nil, "--", ""},
		{"nobody has answered", []claim{unknown, unknown}, 0, -1, ErrNoPrimary, "--", "u: does not answer"},
		{"standbys only", []claim{standbyOn(1, 5), standbyOn(1, 5)}, 1, -1, ErrNoPrimary, "--", "pg_promote"},
		{"after a failover the old one is down", []claim{with(primaryOn(1, "a"), silent), primaryOn(2, "b")}, 1, 1, nil, "f-", ""},
		{"it comes back as it was", []claim{primaryOn(1, "a"), primaryOn(2, "b")}, 2, 1, nil, "f-", ""},
		{"and then the new one fails", []claim{primaryOn(1, "a"), with(primaryOn(2, "b"), silent)}, 2, -1, ErrNoPrimary, "f-", "former primary"},
		{"the new one is only remembered", []claim{primaryOn(1, "a"), unknown}, 2, -1, ErrNoPrimary, "f-", "timeline is 1, and there is timeline 2"},
		{"a standby has seen the promotion", []claim{primaryOn(1, "a"), unknown, standbyOn(2, 5)}, 1, -1, ErrNoPrimary, "f--", ""},
		{"a refused write", []claim{with(primaryOn(1, "a"), refused), standbyOn(1, 5)}, 1, -1, ErrNoPrimary, "f-", "refused a write"},
		{"the primary does not answer", []claim{with(primaryOn(1, "a"), silent), standbyOn(1, 5)}, 1, -1, ErrNoPrimary, "--", "does not answer"},
		{"switched to read-only", []claim{with(primaryOn(1, "a"), readOnlyNode)}, 1, -1, ErrNoPrimary, "-", "default_transaction_read_only"},
		{"split brain", []claim{primaryOn(3, "a"), primaryOn(3, "b"), standbyOn(3, 5)}, 3, -1, ErrSplitBrain, "ff-", "a and b are all on timeline 3"},
		{"silence does not heal it", []claim{primaryOn(3, "a"), with(primaryOn(3, "b"), silent)}, 3, -1, ErrSplitBrain, "ff", ""},
		{"a rebuilt standby does", []claim{primaryOn(3, "a"), standbyOn(3, 5)}, 3, 0, nil, "--", ""},
		{"a higher timeline decides it", []claim{primaryOn(3, "a"), primaryOn(3, "b"), primaryOn(4, "c")}, 3, 2, nil, "ff-", ""},
		{"one server under two names", []claim{primaryOn(3, "a"), primaryOn(3, "a")}, 3, 0, nil, "--", ""},
		{"one of the names is cut off", []claim{with(primaryOn(3, "a"), silent), primaryOn(3, "a")}, 3, 1, nil, "--", ""},
		{"a stranger is left out", []claim{primaryOn(1, "a"), with(primaryOn(9, "x"), stranger)}, 1, 0, nil, "-f", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := elect(c.claims, "7", c.timeline)
			var fenced string
			for _, why := range e.fenced {
				if why == "" {
					fenced += "-"
				} else {
					fenced += "f"
				}
			}
			if e.primary != c.primary || !errors.Is(e.err, c.err) || fenced != c.fenced {
				t.Errorf("primary %d, fenced %s, error %v; want %d, %s, %v", e.primary, fenced, e.err, c.primary, c.fenced, c.err)
			}
			if errors.Is(e.err, ErrSplitBrain) && !errors.Is(e.err, ErrNoPrimary) {
				t.Error("a split brain is no ErrNoPrimary")
			}
			if c.says != "" && !strings.Contains(e.err.Error(), c.says) {
				t.Errorf("error %q does not say %q", e.err, c.says)
			}
			if e.timeline < c.timeline {
				t.Errorf("timeline %d was forgotten: %d", c.timeline, e.timeline)
			}
		})
	}
}

// TestLag: the age of the primary's last position that a standby has reached.
func TestLag(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	m := marks(nil).add(at(0), 100).add(at(1), 200).add(at(2), 200).add(at(3), 300)
	for _, c := range []struct {
		name string
		m    marks
		now  int
		lsn  LSN
		want int // seconds; -1 is unknown
	}{
		{"it has all, and that is as old as the last look", m, 4, 300, 1},
		{"more than was known", m, 4, 350, 1},
		{"it stands still at a position that the primary kept for a second", m, 4, 250, 2},
		{"cut off: it grows with the time", m, 60, 299, 58},
		{"the primary is not seen any more: so it does for one that has all", m, 60, 300, 57},
		{"further behind than remembered", m, 4, 99, -1},
		{"no primary was ever seen", nil, 4, 300, -1},
	} {
		lag, ok := c.m.lag(at(c.now), c.lsn)
		if !ok {
			lag = -time.Second
		}
		if lag != time.Duration(c.want)*time.Second {
			t.Errorf("%s: %s, want %d s", c.name, lag, c.want)
		}
	}
	if len(m) != 3 || m.last() != 300 {
		t.Errorf("marks %v", m)
	}
	if m = m.add(at(4), 250); m.last() != 300 {
		t.Error("the primary went backwards")
	}
	for i := range 3 * maxMarks {
		m = m.add(at(10+i), LSN(1000+i))
	}
	if len(m) != maxMarks || m.last() != LSN(1000+3*maxMarks-1) || m[0].lsn != LSN(1000+2*maxMarks) {
		t.Errorf("%d marks, from %d to %d", len(m), m[0].lsn, m.last())
	}
}

// TestCandidates: who may serve a read.
func TestCandidates(t *testing.T) {
	now := time.Now()
	m := marks{{now.Add(-10 * time.Second), 100}, {now.Add(-time.Second), 200}}
	p := primaryOn(2, "a")
	for _, c := range []struct {
		name   string
		claims []claim
		rule   readRule
		want   []int
	}{
		{"standbys, not the primary", []claim{p, standbyOn(2, 200), standbyOn(2, 50)}, readRule{}, []int{1, 2}},
		{"within a lag", []claim{p, standbyOn(2, 200), standbyOn(2, 199), standbyOn(2, 50)}, readRule{maxLag: 2 * time.Second}, []int{1}},
		{"within a longer one", []claim{p, standbyOn(2, 200), standbyOn(2, 199), standbyOn(2, 50)}, readRule{maxLag: 20 * time.Second}, []int{1, 2}},
		{"after a position", []claim{p, standbyOn(2, 200), standbyOn(2, 199)}, readRule{after: 200}, []int{1}},
		{"both", []claim{p, standbyOn(2, 200), standbyOn(2, 199)}, readRule{after: 150, maxLag: 2 * time.Second}, []int{1}},
		{"one that is cut off, without a bound", []claim{p, with(standbyOn(2, 200), cutOff)}, readRule{}, nil},
		{"one that is cut off, within the bound", []claim{p, with(standbyOn(2, 200), cutOff)}, readRule{maxLag: 2 * time.Second}, []int{1}},
		{"no primary: rather that than nobody", []claim{with(p, silent), with(standbyOn(2, 200), cutOff)}, readRule{}, []int{1}},
		{"on the old timeline, its positions mean nothing", []claim{p, standbyOn(1, 500)}, readRule{after: 200}, nil},
		{"on the old timeline, without a bound", []claim{p, standbyOn(1, 500)}, readRule{}, nil},
		{"silent", []claim{p, with(standbyOn(2, 200), silent)}, readRule{}, nil},
		{"a stranger", []claim{p, with(standbyOn(2, 200), stranger)}, readRule{}, nil},
	} {
		if got := candidates(c.claims, elect(c.claims, "7", 0), "7", m, now, c.rule); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestRecordEnd: only a position right behind a page's header is moved.
func TestRecordEnd(t *testing.T) {
	for insert, want := range map[LSN]LSN{
		0x3000148: 0x3000148, 0x3002000: 0x3002000, 0x3002018: 0x3002000, 0x3002028: 0x3002028, 0x3002020: 0x3002020,
		0x3000028: 0x3000000, 0x3000018: 0x3000000, 0x3000030: 0x3000030, 0x3100028: 0x3100000,
	} {
		if got := recordEnd(insert); got != want {
			t.Errorf("%s: %s, want %s", insert, got, want)
		}
	}
}

// TestSearchIsBounded: that no connection can be made uses up time, anything else attempts.
func TestSearchIsBounded(t *testing.T) {
	refusedErr := &ConnectError{Code: CodeRefused, err: errors.New("refused")}
	attempt := func(err error, phase Phase) *Attempt {
		return &Attempt{Err: err, Phase: phase, Verdict: Classify(err, phase)}
	}
	for name, c := range map[string]struct {
		a    *Attempt
		want bool
	}{
		"no connection":          {attempt(refusedErr, PhaseConnect), true},
		"fenced before":          {attempt(&fencedError{}, PhaseConnect), true},
		"fenced before COMMIT":   {attempt(&fencedError{}, PhaseTx), true},
		"lost":                   {attempt(&lostError{err: errors.New("EOF")}, PhaseAutocommit), false},
		"wrong password":         {attempt(&ConnectError{Code: CodeAuth, err: errors.New("no")}, PhaseConnect), false},
		"ambiguous":              {attempt(&commitError{err: errors.New("EOF")}, PhaseCommit), false},
		"an open breaker":        {attempt(&BreakerOpenError{}, PhaseConnect), false},
		"an answer of the table": {attempt(ErrNoRows, PhaseAutocommit), false},
	} {
		s := search{}
		if _, again := s.again(c.a, time.Minute); again != c.want {
			t.Errorf("%s: again %t", name, again)
		}
		s.began = time.Now().Add(-2 * time.Minute)
		if _, again := s.again(c.a, time.Minute); again {
			t.Errorf("%s: for ever", name)
		}
	}
}

// TestGate: while it is closed nothing is acquired, and a connection that was being made meanwhile is not used.
func TestGate(t *testing.T) {
	g := new(gate)
	db := &DB{policy: &policy{gate: g}}
	g.closed.Store(&fencedError{node: "a", reason: "a test"})
	if _, err := db.acquire(t.Context()); !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "a test") {
		t.Errorf("acquire: %v", err)
	}
	if err := g.opened(nil); !errors.Is(err, ErrFenced) {
		t.Errorf("a new connection: %v", err)
	}
	if v := Classify(g.check(), PhaseConnect); v.Action != Retry || v.Health != HealthUnknown {
		t.Errorf("verdict %+v", v)
	}
	g.closed.Store(nil)
	if err := errors.Join(g.check(), g.opened(nil)); err != nil {
		t.Errorf("open: %v", err)
	}
}
