package walrecord

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/pg"
)

// nextPage goes on to the next page, of the next segment if need be.
func (r *Reader) nextPage(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read WAL at %s: %w", r.pageLSN, err)
	}
	next := r.pageLSN + PageSize
	if r.opt.SegmentSize.Offset(next) == 0 {
		if r.unread < 0 {
			return &EndOfWAL{Reason: ShortSegment, Detail: fmt.Sprintf("the file ends before %s", next)}
		}
		return r.openSegment(ctx, uint64(next)/uint64(r.opt.SegmentSize))
	}
	r.pageLSN = next
	return r.loadPage()
}

// openSegment opens segment n and loads its first page, whose header names the cluster.
func (r *Reader) openSegment(ctx context.Context, n uint64) error {
	r.pageLSN = pg.LSN(n * uint64(r.opt.SegmentSize))
	if err := r.closeSegment(); err != nil {
		return fmt.Errorf("close WAL segment before %s: %w", r.pageLSN, err)
	}
	tli, src, err := r.opt.Open(ctx, n)
	if errors.Is(err, ErrNoSegment) {
		return &EndOfWAL{Reason: NoMoreSegments}
	}
	if err != nil {
		return fmt.Errorf("open WAL segment at %s: %w", r.pageLSN, err)
	}
	r.src, r.fileTimeline, r.unread, r.lo, r.hi = src, tli, int64(r.opt.SegmentSize), 0, 0
	return r.loadPage()
}

// skipTo goes on to the page at lsn, of the same segment.
func (r *Reader) skipTo(lsn pg.LSN) error {
	n := int64(lsn-r.pageLSN) - PageSize
	r.pageLSN = lsn
	inBuf := min(n, int64(r.hi-r.lo))
	r.lo += int(inBuf)
	n -= inBuf
	for n > 0 {
		if err := r.fill(); err != nil {
			return err
		}
		if r.hi == 0 {
			break // loadPage says what that means
		}
		r.lo = int(min(n, int64(r.hi)))
		n -= int64(r.lo)
	}
	return r.loadPage()
}

// loadPage takes the page at pageLSN from the source and checks its header. If the
// file ends within the page, the rest of it counts as zeroes, as if the file had been
// filled up to the size of a segment.
func (r *Reader) loadPage() error {
	if r.lo == r.hi {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if r.hi == r.lo {
		return &EndOfWAL{Reason: ShortSegment, Detail: fmt.Sprintf("the file ends before the page at %s", r.pageLSN)}
	}
	end := r.lo + PageSize
	if r.hi < end {
		clear(r.buf[r.hi:end])
		r.hi = end
	}
	r.page = r.buf[r.lo:end]
	r.lo = end
	if end := r.checkPage(); end != nil {
		return end
	}
	return nil
}

// fill reads the next chunk. At the end of a short file it leaves hi at what was there
// and unread below zero.
func (r *Reader) fill() error {
	r.lo, r.hi = 0, 0
	want := min(int64(len(r.buf)), r.unread)
	if want <= 0 {
		return nil
	}
	n, err := io.ReadFull(r.src, r.buf[:want])
	r.hi = n
	r.unread -= int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		r.unread = -1
		return nil
	}
	if err != nil {
		return fmt.Errorf("read WAL segment at %s: %w", r.pageLSN, err)
	}
	return nil
}
