package wal

import (
	"context"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal/walrecord"
)

// lookBack bounds how many segments are searched for a commit, from the frontier down.
const lookBack = 256

// View is the WAL of a cluster as seen from the repository.
type View struct {
	Inventory *Inventory
	Manifests []*repo.Manifest // of the visible backups, oldest first
	// Coverage has no position of the server: that is for the caller to ask.
	Coverage Coverage
	// LastCommit is the newest commit that can be restored to; nil if none was found.
	LastCommit *time.Time
}

// Look reads what the repository has of a cluster's WAL, and how far it goes. It may be repeated.
func Look(ctx context.Context, r *repo.Repository, cluster string) (*View, error) {
	inv, err := List(ctx, r, cluster)
	if err != nil {
		return nil, err
	}
	v := &View{Inventory: inv, Coverage: Coverage{Now: time.Now().UTC(), Segment: inv.SegmentSize}}
	if v.Manifests, err = r.Manifests(ctx, cluster); err != nil {
		return nil, err
	}
	if err := v.measure(ctx, r); err != nil {
		return nil, err
	}
	return v, nil
}

// measure finds the frontier of the branch that the cluster is on, and the newest that it covers.
func (v *View) measure(ctx context.Context, r *repo.Repository) error {
	tli := v.Inventory.Newest()
	if tli == 0 {
		return nil
	}
	h, err := v.Inventory.History(tli)
	if err != nil {
		return err
	}
	from := pg.LSN(0)
	var newest *repo.Manifest
	for _, m := range v.Manifests {
		if h.Contains(m.Timeline, m.StopLSN) {
			newest, from = m, m.StartLSN
		}
	}
	if newest == nil {
		for _, s := range h.Ancestors() {
			if t := v.Inventory.Timeline(s.Timeline); t != nil && len(t.Runs) > 0 {
				from = max(s.Begin, pg.LSN(t.Runs[0].First*uint64(v.Coverage.Segment)))
				break
			}
		}
	}
	v.Coverage.Frontier = v.Inventory.Frontier(h, from)
	if v.LastCommit, err = newestCommit(ctx, r, v.Inventory, h, from, v.Coverage.Frontier); err != nil {
		return err
	}
	v.Coverage.Newest = v.LastCommit
	// All that was committed before a complete backup began is in it.
	if newest != nil && newest.StopLSN <= v.Coverage.Frontier && (v.LastCommit == nil || newest.StartedAt.After(*v.LastCommit)) {
		v.Coverage.Newest = &newest.StartedAt
	}
	return nil
}

// newestCommit is the time of the last commit or abort below the frontier, by the facts of the segments (R15); nil if
// none was found within lookBack segments.
func newestCommit(ctx context.Context, r *repo.Repository, inv *Inventory, h pg.History, from, frontier pg.LSN) (*time.Time, error) {
	size := uint64(inv.SegmentSize)
	facts := func(n uint64) (*walrecord.Facts, error) {
		seg, ok := inv.File(h, n)
		if !ok || n < uint64(from)/size {
			return nil, nil
		}
		return Facts(ctx, r, inv.Cluster, seg.Name(inv.SegmentSize))
	}
	if frontier <= from {
		return nil, nil
	}
	n := (uint64(frontier) - 1) / size
	f, err := facts(n)
	for range lookBack {
		if err != nil || f == nil {
			return nil, err
		}
		if f.Last != nil {
			at := f.Last.Time.Time()
			return &at, nil
		}
		if n == 0 {
			break
		}
		n--
		before, err := facts(n)
		if err != nil {
			return nil, err
		}
		if t := crossing(before, f); t != nil {
			at := t.Time.Time()
			return &at, nil
		}
		f = before
	}
	return nil, nil
}

// crossing is the end of a transaction whose record lies in two segments; nil if it is none.
func crossing(before, after *walrecord.Facts) *walrecord.Transaction {
	if before == nil || before.Tail == nil || after.Head == nil {
		return nil
	}
	ev, err := walrecord.Join(before.Tail, after.Head)
	if err != nil {
		return nil
	}
	return ev.Transaction
}
