package wal

import (
	"context"
	"errors"
	"fmt"
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
// answer. The text form is FIRST..LAST,FIRST..LAST; segments of one range share timeline and size.
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
		if !ok || errA != nil || errB != nil || a.Kind != pg.WALSegment || b.Kind != pg.WALSegment || a.Timeline != b.Timeline || first > last {
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

// Fetch writes one WAL file to Dest, whole and checked, or fails. ErrAbsent means that the repository truly does not
// have it and recovery does not need it; any other error must stop the recovery.
func Fetch(ctx context.Context, opts FetchOptions) error {
	f, err := pg.ParseWALFileName(opts.Name)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if opts.Patience <= 0 {
		opts.Patience = 30 * time.Second
	}
	deadline := time.Now().Add(opts.Patience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := fetchOnce(ctx, opts, f)
		if err == nil || errors.Is(err, ErrAbsent) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			if err != nil {
				return fmt.Errorf("fetch WAL %s of cluster %s: %w", opts.Name, opts.Cluster, err)
			}
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func fetchOnce(ctx context.Context, opts FetchOptions, f pg.WALFile) error {
	err := copyOut(ctx, opts, opts.Name, 0)
	if !errors.Is(err, repo.ErrNotFound) {
		return err
	}
	switch {
	case f.Kind == pg.WALHistory || f.Kind == pg.WALBackupHistory || f.Kind == pg.WALPartial:
		return ErrAbsent
	case opts.Need.Has(opts.Name):
		return fmt.Errorf("the restore needs this segment and the repository does not have it: %w", err)
	}
	inv, err := List(ctx, opts.Repo, opts.Cluster)
	if err != nil {
		return err
	}
	seg, err := f.Segment(inv.SegmentSize)
	if err != nil {
		return err
	}
	t := inv.Timeline(seg.Timeline)
	if t == nil {
		return ErrAbsent
	}
	if n := len(t.Runs); n > 0 && seg.Number < t.Runs[n-1].Last && seg.Number > t.Runs[0].First {
		return fmt.Errorf("it is missing below the newest segment of its timeline, %s: there is a gap in the archive",
			pg.Segment{Timeline: seg.Timeline, Number: t.Runs[n-1].Last}.Name(inv.SegmentSize))
	}
	last := len(t.Runs) == 0 || t.Runs[len(t.Runs)-1].Last < seg.Number
	if t.HasPartial && t.Partial == seg.Number && last {
		return copyOut(ctx, opts, opts.Name+".partial", int64(inv.SegmentSize))
	}
	return ErrAbsent
}

// copyOut writes a stored file beside Dest and renames it when every byte was checked. fill lengthens it with zeros to
// that size: so PostgreSQL wants the last segment of a timeline (R16).
func copyOut(ctx context.Context, opts FetchOptions, name string, fill int64) error {
	w, err := opts.Repo.OpenWAL(ctx, opts.Cluster, name)
	if err != nil {
		return err
	}
	defer w.Close()
	tmp, err := os.CreateTemp(filepath.Dir(opts.Dest), ".lifeboat-wal-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", opts.Dest, err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := w.WriteTo(tmp); err != nil {
		return err
	}
	if fill > 0 {
		if err := tmp.Truncate(fill); err != nil {
			return fmt.Errorf("write %s: %w", opts.Dest, err)
		}
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", opts.Dest, err)
	}
	if err := os.Rename(tmp.Name(), opts.Dest); err != nil {
		return fmt.Errorf("write %s: %w", opts.Dest, err)
	}
	return nil
}
