package wal

import (
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// Coverage is what is known of how far the repository's WAL lags behind the server.
type Coverage struct {
	// Now is when it was looked at.
	Now time.Time
	// Server is where the server writes; nil if it could not be asked.
	Server *pg.LSN
	// Frontier is the end of the gap-free WAL; 0 if there is none.
	Frontier pg.LSN
	// Newest is the time of something that the frontier certainly covers; nil if nothing is known.
	Newest  *time.Time
	Segment pg.SegmentSize
}

// emptyLimit is how far into a segment a position may be while no committed change lies between: the header of the
// segment's first page has 40 bytes, and the record of running transactions, which an idle server writes behind a switch
// of segments, has 56. No change of a row fits into these 56 bytes together with its commit record of 40: the smallest, a
// deletion, needs 54.
const emptyLimit = 40 + 56

// Covered tells whether nothing was committed on the server beyond the frontier.
func (c *Coverage) Covered() bool { return c.Server != nil && c.Covers(*c.Server) }

// Covers tells whether nothing was committed between the frontier and a later position of the server.
func (c *Coverage) Covers(at pg.LSN) bool {
	switch {
	case c.Frontier == 0:
		return false
	case at <= c.Frontier:
		return true
	}
	return c.Segment.Offset(c.Frontier) == 0 && at-c.Frontier <= emptyLimit
}

// Exposure is an upper bound, in seconds, of the age of the oldest commit that the repository would lose (R18): 0 if the
// frontier covers the server, else the time since something that it does cover, which rises until more WAL comes. It is
// nil when nothing is known.
func (c *Coverage) Exposure() *float64 {
	seconds := 0.0
	switch {
	case c.Covered():
	case c.Newest == nil:
		return nil
	default:
		seconds = max(0, c.Now.Sub(*c.Newest).Seconds())
	}
	return &seconds
}

// Lag is how many bytes of WAL are on the server alone; nil if it could not be asked.
func (c *Coverage) Lag() *int64 {
	if c.Server == nil || c.Frontier == 0 {
		return nil
	}
	bytes := int64(0)
	if *c.Server > c.Frontier {
		bytes = int64(*c.Server - c.Frontier)
	}
	return &bytes
}

// TimelineFrontier is the end of the run of segments that a restore from the newest backup of a timeline would replay,
// or of its first run if it has no backup.
func TimelineFrontier(t *Timeline, manifests []*repo.Manifest, segment pg.SegmentSize) pg.LSN {
	end := func(r Run) pg.LSN { return pg.LSN((r.Last + 1) * uint64(segment)) }
	for i := len(manifests) - 1; i >= 0; i-- {
		m := manifests[i]
		if m.Timeline != t.Timeline {
			continue
		}
		n := uint64(m.StartLSN) / uint64(segment)
		for _, r := range t.Runs {
			if r.First <= n && n <= r.Last {
				return end(r)
			}
		}
		return pg.LSN(n * uint64(segment)) // not even the backup's own WAL is there
	}
	if len(t.Runs) == 0 {
		return pg.LSN(t.Partial * uint64(segment))
	}
	return end(t.Runs[0])
}
