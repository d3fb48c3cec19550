package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal"
)

// looks drives a memory by words: for each check x if the finding was seen, . if not, ? if its area could not be looked
// at. It answers with o where it opened, c where it closed, and else O or - for open or not.
func looks(t *testing.T, rule string, checks string) string {
	t.Helper()
	r := ruleOf(rule)
	var m Memory
	out := ""
	for i, c := range checks {
		s := &Snapshot{At: noon.Add(time.Duration(i) * time.Minute)}
		var seen []Finding
		switch c {
		case 'x':
			seen = []Finding{{ID: rule + "/a", Rule: rule, Severity: Critical, Evidence: fmt.Sprint(i)}}
		case '?':
			s.cannotSee(Failure{"blind", ""}, r.Area)
		}
		next, opened, closed := m.Step(s, seen)
		m = next
		isOpen := slices.ContainsFunc(m.Tracked, func(t Tracked) bool { return t.Open })
		switch {
		case len(opened) > 0 && len(closed) > 0, len(opened) > 0 != (len(opened) > 0 && isOpen):
			t.Fatalf("check %d of %s: opened %v, closed %v, open %v", i, checks, opened, closed, isOpen)
		case len(opened) > 0:
			out += "o"
		case len(closed) > 0:
			out += "c"
		case isOpen:
			out += "O"
		default:
			out += "-"
		}
		for _, tr := range m.Tracked {
			if c == 'x' && (tr.Evidence != fmt.Sprint(i) || !tr.LastSeen.Equal(s.At)) {
				t.Errorf("check %d of %s tells old evidence: %+v", i, checks, tr)
			}
		}
	}
	return out
}

func TestStep(t *testing.T) {
	for _, tt := range []struct{ name, rule, checks, want string }{
		{"doubtful opens after two", "archiver", "..xxx", "---oO"},
		{"doubtful closes after three", "archiver", ".xx...", "--oOOc"},
		{"one sighting is none", "archiver", ".x.x.x.", "-------"},
		{"flapping does not open twice", "archiver", ".xx.x..x.xx..x...", "--oOOOOOOOOOOOOOc"},
		{"sure opens at once", "wal_level", "..x.", "--oc"},
		{"sure opens again", "wal_level", ".x.x", "-oco"},
		{"first check opens at once", "archiver", "x...", "oOOc"},
		{"blind is neither", "archiver", ".x?x?.??..", "---oOOOOOc"},
		{"blind from the start", "archiver", "??xx", "---o"},
		{"blind keeps it open", "archiver", "x????x", "oOOOOO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := looks(t, tt.rule, tt.checks); got != tt.want {
				t.Errorf("%s\n%s\nwant\n%s", tt.checks, got, tt.want)
			}
		})
	}
}

// TestStep_AnySequence compares with the definition, read backwards from each check.
func TestStep_AnySequence(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, rule := range []string{"archiver", "wal_level", "server_unreachable"} {
		r := ruleOf(rule)
		for range 500 {
			checks := make([]byte, 1+rnd.IntN(40))
			for i := range checks {
				checks[i] = "xxx...?"[rnd.IntN(7)]
			}
			got := looks(t, rule, string(checks))
			open := false
			for i := range checks {
				was := open
				need := r.Open
				if i == 0 {
					need = 1
				}
				if !open && lastRun(checks[:i+1], 'x') >= need && checks[i] == 'x' {
					open = true
				} else if open && checks[i] == '.' && lastRun(checks[:i+1], '.') >= r.Close {
					open = false
				}
				want := map[[2]bool]byte{{false, false}: '-', {false, true}: 'o', {true, true}: 'O', {true, false}: 'c'}[[2]bool{was, open}]
				if got[i] != want {
					t.Fatalf("%s: %s\n%s: check %d is %c, want %c", rule, checks, got, i, got[i], want)
				}
			}
		}
	}
}

// lastRun is how many of the last checks were c, not counting blind ones.
func lastRun(checks []byte, c byte) (n int) {
	for i := len(checks) - 1; i >= 0; i-- {
		switch checks[i] {
		case c:
			n++
		case '?':
		default:
			return n
		}
	}
	return n
}

// TestStep_ChangesNothing: a memory is a value, and what another version wrote is forgotten without harm.
func TestStep_ChangesNothing(t *testing.T) {
	m := Memory{At: noon, Tracked: []Tracked{
		{Finding: Finding{ID: "archiver", Rule: "archiver"}, Open: true},
		{Finding: Finding{ID: "of_tomorrow", Rule: "of_tomorrow"}, Open: true},
	}, Positions: []Position{{noon, 5}}}
	s := &Snapshot{At: noon.Add(time.Minute), Server: &Server{LSN: "0/9"}}
	next, _, closed := m.Step(s, nil)
	if m.Tracked[0].Absences != 0 || len(m.Positions) != 1 {
		t.Errorf("the argument became %+v", m)
	}
	if len(closed) != 1 || closed[0].ID != "of_tomorrow" || len(next.Tracked) != 1 || next.Tracked[0].Absences != 1 {
		t.Errorf("closed %+v, next %+v", closed, next)
	}
}

// TestExposure_OfAnIdleServer: nobody commits for hours, and then the server writes something: what it wrote is as old as
// the last check that saw nothing of it, not as old as the last commit (R18).
func TestExposure_OfAnIdleServer(t *testing.T) {
	frontier := pg.LSN(5 * pg.DefaultSegmentSize)
	look := func(at time.Time, server pg.LSN) *Snapshot {
		commit := noon.Add(-5 * time.Hour)
		return &Snapshot{At: at, Server: &Server{LSN: server.String()}, Coverage: &wal.Coverage{
			Now: at, Server: &server, Frontier: frontier, Newest: &commit, Segment: pg.DefaultSegmentSize,
		}}
	}
	var m Memory
	step := func(s *Snapshot) *float64 {
		got := m.Exposure(s)
		m, _, _ = m.Step(s, nil)
		return got
	}
	if got := step(look(noon, frontier+200)); got == nil || *got != 5*3600 {
		t.Errorf("without a memory: %v, want since the last commit", got)
	}
	step(look(noon.Add(time.Minute), frontier))
	for i := range 10 {
		minutes := time.Duration(i + 2)
		got := step(look(noon.Add(minutes*time.Minute), frontier+pg.LSN(1000*(i+1))))
		if want := 60 * float64(i+1); got == nil || *got != want {
			t.Errorf("after %d min: %v, want %v", minutes, *got, want)
		}
	}
	if s := (&Snapshot{At: noon}); m.Exposure(s) != nil {
		t.Error("an exposure without a repository")
	}
}

// TestExposure_NearTheTruth: whatever the checks saw, and however many positions were dropped, the bound is not below the
// truth, the time since the oldest position that the repository does not cover was first seen, and not far above it.
func TestExposure_NearTheTruth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		var m Memory
		var all []Position
		server, frontier := pg.LSN(1<<24), pg.LSN(1<<24)
		for i := range 300 {
			at := noon.Add(time.Duration(i) * time.Minute)
			server += pg.LSN(rnd.Int64N(2)) * pg.LSN(rnd.Int64N(1<<22))
			if rnd.IntN(20) == 0 { // outages of some length
				frontier = max(frontier, server-pg.LSN(rnd.Int64N(int64(server-frontier+1)))) &^ (1<<24 - 1)
				frontier = max(frontier, 1<<24)
			}
			s := &Snapshot{At: at, Server: &Server{LSN: server.String()}, Coverage: &wal.Coverage{
				Now: at, Server: &server, Frontier: frontier, Newest: to(noon.Add(-time.Hour)), Segment: pg.DefaultSegmentSize,
			}}
			all = append(all, Position{at, server})
			got := m.Exposure(s)
			truth := 0.0
			if j := slices.IndexFunc(all, func(p Position) bool { return !s.Coverage.Covers(p.LSN) }); j >= 0 {
				truth = at.Sub(all[j].At).Seconds()
			}
			if got == nil || *got < truth {
				t.Fatalf("check %d: exposure %v, and the truth is %v", i, got, truth)
			}
			if s.Coverage.Covers(all[0].LSN) && *got > truth+float64(i)*60/16+120 {
				t.Fatalf("check %d: exposure %v, and the truth is %v", i, *got, truth)
			}
			m, _, _ = m.Step(s, nil)
			if len(m.Positions) > maxPositions || len(m.Positions) > 1 && s.Coverage.Covers(m.Positions[1].LSN) {
				t.Fatalf("check %d remembers what is of no use: %v", i, m.Positions)
			}
		}
	}
}
