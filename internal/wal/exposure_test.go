package wal

import (
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

const segment = pg.DefaultSegmentSize

func lsn(n pg.LSN) *pg.LSN { return &n }

func TestExposure(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	frontier := pg.LSN(5 * segment)
	tests := map[string]struct {
		c        Coverage
		exposure any // nil or seconds
		lag      any // nil or bytes
	}{
		"server behind the frontier":   {Coverage{Server: lsn(frontier - 1), Frontier: frontier}, 0.0, int64(0)},
		"server at the frontier":       {Coverage{Server: lsn(frontier), Frontier: frontier}, 0.0, int64(0)},
		"empty segment":                {Coverage{Server: lsn(frontier + 40), Frontier: frontier, Newest: ago(time.Hour)}, 0.0, int64(40)},
		"running transactions only":    {Coverage{Server: lsn(frontier + 0x60), Frontier: frontier, Newest: ago(time.Hour)}, 0.0, int64(0x60)},
		"room for a change":            {Coverage{Server: lsn(frontier + 0x61), Frontier: frontier, Newest: ago(time.Hour)}, 3600.0, int64(0x61)},
		"server at a frontier inside":  {Coverage{Server: lsn(frontier + 8), Frontier: frontier + 8, Newest: ago(time.Hour)}, 0.0, int64(0)},
		"frontier inside a segment":    {Coverage{Server: lsn(frontier + 48), Frontier: frontier + 8, Newest: ago(time.Minute)}, 60.0, int64(40)},
		"server ahead":                 {Coverage{Server: lsn(frontier + pg.LSN(segment)), Frontier: frontier, Newest: ago(90 * time.Second)}, 90.0, int64(segment)},
		"server ahead, nothing known":  {Coverage{Server: lsn(frontier + pg.LSN(segment)), Frontier: frontier}, nil, int64(segment)},
		"server silent":                {Coverage{Frontier: frontier, Newest: ago(time.Minute)}, 60.0, nil},
		"server silent, nothing known": {Coverage{Frontier: frontier}, nil, nil},
		"no WAL":                       {Coverage{Server: lsn(frontier)}, nil, nil},
		"clock of the commit ahead":    {Coverage{Server: lsn(2 * frontier), Frontier: frontier, Newest: ago(-time.Second)}, 0.0, int64(frontier)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.c.Now, tt.c.Segment = now, segment
			if got := value(tt.c.Exposure()); got != tt.exposure {
				t.Errorf("exposure %v, want %v", got, tt.exposure)
			}
			if got := value(tt.c.Lag()); got != tt.lag {
				t.Errorf("lag %v, want %v", got, tt.lag)
			}
		})
	}
}

// value is what p points to, or nil.
func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func TestTimelineFrontier(t *testing.T) {
	at := func(n uint64) pg.LSN { return pg.LSN(n * uint64(segment)) }
	backup := func(tli pg.Timeline, n uint64) *repo.Manifest {
		return &repo.Manifest{Timeline: tli, StartLSN: at(n) + 40}
	}
	runs := []Run{{First: 1, Last: 3}, {First: 6, Last: 9}, {First: 12, Last: 12}}
	tests := map[string]struct {
		timeline  Timeline
		manifests []*repo.Manifest
		want      pg.LSN
	}{
		"no backup":           {Timeline{Timeline: 1, Runs: runs}, nil, at(4)},
		"newest backup":       {Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2), backup(1, 7)}, at(10)},
		"older backup":        {Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2)}, at(4)},
		"of another timeline": {Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2), backup(2, 7)}, at(4)},
		"backup in a gap":     {Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 4)}, at(4)},
		"backup not archived": {Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 20)}, at(20)},
		"partial alone":       {Timeline{Timeline: 1, Partial: 7, HasPartial: true}, nil, at(7)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := TimelineFrontier(&tt.timeline, tt.manifests, segment); got != tt.want {
				t.Errorf("frontier %v, want %v", got, tt.want)
			}
		})
	}
}
