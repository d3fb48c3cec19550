package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// found is a restore point, and the timeline on which it is.
type found struct {
	walrecord.RestorePoint
	timeline pg.Timeline
}

func (f found) String() string {
	return fmt.Sprintf("of %s at %v on timeline %d", f.Time, f.LSN, f.timeline)
}

// refuseAmbiguousName refuses a restore point's name that stands for more than one place. PostgreSQL stops at the first
// that replay meets, so which one it is would depend on the backup, and the person may mean another. Its LSN names one
// for certain: replay to it stops behind the same record.
func refuseAmbiguousName(ctx context.Context, opts PlanOptions, manifests []*repo.Manifest, inv *wal.Inventory, h pg.History, g goal) error {
	here, err := pointsAlong(ctx, opts, manifests, inv, h, g.Value)
	if err != nil {
		return err
	}
	if len(here) > 1 {
		const most = 5
		var list []string
		for _, f := range here[max(0, len(here)-most):] {
			list = append(list, f.String())
		}
		return refuse(fmt.Sprintf("name the one that is meant by its position: --timeline %d --to-lsn %v for the newest", h.Timeline, here[len(here)-1].LSN),
			"the name %q stands for %d restore points: %s", g.Value, len(here), strings.Join(list, "; "))
	}
	if opts.Timeline != 0 && len(here) == 1 {
		return nil
	}
	there, err := pointsElsewhere(ctx, opts, inv, h, g.Value)
	if err != nil || len(there) == 0 {
		return err
	}
	if len(here) == 0 {
		return refuse(fmt.Sprintf("follow that timeline: --timeline %d", there[0].timeline),
			"restore point %q is not on the way to timeline %d; there is one %s", g.Value, h.Timeline, there[0])
	}
	return refuse(fmt.Sprintf("name one: --timeline %d or --timeline %d", there[0].timeline, h.Timeline),
		"restore point %q lies on two branches: %s, and %s; the present timeline is %d", g.Value, there[0], here[0], h.Timeline)
}

// pointsAlong are the restore points of a name that replay along a history can meet, from one of the backups, in the
// order of WAL. Of the backups but the newest it looks at no more than maxCachedFacts segments in all.
func pointsAlong(ctx context.Context, opts PlanOptions, manifests []*repo.Manifest, inv *wal.Inventory, h pg.History, name string) ([]found, error) {
	var points []found
	until, looked := ^pg.LSN(0), 0
	for _, m := range slices.Backward(manifests) {
		if !h.Contains(m.Timeline, m.StopLSN) || looked > maxCachedFacts {
			continue
		}
		path := newWALPath(opts.Repo, inv, h, m.StartLSN, map[string]*walrecord.Facts{})
		var here []found
		err := path.points(ctx, name, func(rp walrecord.RestorePoint) {
			if rp.LSN >= m.StartLSN && rp.LSN < until {
				here = append(here, found{rp, h.TimelineAt(rp.LSN)})
			}
		}, until)
		if err != nil {
			return nil, err
		}
		points = append(here, points...)
		looked += int(min(path.end, uint64(until)/uint64(inv.SegmentSize)) - path.first)
		until = min(until, m.StartLSN)
	}
	return points, nil
}

// pointsElsewhere are the restore points of a name on other timelines, behind the point where they part from a history.
func pointsElsewhere(ctx context.Context, opts PlanOptions, inv *wal.Inventory, h pg.History, name string) ([]found, error) {
	var points []found
	err := branches(inv, h, func(t *wal.Timeline, fork pg.LSN) error {
		for _, r := range t.Runs {
			begin := max(fork, pg.LSN(r.First*uint64(inv.SegmentSize)))
			if (r.Last+1)*uint64(inv.SegmentSize) <= uint64(fork) {
				continue
			}
			path := newWALPath(opts.Repo, inv, pg.History{Timeline: t.Timeline}, begin, map[string]*walrecord.Facts{})
			err := path.points(ctx, name, func(rp walrecord.RestorePoint) {
				if rp.LSN >= fork {
					points = append(points, found{rp, t.Timeline})
				}
			}, ^pg.LSN(0))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return points, err
}

// branches visits the timelines that have WAL and are not a history's own, with the position where they part from it.
func branches(inv *wal.Inventory, h pg.History, visit func(t *wal.Timeline, fork pg.LSN) error) error {
	for i := range inv.Timelines {
		t := &inv.Timelines[i]
		if t.Timeline == h.Timeline || len(t.Runs) == 0 {
			continue
		}
		other, err := inv.History(t.Timeline)
		if err != nil {
			other = pg.History{Timeline: t.Timeline} // nobody knows where it came from: all of it counts
		}
		if err := visit(t, forkOf(h, other)); err != nil {
			return err
		}
	}
	return nil
}

// points gives the restore points of a name along the path, up to the segment of position until. Records are read only
// where the facts are not complete.
func (p *walPath) points(ctx context.Context, name string, visit func(walrecord.RestorePoint), until pg.LSN) error {
	size := uint64(p.inv.SegmentSize)
	look := func(ev *walrecord.Event) {
		if rp := ev.RestorePoint; rp != nil && rp.Name == name {
			visit(*rp)
		}
	}
	return p.each(ctx, func(s stretch) (bool, error) {
		if s.number*size >= uint64(until) {
			return true, nil
		}
		if s.facts.Cut {
			begin, end := pg.LSN(s.number*size), pg.LSN((s.number+1)*size)
			return false, p.scan(ctx, s.begin, func(rec *walrecord.Record, ev *walrecord.Event) bool {
				if rec.End > begin && rec.End <= end {
					look(ev)
				}
				return rec.End >= end
			})
		}
		if s.crossing != nil {
			look(s.crossing)
		}
		for i := range s.facts.RestorePoints {
			look(&walrecord.Event{RestorePoint: &s.facts.RestorePoints[i]})
		}
		return false, nil
	})
}

// refuseAmbiguousLSN refuses a position that is on two branches, unless one is named (R2): behind the point where they
// part, the same position means other data on each.
func refuseAmbiguousLSN(ctx context.Context, opts PlanOptions, inv *wal.Inventory, h pg.History, g goal) error {
	n := uint64(g.lsn) / uint64(inv.SegmentSize)
	return branches(inv, h, func(t *wal.Timeline, fork pg.LSN) error {
		last := t.Runs[len(t.Runs)-1].Last
		if g.lsn < fork || g.lsn == fork && g.Exclusive || last < n {
			return nil
		}
		if last == n {
			f, err := wal.Facts(ctx, opts.Repo, opts.Cluster, pg.Segment{Timeline: t.Timeline, Number: n}.Name(inv.SegmentSize))
			if err != nil {
				return fmt.Errorf("plan: %w", err)
			}
			if f.LastRecordLSN < g.lsn {
				return nil
			}
		}
		return refuse(fmt.Sprintf("name one: --timeline %d or --timeline %d", t.Timeline, h.Timeline),
			"position %v lies on two branches: they part at %v, timeline %d has WAL of its own behind it, and the present timeline is %d",
			g.lsn, fork, t.Timeline, h.Timeline)
	})
}
