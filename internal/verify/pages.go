package verify

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// pageTask is a stretch of a relation's file to check.
type pageTask struct {
	entry repo.Entry
	piece repo.Piece
	first uint32 // block number of the file's first block
}

// pages is level 3: the pages of all relations in the repository against their checksums.
//
// A backup is taken from files that change meanwhile: a page may be torn in it, and replay mends it by the full page image
// that the WAL has of every page that changed since the backup's start (R7). Such a page bears an LSN at or after the
// start and at or before its end, and its checksum decides nothing. Any other must match, unless the backup saw the page
// change while it was taken.
func (l *ladder) pages(ctx context.Context, s *subject) error {
	m := s.snap.Manifest
	if !m.DataChecksums {
		s.add(Problem{
			Level: 3, Outcome: Skipped, Block: -1,
			Text: "skipped: data checksums are off in this cluster, so nothing can tell whether its pages are sound; `pg_checksums --enable` turns them on",
		})
		return nil
	}
	l.meter.begin("pages", m.SourceBytes)
	var mu sync.Mutex
	found := func(p Problem) {
		mu.Lock()
		defer mu.Unlock()
		s.add(p)
	}
	seen := seenPages(m.PageCheck)
	items := func(yield func(pageTask) error) error { return l.relations(ctx, s, found, yield) }
	var sample atomic.Pointer[soundPage]
	err := parallel(ctx, l.Workers, items, func(ctx context.Context, t pageTask) error {
		err := l.checkPiece(ctx, s.snap, t, seen, found, &sample)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p := problemOf(3, "", err)
			p.File = t.entry.Path
			found(p)
		}
		l.meter.add(t.piece.Length)
		return nil
	})
	if err != nil {
		return err
	}
	l.provePage(s, sample.Load())
	s.passed(3)
	return nil
}

// relations gives the pieces of all relations' files. A table that cannot be read is a problem of this level too: it
// says which pages are not known.
func (l *ladder) relations(ctx context.Context, s *subject, found func(Problem), yield func(pageTask) error) error {
	for e, err := range s.snap.Entries(ctx) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			found(problemOf(3, "", err))
			return nil
		}
		segment, ok := pg.RelationFile(e.Path)
		if e.Type != repo.TypeFile || !ok {
			continue
		}
		blocks := s.snap.Manifest.RelationSegmentBlocks
		if blocks == 0 {
			blocks = pg.DefaultSegmentBlocks
		}
		pieces, err := s.snap.Pieces(ctx, &e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p := problemOf(3, "", err)
			p.File = e.Path
			found(p)
			continue
		}
		for _, piece := range pieces {
			if err := yield(pageTask{e, piece, segment * blocks}); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPiece checks the whole blocks of what is read, and then those that were cut by the edges of chunks. A rest at the
// end of a file that is no whole block is of a file that was growing: replay's business.
func (l *ladder) checkPiece(ctx context.Context, snap *repo.Snapshot, t pageTask, seen seen, found func(Problem), sample *atomic.Pointer[soundPage]) error {
	m := snap.Manifest
	check := func(page []byte, offset int64) {
		block := t.first + uint32(offset/pg.BlockSize)
		if text := checkPage(page, block, m.StartLSN, m.StopLSN); text != "" {
			if p, ok := seen.problem(t.entry.Path, int64(block), text); ok {
				found(p)
			}
		} else if sample.Load() == nil && compared(page, m.StartLSN, m.StopLSN) {
			sample.CompareAndSwap(nil, &soundPage{bytes.Clone(page), t.entry.Path, block})
		}
	}
	cut := map[int64]bool{} // offsets of blocks that chunks do not hold whole
	whole := func(offset int64) bool { return offset >= 0 && offset+pg.BlockSize <= t.entry.Size }
	err := snap.ReadPiece(ctx, &t.piece, nil, func(offset int64, plain []byte) error {
		if skip := (pg.BlockSize - offset%pg.BlockSize) % pg.BlockSize; skip > 0 {
			cut[offset-offset%pg.BlockSize] = true
			if skip >= int64(len(plain)) {
				return nil
			}
			offset, plain = offset+skip, plain[skip:]
		}
		for ; len(plain) >= pg.BlockSize; offset, plain = offset+pg.BlockSize, plain[pg.BlockSize:] {
			check(plain[:pg.BlockSize], offset)
		}
		if len(plain) > 0 {
			cut[offset] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	page := make([]byte, pg.BlockSize)
	for offset := range cut {
		if !whole(offset) {
			continue
		}
		if _, err := snap.ReadAt(ctx, &t.entry, page, offset); err != nil {
			return err
		}
		check(page, offset)
	}
	return nil
}

// compared tells whether the checksum of a page decides about it.
func compared(page []byte, start, stop pg.LSN) bool {
	lsn := pg.PageLSN(page)
	return !pg.PageIsNew(page) && (lsn < start || lsn > stop)
}

// checkPage tells what is wrong with a page; "" if nothing is, or if replay will write it anew (R7): then its LSN lies
// within the backup. One beyond the backup's end cannot have been written by anybody.
func checkPage(page []byte, block uint32, start, stop pg.LSN) string {
	lsn := pg.PageLSN(page)
	if lsn >= start && lsn <= stop {
		return ""
	}
	text := pg.PageProblem(page, block)
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s (page LSN %v, backup %v to %v)", text, lsn, start, stop)
}
