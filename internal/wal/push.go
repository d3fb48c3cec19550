package wal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	Path string
	// Data, if not nil, is archived under Path's name, and no file is read: of a crashed server's last segment only what
	// is before the end of its WAL counts (R20).
	Data        []byte
	Compression repo.Compression
}

// PushResult tells what was done.
type PushResult struct {
	Name        string
	PlainBytes  int64
	StoredBytes int64 // 0: it was there already
}

// Push archives one file: a segment, a .partial, a .history or a .backup file. It returns nil only when the repository
// has it durably, so it may be retried at any time, and is by PostgreSQL until it succeeds. A file that is not what its
// name says, or not whole, is refused and nothing is stored: under that name it would keep the true one out for ever.
func Push(ctx context.Context, opts PushOptions) (PushResult, error) {
	name := filepath.Base(opts.Path)
	res := PushResult{Name: name}
	f, err := pg.ParseWALFileName(name)
	if err != nil {
		return res, fmt.Errorf("archive %s: %w", opts.Path, err)
	}
	data := opts.Data
	if data == nil {
		if data, err = readWALFile(opts.Path); err != nil {
			return res, fmt.Errorf("archive %s: %w", name, err)
		}
	}
	res.PlainBytes = int64(len(data))
	head := repo.WALHeader{Name: name}
	switch f.Kind {
	case pg.WALSegment, pg.WALPartial:
		if err := describe(ctx, opts, f, data, &head); err != nil {
			return res, fmt.Errorf("archive %s: %w", name, err)
		}
	case pg.WALHistory:
		if err := checkHistory(f.Timeline, data); err != nil {
			return res, fmt.Errorf("archive %s: %w", name, err)
		}
	case pg.WALBackupHistory:
		if err := checkBackupHistory(name, data); err != nil {
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
	if facts.StartLSN != want.Start(facts.SegmentSize) {
		return fmt.Errorf("its header says %v, its name %v: was the file renamed or recycled?", facts.StartLSN, want.Start(facts.SegmentSize))
	}
	if f.Kind == pg.WALSegment && !facts.Complete() {
		return fmt.Errorf("%w: a server archives full segments only, so this is a copy that was cut off, a segment that is "+
			"still being written, or damaged WAL, which no recovery can pass", facts.Stop)
	}
	if err := checkTimeline(ctx, opts, want, facts); err != nil {
		return err
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

// checkTimeline refuses a segment of one timeline under the name of another: the WAL of two branches would mix. The
// first page may be an ancestor's, because the first segment of a new timeline begins with a copy of the old one's
// bytes (XLogFileCopy, access/transam/xlog.c), and if the switch lies in the last record or page even all of them. Then
// the timeline's history says so, which PostgreSQL archives before any segment (pgarch.c).
func checkTimeline(ctx context.Context, opts PushOptions, want pg.Segment, facts *walrecord.Facts) error {
	have := max(facts.Timeline, facts.LastTimeline)
	for _, c := range facts.Checkpoints {
		have = max(have, c.Timeline)
	}
	for _, e := range facts.EndsOfRecovery {
		have = max(have, e.Timeline)
	}
	if have == want.Timeline {
		return nil
	}
	if have < want.Timeline {
		h, err := readHistory(ctx, opts.Repo, opts.Cluster, want.Timeline.HistoryName())
		if err != nil && !errors.Is(err, repo.ErrNotFound) {
			return err
		}
		if at, ok := h.SwitchPoint(have); err == nil && ok && pg.SegmentOf(want.Timeline, at, facts.SegmentSize) == want {
			return nil
		}
	}
	return fmt.Errorf("its WAL is of timeline %d, its name of timeline %d: was the file renamed?", have, want.Timeline)
}

// checkHistory refuses a timeline history that was cut off: it would tell of another descent. PostgreSQL ends each line
// (writeTimeLineHistory, access/transam/timeline.c), and a new timeline has at least one ancestor.
func checkHistory(tli pg.Timeline, data []byte) error {
	h, err := pg.ParseHistory(tli, data)
	switch {
	case err != nil:
		return err
	case len(data) > maxHistory:
		return fmt.Errorf("it has %d bytes, a timeline history has at most %d", len(data), maxHistory)
	case len(h.Entries) == 0 || data[len(data)-1] != '\n':
		return errors.New("it names no ancestor or its last line does not end: it is incomplete")
	}
	return nil
}

// maxBackupHistory bounds a backup history file in bytes: it has some ten short lines.
const maxBackupHistory = 64 << 10

// checkBackupHistory refuses a note about another backup. Recovery does not read these files; people do.
func checkBackupHistory(name string, data []byte) error {
	first, _, _ := strings.Cut(string(data[:min(len(data), 200)]), "\n")
	if len(data) > maxBackupHistory || !strings.HasPrefix(first, "START WAL LOCATION: ") || !strings.HasSuffix(first, "(file "+name[:24]+")") {
		return fmt.Errorf("it has %d bytes and begins with %q: it is no backup history file of that name", len(data), first)
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
