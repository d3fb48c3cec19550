package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// ErrAbsent says that a file is not part of the recovery, so that recovery may end or look elsewhere: the only outcome
// for which wal-fetch exits 1 (R16).
var ErrAbsent = errors.New("not in the repository")

// Need lists the segment files that a recovery cannot do without, as ranges of names: for these "absent" is never an
// answer. The text form is FIRST..LAST,FIRST..LAST; segments of one range share timeline and size. A segment of which
// only the beginning is needed, because its server crashed there, is a range of its own, NAME.partial..NAME.partial.
type Need []NeedRange

// NeedRange is one range of names, both ends included.
type NeedRange struct{ First, Last string }

// ParseNeed reads the text form; the empty text is an empty Need.
func ParseNeed(s string) (Need, error) {
	var need Need
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ok := strings.Cut(part, "..")
		a, errA := pg.ParseWALFileName(first)
		b, errB := pg.ParseWALFileName(last)
		kinds := a.Kind == pg.WALSegment && b.Kind == pg.WALSegment || a.Kind == pg.WALPartial && first == last
		if !ok || errA != nil || errB != nil || !kinds || a.Timeline != b.Timeline || first > last {
			return nil, fmt.Errorf("needed segments %q: write FIRST..LAST of one timeline, joined by commas", part)
		}
		need = append(need, NeedRange{first, last})
	}
	return need, nil
}

// String is the text form.
func (n Need) String() string {
	parts := make([]string, len(n))
	for i, r := range n {
		parts[i] = r.First + ".." + r.Last
	}
	return strings.Join(parts, ",")
}

// Find is the file of a segment's number, of whichever timeline; false if the recovery needs none.
func (n Need) Find(number uint64, size pg.SegmentSize) (pg.Segment, bool) {
	for _, r := range n {
		first, err1 := pg.ParseSegment(r.First, size)
		last, err2 := pg.ParseSegment(r.Last, size)
		if err1 == nil && err2 == nil && first.Number <= number && number <= last.Number {
			return pg.Segment{Timeline: first.Timeline, Number: number}, true
		}
	}
	return pg.Segment{}, false
}

// Has tells whether name is needed. Names of one timeline and segment size compare as their positions do.
func (n Need) Has(name string) bool {
	for _, r := range n {
		if len(name) == len(r.First) && name >= r.First && name <= r.Last {
			return true
		}
	}
	return false
}

// FetchOptions name what restore_command asks for.
type FetchOptions struct {
	Repo    *repo.Repository
	Cluster string
	Name    string // restore_command's %f
	Dest    string // restore_command's %p
	Need    Need   // of the plan; empty for a standby, which has none
	// Patience is how long a failed read is retried; 0 is 30 s.
	Patience time.Duration
}

// errSilent says that a store gave nothing for as long as Fetch is patient.
var errSilent = errors.New("the store gave no answer, and no more bytes, for too long")

// Fetch writes one WAL file to Dest, whole and checked, or fails. ErrAbsent means that the repository truly does not
// have it and recovery does not need it; any other error must stop the recovery. Dest holds the whole file or is as it
// was before. A store that falls silent is given up after Patience, however often it was tried; one that goes on
// delivering is not.
func Fetch(ctx context.Context, opts FetchOptions) error {
	f, err := pg.ParseWALFileName(opts.Name)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if opts.Patience <= 0 {
		opts.Patience = 30 * time.Second
	}
	removeLeftovers(filepath.Dir(opts.Dest))
	deadline := time.Now().Add(opts.Patience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := fetchGuarded(ctx, opts, f, time.Until(deadline))
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrAbsent) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return fmt.Errorf("fetch WAL %s of cluster %s: %w", opts.Name, opts.Cluster, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// fetchGuarded is one attempt, which ends when nothing came for first, or for Patience once something came.
func fetchGuarded(ctx context.Context, opts FetchOptions, f pg.WALFile, first time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(first, func() { cancel(errSilent) })
	defer watch.Stop()
	err := fetchOnce(ctx, opts, f, func() { watch.Reset(opts.Patience) })
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return err
}

func fetchOnce(ctx context.Context, opts FetchOptions, f pg.WALFile, alive func()) error {
	err := copyOut(ctx, opts, opts.Name, 0, alive)
	if !errors.Is(err, repo.ErrNotFound) {
		return err
	}
	if f.Kind != pg.WALSegment {
		return ErrAbsent
	}
	inv, ierr := List(ctx, opts.Repo, opts.Cluster)
	if ierr != nil {
		return ierr
	}
	seg, err := f.Segment(inv.SegmentSize)
	if err != nil {
		return err
	}
	t := inv.Timeline(seg.Timeline)
	part, _ := t.PartialEnd()
	if opts.Need.Has(opts.Name) || opts.Need.Has(opts.Name+partialSuffix) && part != seg.Number {
		return fmt.Errorf("the restore needs this segment and the repository does not have it: %w", err)
	}
	if t == nil || !inv.begun(seg) {
		return ErrAbsent // the timeline has no WAL here, or none here yet: an ancestor has it
	}
	newest, _ := t.newest()
	switch {
	case t.Has(seg.Number):
		return errors.New("it has just arrived") // between the attempt to read it and the listing: try again
	case seg.Number < newest:
		return fmt.Errorf("it is missing below the newest segment of its timeline, %s: there is a gap in the archive",
			pg.Segment{Timeline: seg.Timeline, Number: newest}.Name(inv.SegmentSize))
	case seg.Number == newest: // and it is not whole
		return copyOut(ctx, opts, opts.Name+partialSuffix, int64(inv.SegmentSize), alive)
	}
	return ErrAbsent
}

// tempPattern names unfinished files beside Dest. PostgreSQL ignores names like these in pg_wal.
const tempPattern = ".lifeboat-wal-*"

// leftoverAge is after how long without a write an unfinished file is that of a process that was killed.
const leftoverAge = 15 * time.Minute

// removeLeftovers removes what killed processes left: each may be a segment long. A file that cannot be removed does
// not matter now.
func removeLeftovers(dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, tempPattern))
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > leftoverAge {
			_ = os.Remove(name)
		}
	}
}

// watched tells of each write.
type watched struct {
	io.Writer
	alive func()
}

func (w watched) Write(p []byte) (int, error) {
	w.alive()
	return w.Writer.Write(p)
}

// copyOut writes a stored file beside Dest and renames it when every byte was checked. fill lengthens it with zeros to
// that size: so PostgreSQL wants the last segment of a timeline (R16).
func copyOut(ctx context.Context, opts FetchOptions, name string, fill int64, alive func()) (err error) {
	w, err := opts.Repo.OpenWAL(ctx, opts.Cluster, name)
	if err != nil {
		return err
	}
	defer w.Close()
	alive()
	failed := func(err error) error { return fmt.Errorf("write %s: %w", opts.Dest, err) }
	tmp, err := os.CreateTemp(filepath.Dir(opts.Dest), tempPattern)
	if err != nil {
		return failed(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	defer tmp.Close()
	if _, err := w.WriteTo(watched{tmp, alive}); err != nil {
		return err
	}
	if fill > 0 {
		if err := tmp.Truncate(fill); err != nil {
			return failed(err)
		}
	}
	if err := tmp.Close(); err != nil {
		return failed(err)
	}
	if err := os.Rename(tmp.Name(), opts.Dest); err != nil {
		return failed(err)
	}
	return nil
}
