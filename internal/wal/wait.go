package wal

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// WaitOptions name the WAL that is waited for: that of one timeline from From up to To.
type WaitOptions struct {
	Repo        *repo.Repository
	Cluster     string
	Timeline    pg.Timeline
	From, To    pg.LSN
	SegmentSize pg.SegmentSize
	// Patience is how long to wait without any progress: it counts from the last segment that came.
	Patience time.Duration
	// Progress is told the bytes that are there, the bytes in all, and the segment that is awaited. It may be nil.
	Progress func(done, total int64, awaited string)
}

// MissingError says that a segment did not come into the repository.
type MissingError struct {
	Segment string
	Waited  time.Duration
}

// Error names the segment and where to look.
func (e *MissingError) Error() string {
	return fmt.Sprintf("WAL segment %s did not reach the repository within %v: see that archive_command runs "+
		"`lifeboat wal-push %%p --cluster NAME` successfully, by pg_stat_archiver and the server's log", e.Segment, e.Waited)
}

// Wait waits until the repository itself lists every segment of the range. It fails with *MissingError, or, when the
// repository could not even be asked for all of Patience, with that error: a store that fails for a moment must not
// cost a backup of many hours.
func Wait(ctx context.Context, opts WaitOptions) error {
	size := opts.SegmentSize
	next := pg.SegmentOf(opts.Timeline, opts.From, size)
	last := pg.SegmentOf(opts.Timeline, max(opts.To, 1)-1, size)
	total := int64(last.Number-next.Number+1) * int64(size)
	progress := time.Now()
	for pause := 50 * time.Millisecond; next.Number <= last.Number; pause = min(2*pause, time.Second) {
		found, err := present(ctx, opts, next, last)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if found > 0 {
			next.Number += found
			progress, pause = time.Now(), 50*time.Millisecond
		}
		if next.Number > last.Number {
			return nil
		}
		if opts.Progress != nil {
			opts.Progress(total-int64(last.Number-next.Number+1)*int64(size), total, next.Name(size))
		}
		if time.Since(progress) > opts.Patience {
			if err != nil {
				return fmt.Errorf("wait for WAL segment %s: %w", next.Name(size), err)
			}
			return &MissingError{Segment: next.Name(size), Waited: opts.Patience}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// longestListing bounds one listing, so that a store that never answers is noticed.
const longestListing = time.Minute

// present counts the segments that are there from first on without a gap, up to last; those that were listed before an
// error count.
func present(ctx context.Context, opts WaitOptions, first, last pg.Segment) (uint64, error) {
	size := opts.SegmentSize
	after := ""
	if first.Number > 0 {
		after = pg.Segment{Timeline: first.Timeline, Number: first.Number - 1}.Name(size)
	}
	ctx, cancel := context.WithTimeout(ctx, max(opts.Patience, longestListing))
	defer cancel()
	var found uint64
	for name, err := range opts.Repo.WALNames(ctx, opts.Cluster, first.Timeline, after) {
		if err != nil {
			return found, err
		}
		want := pg.Segment{Timeline: first.Timeline, Number: first.Number + found}
		if want.Number > last.Number || name > want.Name(size) {
			break
		}
		if name == want.Name(size) {
			found++
		}
	}
	return found, nil
}
