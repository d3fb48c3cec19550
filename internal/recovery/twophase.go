package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal"
)

// lendSegment gives the segment in which replay stopped a second name, that of the timeline of its records.
//
// Where a timeline was left in the middle of a segment, recovery along the new one reads the new one's file, which
// begins with a copy of the old one's records. If replay stops within that copy, and a prepared transaction is among
// them, PostgreSQL looks for its data in a file of the old timeline, which nobody has fetched, and ends instead of
// promoting: "requested WAL segment has already been removed" (XlogReadTwoPhaseData, twophase.c; the timeline that
// XLogReadDetermineTimeline, xlogutils.c, begins with is that of the last replayed record). Up to the stop both files
// are the same.
func (p *Plan) lendSegment() error {
	if p.Stop.Timeline == 0 || p.WALSegments == 0 {
		return nil
	}
	size := pg.SegmentSize(p.WALBytes / p.WALSegments)
	at := pg.SegmentOf(p.Stop.Timeline, p.Stop.ReplayedTo-1, size)
	need, err := wal.ParseNeed(p.Need)
	if err != nil {
		return err
	}
	fetched, ok := need.Find(at.Number, size)
	if !ok || fetched.Timeline == at.Timeline {
		return nil
	}
	if err := p.copySegment(fetched.Name(size), at.Name(size)); err != nil {
		return fmt.Errorf("copy WAL segment %s of %s: %w", fetched.Name(size), p.TargetDir, err)
	}
	return nil
}

// copySegment copies a file of pg_wal, if the other is not there, and marks it as one that need not be archived, as
// PostgreSQL marks what it fetched.
func (p *Plan) copySegment(from, to string) error {
	root, err := os.OpenRoot(p.TargetDir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Lstat(path.Join("pg_wal", to)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := root.ReadFile(path.Join("pg_wal", from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // PostgreSQL says what it misses, if it misses anything
	}
	if err != nil {
		return err
	}
	owner, err := ownerOf(root)
	if err != nil {
		return err
	}
	if err := writeDurably(root, path.Join("pg_wal/archive_status", to+".done"), nil, owner); err != nil {
		return err
	}
	return writeDurably(root, path.Join("pg_wal", to), data, owner)
}
