package wal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal/walrecord"
)

// PushOptions name the file to archive.
type PushOptions struct {
	Repo    *repo.Repository
	Cluster string
	// Path is the file in pg_wal, as archive_command's %p gives it; relative paths are relative to the data directory,
	// which PostgreSQL makes the working directory.
	Path        string
	Compression repo.Compression
}

// PushResult tells what was done.
type PushResult struct {
	Name        string
	PlainBytes  int64
	StoredBytes int64 // 0: it was there already
}

// Push archives one file: a segment, a .partial, a .history or a .backup file. It returns nil only when the repository
// has it durably, so it may be retried at any time, and is by PostgreSQL until it succeeds.
func Push(ctx context.Context, opts PushOptions) (PushResult, error) {
	name := filepath.Base(opts.Path)
	res := PushResult{Name: name}
	f, err := pg.ParseWALFileName(name)
	if err != nil {
		return res, fmt.Errorf("archive %s: %w", opts.Path, err)
	}
	data, err := readWALFile(opts.Path)
	if err != nil {
		return res, fmt.Errorf("archive %s: %w", name, err)
	}
	res.PlainBytes = int64(len(data))
	head := repo.WALHeader{Name: name}
	switch f.Kind {
	case pg.WALSegment, pg.WALPartial:
		if err := describe(ctx, opts, f, data, &head); err != nil {
			return res, fmt.Errorf("archive %s: %w", name, err)
		}
	case pg.WALHistory:
		if _, err := pg.ParseHistory(f.Timeline, data); err != nil {
			return res, fmt.Errorf("archive %s: %w", name, err)
		}
	}
	if res.StoredBytes, err = opts.Repo.PutWAL(ctx, opts.Cluster, head, data, opts.Compression); err != nil {
		return res, fmt.Errorf("archive %s: %w", name, err)
	}
	return res, nil
}

// readWALFile reads a whole file, bounded by the largest segment that there can be.
func readWALFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(pg.MaxSegmentSize) {
		return nil, fmt.Errorf("%s is not a WAL file: %v, %d bytes", path, info.Mode().Type(), info.Size())
	}
	return os.ReadFile(path)
}

// describe checks that a segment is what its name says and of the cluster's server, and fills the head with its facts.
func describe(ctx context.Context, opts PushOptions, f pg.WALFile, data []byte, head *repo.WALHeader) error {
	facts, err := walrecord.ScanFacts(ctx, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fmt.Errorf("read its records: %w", err)
	}
	head.SystemID, head.SegmentSize = facts.SystemID, facts.SegmentSize
	if int64(facts.SegmentSize) != int64(len(data)) {
		return fmt.Errorf("it has %d bytes, but its own header says that segments have %d: it is incomplete", len(data), facts.SegmentSize)
	}
	want, err := f.Segment(facts.SegmentSize)
	if err != nil {
		return err
	}
	// The timeline in the header may be an ancestor's: the first segment of a new timeline begins with a copy of the
	// old one's bytes.
	if facts.StartLSN != want.Start(facts.SegmentSize) || facts.Timeline > want.Timeline {
		return fmt.Errorf("its header says %v on timeline %d, its name %v on timeline %d: was the file renamed or recycled?",
			facts.StartLSN, facts.Timeline, want.Start(facts.SegmentSize), want.Timeline)
	}
	id := repo.Identity{SystemID: facts.SystemID, WALSegmentSize: facts.SegmentSize}
	if err := opts.Repo.ClaimIdentity(ctx, opts.Cluster, id); err != nil {
		return err
	}
	if head.Facts, err = json.Marshal(facts); err != nil {
		return fmt.Errorf("encode its facts: %w", err)
	}
	return nil
}

// Facts reads what a stored segment says of itself.
func Facts(ctx context.Context, r *repo.Repository, cluster, name string) (*walrecord.Facts, error) {
	head, err := r.WALHeader(ctx, cluster, name)
	if err != nil {
		return nil, err
	}
	if len(head.Facts) == 0 {
		return nil, errors.New("WAL " + name + " has no facts in its head")
	}
	var facts walrecord.Facts
	if err := json.Unmarshal(head.Facts, &facts); err != nil {
		return nil, fmt.Errorf("facts of WAL %s: %w", name, err)
	}
	return &facts, nil
}
