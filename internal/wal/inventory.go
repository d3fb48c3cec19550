package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// Run is a stretch of segments of one timeline without a gap, both ends included, by segment number.
type Run struct{ First, Last uint64 }

// Timeline is the WAL of one timeline in the repository.
type Timeline struct {
	Timeline pg.Timeline
	Runs     []Run // ascending; more than one means gaps
	// Partial is the number of a .partial segment, with HasPartial set: the last bytes of a timeline that was left.
	Partial    uint64
	HasPartial bool
}

// Has tells whether segment number n is there, whole.
func (t *Timeline) Has(n uint64) bool {
	_, ok := t.runOf(n)
	return ok
}

func (t *Timeline) runOf(n uint64) (Run, bool) {
	i, ok := slices.BinarySearchFunc(t.Runs, n, func(r Run, n uint64) int {
		switch {
		case r.Last < n:
			return -1
		case r.First > n:
			return 1
		}
		return 0
	})
	if !ok {
		return Run{}, false
	}
	return t.Runs[i], true
}

// Inventory is the WAL of a cluster as listed in the repository at one moment.
type Inventory struct {
	Cluster     string
	Identity    repo.Identity
	SegmentSize pg.SegmentSize
	Timelines   []Timeline // ascending
	Histories   map[pg.Timeline]pg.History

	// broken are histories that are listed and cannot be used. They must not keep anybody from restoring along another
	// timeline, and are not taken for absent.
	broken map[pg.Timeline]error
}

// List reads the inventory. Names that PostgreSQL does not use, or not with the cluster's segment size, are passed over:
// no recovery asks for them, and a stray file must not make a restore impossible. A cluster that has archived nothing yet has an empty one; a cluster that the repository
// does not know is an error that wraps repo.ErrNotFound.
func List(ctx context.Context, r *repo.Repository, cluster string) (*Inventory, error) {
	id, err := r.Identity(ctx, cluster)
	if errors.Is(err, repo.ErrNotFound) {
		return nil, fmt.Errorf("the repository %s does not know cluster %s: %w", r, cluster, err)
	}
	if err != nil {
		return nil, err
	}
	inv := &Inventory{
		Cluster: cluster, Identity: id, SegmentSize: id.WALSegmentSize,
		Histories: map[pg.Timeline]pg.History{}, broken: map[pg.Timeline]error{},
	}
	for name, err := range r.WALNames(ctx, cluster, 0, "") {
		if err != nil {
			return nil, err
		}
		inv.add(name)
	}
	names, err := r.Histories(ctx, cluster)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := pg.ParseWALFileName(name)
		if err != nil || f.Kind != pg.WALHistory {
			continue
		}
		h, err := readHistory(ctx, r, cluster, name)
		var unusable *historyError
		switch {
		case err == nil:
			inv.Histories[h.Timeline] = h
		case errors.As(err, &unusable) || repo.IsDamage(err):
			inv.broken[f.Timeline] = err
		default:
			return nil, err
		}
	}
	return inv, nil
}

func (inv *Inventory) add(name string) {
	f, err := pg.ParseWALFileName(name)
	if err != nil || f.Kind != pg.WALSegment && f.Kind != pg.WALPartial {
		return
	}
	seg, err := f.Segment(inv.SegmentSize)
	if err != nil {
		return
	}
	if n := len(inv.Timelines); n == 0 || inv.Timelines[n-1].Timeline != seg.Timeline {
		inv.Timelines = append(inv.Timelines, Timeline{Timeline: seg.Timeline})
	}
	t := &inv.Timelines[len(inv.Timelines)-1]
	if f.Kind == pg.WALPartial {
		t.Partial, t.HasPartial = seg.Number, true
		return
	}
	if n := len(t.Runs); n > 0 && t.Runs[n-1].Last+1 == seg.Number {
		t.Runs[n-1].Last = seg.Number
	} else {
		t.Runs = append(t.Runs, Run{seg.Number, seg.Number})
	}
}

// newest is the number of the newest segment of the timeline, whole or partial; false if there is none.
func (t *Timeline) newest() (uint64, bool) {
	n := t.Partial
	if len(t.Runs) > 0 {
		n = max(n, t.Runs[len(t.Runs)-1].Last)
	}
	return n, t.HasPartial || len(t.Runs) > 0
}

const partialSuffix = ".partial"

// PartialEnd is the number of the segment with which the timeline ends, if only a part of it is there: what a server left
// behind that crashed, or that was left. Only as the last of its timeline is a partial of use (R16). t may be nil.
func (t *Timeline) PartialEnd() (uint64, bool) {
	if t == nil || !t.HasPartial || len(t.Runs) > 0 && t.Runs[len(t.Runs)-1].Last >= t.Partial {
		return 0, false
	}
	return t.Partial, true
}

// maxHistory bounds a timeline history file in bytes: a line is some 60, and timelines are few.
const maxHistory = 1 << 20

// historyError says that a stored timeline history is whole but makes no sense.
type historyError struct {
	name string
	err  error
}

func (e *historyError) Error() string {
	return fmt.Sprintf("read timeline history %s: %v", e.name, e.err)
}
func (e *historyError) Unwrap() error { return e.err }

func readHistory(ctx context.Context, r *repo.Repository, cluster, name string) (pg.History, error) {
	f, err := pg.ParseWALFileName(name)
	if err != nil {
		return pg.History{}, fmt.Errorf("list timeline histories of %s: %w", cluster, err)
	}
	w, err := r.OpenWAL(ctx, cluster, name)
	if err != nil {
		return pg.History{}, err
	}
	defer w.Close()
	if w.Header.Length > maxHistory {
		return pg.History{}, &historyError{name, fmt.Errorf("it has %d bytes", w.Header.Length)}
	}
	var buf bytes.Buffer
	if _, err := w.WriteTo(&buf); err != nil {
		return pg.History{}, err
	}
	h, err := pg.ParseHistory(f.Timeline, buf.Bytes())
	if err != nil {
		return pg.History{}, &historyError{name, err}
	}
	return h, nil
}

// Timeline finds one timeline; nil if the repository has no WAL of it.
func (inv *Inventory) Timeline(tli pg.Timeline) *Timeline {
	for i := range inv.Timelines {
		if inv.Timelines[i].Timeline == tli {
			return &inv.Timelines[i]
		}
	}
	return nil
}

// History returns the line of descent of a timeline. Timeline 1 has none and needs none; for any other the repository
// must hold its file.
func (inv *Inventory) History(tli pg.Timeline) (pg.History, error) {
	if h, ok := inv.Histories[tli]; ok {
		return h, nil
	}
	if tli == 1 {
		return pg.History{Timeline: 1}, nil
	}
	if err := inv.broken[tli]; err != nil {
		return pg.History{}, fmt.Errorf("timeline %d cannot be followed, others can: %w", tli, err)
	}
	return pg.History{}, fmt.Errorf("the repository has no %s of cluster %s: timeline %d cannot be followed; "+
		"archive that file from the server's pg_wal with `lifeboat wal-push`", tli.HistoryName(), inv.Cluster, tli)
}

// Newest is the newest timeline that has WAL or a history, even one that cannot be read, 0 if there is none. Restored servers do not archive (R2), so
// it is the branch that the protected cluster is on.
func (inv *Inventory) Newest() pg.Timeline {
	var newest pg.Timeline
	for _, t := range inv.Timelines {
		newest = max(newest, t.Timeline)
	}
	for tli := range inv.Histories {
		newest = max(newest, tli)
	}
	for tli := range inv.broken {
		newest = max(newest, tli)
	}
	return newest
}

// begun tells whether the segment's timeline had begun by its end, as far as the timeline's history is known.
func (inv *Inventory) begun(seg pg.Segment) bool {
	h, ok := inv.Histories[seg.Timeline]
	return !ok || h.SegmentFile(seg.Number, inv.SegmentSize).Timeline == seg.Timeline
}

// File is the segment file that holds number n of the WAL along h: that of the newest timeline that had begun by its end
// (pg.History.SegmentFile). False if the repository does not have it. An ancestor's file of that number does not stand
// in for it: beyond the point where the ancestor was left it holds another branch, although PostgreSQL, finding no other,
// would replay that (XLogFileReadAnyTLI, access/transam/xlogrecovery.c).
func (inv *Inventory) File(h pg.History, n uint64) (pg.Segment, bool) {
	seg := h.SegmentFile(n, inv.SegmentSize)
	if t := inv.Timeline(seg.Timeline); t != nil && t.Has(n) {
		return seg, true
	}
	return pg.Segment{}, false
}

// Frontier is the end of the WAL along h that has no gap from position from on: the first position that the
// repository does not have. It is from itself (rounded down to its segment) if even that segment is missing.
func (inv *Inventory) Frontier(h pg.History, from pg.LSN) pg.LSN {
	n := uint64(from) / uint64(inv.SegmentSize)
	for {
		seg, ok := inv.File(h, n)
		if !ok {
			return pg.LSN(n * uint64(inv.SegmentSize))
		}
		run, _ := inv.Timeline(seg.Timeline).runOf(n)
		last := run.Last
		// A younger timeline may take over inside the run: go on from there, segment by segment at the seam only.
		for _, s := range h.Ancestors() {
			if begin := uint64(s.Begin) / uint64(inv.SegmentSize); begin > n && begin <= last {
				last = begin - 1
				break
			}
		}
		n = last + 1
	}
}

// Gap is a run of missing segments between two that are there.
type Gap struct{ From, To pg.Segment }

// Gaps lists what is missing inside one timeline.
func (t *Timeline) Gaps() []Gap {
	var gaps []Gap
	for i := 1; i < len(t.Runs); i++ {
		gaps = append(gaps, Gap{
			From: pg.Segment{Timeline: t.Timeline, Number: t.Runs[i-1].Last + 1},
			To:   pg.Segment{Timeline: t.Timeline, Number: t.Runs[i].First - 1},
		})
	}
	return gaps
}
