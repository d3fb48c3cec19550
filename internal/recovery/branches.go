package recovery

import (
	"context"
	"fmt"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// refuseAmbiguous refuses a target that stands for more than one place (R2). After a promotion the old timeline may have
// gone on by itself, and a restored copy may have begun a timeline that was given up: then there are two answers to what
// the data were.
func refuseAmbiguous(ctx context.Context, opts PlanOptions, manifests []*repo.Manifest, inv *wal.Inventory, h pg.History, g goal) error {
	switch {
	case g.Kind == Name:
		return refuseAmbiguousName(ctx, opts, manifests, inv, h, g)
	case opts.Timeline != 0:
		return nil
	case g.Kind == Time:
		return refuseAmbiguousTime(ctx, opts, inv, h, g)
	case g.Kind == LSN:
		return refuseAmbiguousLSN(ctx, opts, inv, h, g)
	}
	return nil
}

// refuseAmbiguousTime refuses a time that lies on two branches, unless one is named: from the first transaction behind
// the fork on until the other branch ends.
func refuseAmbiguousTime(ctx context.Context, opts PlanOptions, inv *wal.Inventory, h pg.History, g goal) error {
	at := pg.TimestampOf(g.time)
	return branches(inv, h, func(t *wal.Timeline, fork pg.LSN) error {
		theirs, err := branchTimes(ctx, opts, inv, pg.History{Timeline: t.Timeline}, t.Runs, fork)
		if err != nil {
			return err
		}
		if theirs == nil || at > theirs.last {
			return nil
		}
		begin := theirs.first
		if at < begin {
			first, err := firstTime(ctx, opts, inv, h, fork)
			if err != nil {
				return err
			}
			if first == nil || at < *first {
				return nil // both branches are still as they were at the fork
			}
		}
		return refuse(fmt.Sprintf("name one: --timeline %d or --timeline %d", t.Timeline, h.Timeline),
			"time %s lies on two branches: they part at %v, timeline %d has transactions of its own up to %v, and the present timeline is %d",
			g.Value, fork, t.Timeline, theirs.last, h.Timeline)
	})
}

// forkOf is the first position that two histories do not share.
func forkOf(a, b pg.History) pg.LSN {
	const open = ^pg.LSN(0)
	ends := func(list []pg.Ancestor, i int) pg.LSN {
		if list[i].End == 0 {
			return open
		}
		return list[i].End
	}
	la, lb := a.Ancestors(), b.Ancestors()
	var fork pg.LSN
	for i := 0; i < len(la) && i < len(lb) && la[i].Timeline == lb[i].Timeline; i++ {
		fork = min(ends(la, i), ends(lb, i))
		if la[i].End != lb[i].End {
			break
		}
	}
	return fork
}

// span is from the earliest to the latest time of transactions.
type span struct{ first, last pg.Timestamp }

func (s *span) add(t pg.Timestamp) *span {
	if s == nil {
		return &span{t, t}
	}
	return &span{min(s.first, t), max(s.last, t)}
}

// branchTimes looks through what a timeline has of its own: the transactions at or after from in its files. It is nil
// if there are none.
func branchTimes(ctx context.Context, opts PlanOptions, inv *wal.Inventory, h pg.History, runs []wal.Run, from pg.LSN) (*span, error) {
	var times *span
	size := uint64(inv.SegmentSize)
	for _, r := range runs {
		if (r.Last+1)*size <= uint64(from) {
			continue
		}
		path := newWALPath(opts.Repo, inv, h, max(from, pg.LSN(r.First*size)), map[string]*walrecord.Facts{})
		err := path.ownTimes(ctx, func(t *walrecord.Transaction) bool { times = times.add(t.Time); return false })
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

// firstTime is the time of the first transaction at or after from along a history; nil if the archive has none.
func firstTime(ctx context.Context, opts PlanOptions, inv *wal.Inventory, h pg.History, from pg.LSN) (first *pg.Timestamp, err error) {
	path := newWALPath(opts.Repo, inv, h, from, map[string]*walrecord.Facts{})
	err = path.ownTimes(ctx, func(t *walrecord.Transaction) bool { first = &t.Time; return true })
	return first, err
}

// ownTimes gives the ends of transactions from the path's start on, as far as facts name them: of each segment the
// first, the last and those with the extreme times. The first segment, part of which is before the start, is read.
func (p *walPath) ownTimes(ctx context.Context, visit func(*walrecord.Transaction) (enough bool)) error {
	return p.each(ctx, func(s stretch) (enough bool, err error) {
		if s.facts.StartLSN >= p.start {
			for _, t := range s.transactions() {
				enough = enough || visit(t)
			}
			return enough, nil
		}
		end := pg.LSN((s.number + 1) * uint64(p.inv.SegmentSize))
		err = p.scan(ctx, p.start, func(rec *walrecord.Record, ev *walrecord.Event) bool {
			if rec.LSN < end && ev.Transaction != nil {
				enough = visit(ev.Transaction)
			}
			return enough || rec.LSN >= end
		})
		return enough, err
	})
}
