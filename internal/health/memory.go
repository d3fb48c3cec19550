package health

import (
	"cmp"
	"slices"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal"
)

// Memory is what a check leaves to the next one of its cluster. The zero value has seen nothing yet.
type Memory struct {
	// At is when the check was; zero: there was none.
	At time.Time
	// Tracked are the findings that are open, or that were seen too few times to be.
	Tracked []Tracked
	// Positions are where the server was at earlier checks: the newest that the repository covers, and later ones.
	Positions []Position
}

// Tracked is a finding over several checks.
type Tracked struct {
	Finding
	Open bool
	// Sightings are those in a row up to now, while it is not open; Absences are the checks in a row that did not see it,
	// while it is.
	Sightings, Absences int
	// FirstSeen and LastSeen are times of checks; OpenedAt is zero until it is open.
	FirstSeen, LastSeen, OpenedAt time.Time
}

// Position is where a server was at a time.
type Position struct {
	At  time.Time
	LSN pg.LSN
}

// maxPositions bounds a memory over long outages.
const maxPositions = 64

// Step is the memory after a check of snapshot s that made these findings, with what has opened and closed by it. What
// was not looked at is neither seen nor absent. The first check opens what it sees at once: nothing can have come and
// gone before. It changes none of its arguments.
func (m Memory) Step(s *Snapshot, findings []Finding) (next Memory, opened, closed []Tracked) {
	next = Memory{At: s.At, Positions: m.positions(s)}
	for _, f := range findings {
		t := m.sighted(f, s.At)
		if t.Open && t.OpenedAt.Equal(s.At) {
			opened = append(opened, t)
		}
		next.Tracked = append(next.Tracked, t)
	}
	for _, t := range m.Tracked {
		seen := slices.ContainsFunc(findings, func(f Finding) bool { return f.ID == t.ID })
		if seen {
			continue
		}
		t, left := absent(t, s)
		switch {
		case !left:
			next.Tracked = append(next.Tracked, t)
		case t.Open:
			closed = append(closed, t)
		}
	}
	slices.SortStableFunc(next.Tracked, func(a, b Tracked) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), cmp.Compare(a.ID, b.ID))
	})
	return next, opened, closed
}

// sighted is what becomes of a finding that was seen.
func (m Memory) sighted(f Finding, at time.Time) Tracked {
	t := Tracked{FirstSeen: at}
	if i := slices.IndexFunc(m.Tracked, func(t Tracked) bool { return t.ID == f.ID }); i >= 0 {
		t = m.Tracked[i]
	}
	t.Finding, t.LastSeen, t.Absences = f, at, 0 // with the evidence and severity of now
	if t.Open {
		return t
	}
	t.Sightings++
	needed := openSure
	if r := ruleOf(f.Rule); r != nil && !m.At.IsZero() {
		needed = r.Open
	}
	if t.Sightings >= needed {
		t.Open, t.OpenedAt, t.Sightings = true, at, 0
	}
	return t
}

// absent is what becomes of a finding that was not seen; left tells that it is remembered no longer.
func absent(t Tracked, s *Snapshot) (_ Tracked, left bool) {
	r := ruleOf(t.Rule)
	switch {
	case r == nil: // of another version
		return t, true
	case s.unseen(r.Area):
		return t, false
	case !t.Open: // its sightings are no longer in a row
		return t, true
	}
	t.Absences++
	return t, t.Absences >= r.Close
}

// Exposure is, in seconds, how old the oldest commit may be that the repository would lose; nil if nothing is known
// (R18). Two bounds are known, and the lower one counts: the time since the newest commit that the repository covers
// (Coverage.Exposure), and the time since a check saw the server at a position that it covers. The first grows on a
// server where nobody commits; the second needs a memory.
func (m Memory) Exposure(s *Snapshot) *float64 {
	if s.Coverage == nil {
		return nil
	}
	bound := s.Coverage.Exposure()
	if p, ok := newestCovered(m.Positions, s.Coverage); ok {
		since := max(0, s.At.Sub(p.At).Seconds())
		if bound == nil || since < *bound {
			bound = &since
		}
	}
	return bound
}

func newestCovered(positions []Position, c *wal.Coverage) (newest Position, ok bool) {
	for _, p := range positions {
		if c.Covers(p.LSN) && (!ok || p.At.After(newest.At)) {
			newest, ok = p, true
		}
	}
	return newest, ok
}

// positions are those to remember: of the covered ones only the newest matters. Where an outage makes too many, those that
// stand closest together go, which makes the exposure an older bound, never a younger one.
func (m Memory) positions(s *Snapshot) []Position {
	all := slices.Clone(m.Positions)
	if lsn, ok := s.position(); ok {
		all = append(all, Position{s.At, lsn})
	}
	if s.Coverage != nil {
		newest, ok := newestCovered(all, s.Coverage)
		all = slices.DeleteFunc(all, func(p Position) bool { return s.Coverage.Covers(p.LSN) && !(ok && p == newest) })
	}
	for len(all) > maxPositions {
		closest := 1
		for i := 1; i < len(all)-1; i++ {
			if all[i+1].At.Sub(all[i-1].At) < all[closest+1].At.Sub(all[closest-1].At) {
				closest = i
			}
		}
		all = slices.Delete(all, closest, closest+1)
	}
	return all
}
