package walrecord

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"lifeboat/internal/pg"
)

// ErrNoSegment is what an [OpenFunc] returns, wrapped or not, for a segment that does
// not exist. The reader reports it as the end of WAL, NoMoreSegments.
var ErrNoSegment = errors.New("there is no such WAL segment")

// OpenFunc opens segment number n for reading from its first byte. It decides which
// timeline's file that is (see pg.History.SegmentFile) and says so; 0 says nothing and
// leaves the timelines of the pages unchecked against it. A file that is shorter than
// a segment is read as far as it goes. The reader closes what it gets, and asks for
// segments in rising order, each once.
type OpenFunc func(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error)

// Options say what a [Reader] reads.
type Options struct {
	Open        OpenFunc       // required
	SegmentSize pg.SegmentSize // required
	// Start is where reading begins: the first record that begins at or after it is the
	// first that is returned. It need not be the start of a record.
	Start pg.LSN
	// SystemID is the cluster that the segments must be of; 0 takes that of the first.
	SystemID pg.SystemID
}

// Reader gives the records of successive segments. It is for one goroutine.
type Reader struct {
	opt      Options
	magic    uint16 // of all pages; 0 before the first
	major    int    // that goes with it
	systemID pg.SystemID
	timeline pg.Timeline // of the newest page

	src          io.ReadCloser // current segment
	fileTimeline pg.Timeline
	unread       int64  // bytes of the segment that are not in buf yet
	buf          []byte // a chunk of the segment
	lo, hi       int    // what of it is left

	page    []byte // current page, within buf; nil before the first
	pageLSN pg.LSN
	hdr     pageHeader
	off     int // in page, where the next record begins; PageSize: behind the next page's header

	prev pg.LSN // start of the last record; 0 before the first
	rec  Record // the last record
	asm  assembly
	head *Head // collects what continues at the very beginning, if wanted
	err  error // what ended the reading
}

// chunkSize is how much of a segment is read at once: a multiple of PageSize that fits
// the second-level cache, so that the CRC finds the bytes there.
const chunkSize = 128 << 10

// NewReader checks the options; nothing is opened before the first [Reader.Next].
func NewReader(opt Options) (*Reader, error) {
	if err := opt.SegmentSize.Validate(); err != nil {
		return nil, fmt.Errorf("read WAL: %w", err)
	}
	if opt.Open == nil {
		return nil, errors.New("read WAL: Options.Open is missing")
	}
	return &Reader{opt: opt, systemID: opt.SystemID, buf: make([]byte, chunkSize)}, nil
}

// SystemID is the cluster whose WAL this is; 0 before the first page was read.
func (r *Reader) SystemID() pg.SystemID { return r.systemID }

// Close closes the open segment. The reader cannot be used afterwards.
func (r *Reader) Close() error {
	r.err = errors.New("read WAL: the reader is closed")
	return r.closeSegment()
}

func (r *Reader) closeSegment() error {
	if r.src == nil {
		return nil
	}
	err := r.src.Close()
	r.src = nil
	return err
}

// Next gives the next record. Where WAL ends it returns an [*EndOfWAL], whatever the
// reason. Any other error comes from the source or the context. Both are final: read
// again with a new reader, starting at the end of the last record.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	rec, err := r.next(ctx)
	if err != nil {
		return Record{}, err
	}
	return *rec, nil
}

// next is Next without the copy: the record is the reader's own.
func (r *Reader) next(ctx context.Context) (*Record, error) {
	for r.err == nil {
		if r.err = r.read(ctx); r.err != nil {
			break
		}
		r.prev = r.rec.LSN
		if r.rec.LSN >= r.opt.Start {
			return &r.rec, nil
		}
	}
	return nil, r.err
}

func (r *Reader) read(ctx context.Context) error {
	for {
		if r.page == nil {
			if err := r.begin(ctx); err != nil {
				return err
			}
		} else if r.off == PageSize {
			if err := r.nextPage(ctx); err != nil {
				return r.endAt(err, r.pageLSN)
			}
			if r.hdr.continues() {
				return &EndOfWAL{LSN: r.pageLSN, Reason: StrayContrecord}
			}
			r.off = r.hdr.size()
		}
		if again, err := r.readHere(ctx); !again {
			return err
		}
	}
}

// begin goes to the page that holds Start and passes over what continues there a
// record from before it.
func (r *Reader) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read WAL at %s: %w", r.opt.Start, err)
	}
	if err := r.openSegment(ctx, uint64(r.opt.Start)/uint64(r.opt.SegmentSize)); err != nil {
		return r.endAt(err, r.opt.Start)
	}
	if at := r.opt.Start &^ (PageSize - 1); at != r.pageLSN {
		if err := r.skipTo(at); err != nil {
			return r.endAt(err, r.opt.Start)
		}
	}
	first := r.pageLSN
	if r.head != nil {
		r.head.Overwritten = r.hdr.overwrites()
	}
	for want := r.hdr.remaining; r.hdr.continues(); {
		if r.hdr.remaining == 0 || r.hdr.remaining != want {
			return &EndOfWAL{
				LSN: r.pageLSN, Reason: BadContrecordLength,
				Detail: fmt.Sprintf("%d bytes go on at %s, expected %d", r.hdr.remaining, r.pageLSN, want),
			}
		}
		p := r.page[r.hdr.size():]
		p = p[:min(int64(len(p)), int64(want))]
		r.head.add(r.hdr.remaining, p)
		want -= uint32(len(p))
		r.off = r.hdr.size() + align(len(p))
		if want == 0 {
			r.head.finish(r.pageLSN + pg.LSN(r.off))
			return nil
		}
		if err := r.nextPage(ctx); err != nil {
			return r.endAt(err, first)
		}
		if !r.hdr.continues() && !r.hdr.overwrites() {
			return &EndOfWAL{LSN: r.pageLSN, Reason: MissingContrecord, Detail: fmt.Sprintf("%d bytes of a record do not follow", want)}
		}
		if r.head != nil {
			r.head.Overwritten = r.hdr.overwrites()
		}
	}
	r.off = r.hdr.size()
	return nil
}

// align rounds up to MAXALIGN.
func align(n int) int { return (n + 7) &^ 7 }

// endAt sets the position of an end that was found while the page at, or the record at,
// was expected.
func (r *Reader) endAt(err error, at pg.LSN) error {
	var end *EndOfWAL
	if errors.As(err, &end) {
		end.LSN = at
	}
	return err
}

// readHere reads the record at the current place into r.rec. Again is set if it turns
// out to be one that was given up and written over: what replaces it is at the then
// current place.
func (r *Reader) readHere(ctx context.Context) (again bool, err error) {
	lsn := r.pageLSN + pg.LSN(r.off)
	b := r.page[r.off:]
	total := recordLength(b)
	if total < recordHeader {
		return false, r.noRecord(lsn, total)
	}
	if len(b) < recordHeader {
		return r.readSpanning(ctx, lsn, total)
	}
	rec := &r.rec
	crc := rec.setHeader(b)
	rec.LSN, rec.Timeline, rec.Major = lsn, r.hdr.timeline, r.major
	if end := r.checkHeader(rec); end != nil {
		return false, end
	}
	if int64(total) > int64(len(b)) {
		return r.readSpanning(ctx, lsn, total)
	}
	body := b[recordHeader:total]
	if finishCRC(crc32.Update(0, castagnoli, body), b) != crc {
		return false, &EndOfWAL{LSN: lsn, Reason: BadCRC}
	}
	if !rec.setMain(body) {
		return false, &EndOfWAL{LSN: lsn, Reason: BadRecord}
	}
	r.off += align(int(total))
	r.finish()
	return false, nil
}

func (r *Reader) noRecord(lsn pg.LSN, total uint32) *EndOfWAL {
	switch {
	case total == 0 && r.unread < 0:
		return &EndOfWAL{LSN: lsn, Reason: ShortSegment}
	case total == 0:
		return &EndOfWAL{LSN: lsn, Reason: ZeroLength}
	}
	return &EndOfWAL{LSN: lsn, Reason: BadLength, Detail: fmt.Sprintf("a record of %d bytes", total)}
}

// checkHeader is ValidXLogRecordHeader. The first record read can only be asked to
// point back.
func (r *Reader) checkHeader(rec *Record) *EndOfWAL {
	switch {
	case !rec.Rmgr.Valid():
		return &EndOfWAL{LSN: rec.LSN, Reason: BadRmgr, Detail: fmt.Sprintf("resource manager %d", uint8(rec.Rmgr))}
	case r.prev != 0 && rec.Prev != r.prev:
		return &EndOfWAL{LSN: rec.LSN, Reason: BadPrev, Detail: fmt.Sprintf("it points back to %s, not to %s", rec.Prev, r.prev)}
	case r.prev == 0 && rec.Prev >= rec.LSN:
		return &EndOfWAL{LSN: rec.LSN, Reason: BadPrev, Detail: fmt.Sprintf("it points forward to %s", rec.Prev)}
	}
	return nil
}

// readSpanning collects a record that goes on behind the header of the next page.
func (r *Reader) readSpanning(ctx context.Context, lsn pg.LSN, total uint32) (again bool, err error) {
	a := &r.asm
	a.begin(lsn, r.hdr.timeline, r.major, total)
	checked := len(r.page)-r.off >= recordHeader
	a.add(r.page[r.off:])
	for a.got < total {
		if err := r.nextPage(ctx); err != nil {
			return false, r.endAt(err, lsn)
		}
		if r.hdr.overwrites() {
			a.active = false
			r.off = r.hdr.size()
			return true, nil
		}
		if !r.hdr.continues() {
			return false, &EndOfWAL{LSN: lsn, Reason: MissingContrecord, Detail: fmt.Sprintf("it does not go on at %s", r.pageLSN)}
		}
		want := total - a.got
		if r.hdr.remaining != want {
			return false, &EndOfWAL{
				LSN: lsn, Reason: BadContrecordLength,
				Detail: fmt.Sprintf("%d bytes go on at %s, expected %d", r.hdr.remaining, r.pageLSN, want),
			}
		}
		p := r.page[r.hdr.size():]
		p = p[:min(int64(len(p)), int64(want))]
		a.add(p)
		r.off = r.hdr.size() + align(len(p))
		if !checked && a.haveHeader() {
			a.setHeader(&r.rec)
			if end := r.checkHeader(&r.rec); end != nil {
				return false, end
			}
			checked = true
		}
	}
	a.active = false
	if reason := a.record(&r.rec); reason != "" {
		return false, &EndOfWAL{LSN: lsn, Reason: reason}
	}
	r.finish()
	return false, nil
}

// finish sets the record's end and, behind an XLOG_SWITCH, goes to the next segment.
func (r *Reader) finish() {
	rec := &r.rec
	rec.End = r.pageLSN + pg.LSN(r.off)
	if rec.Rmgr == RmgrXLOG && rec.Info&infoMask == xlogSwitch {
		size := pg.LSN(r.opt.SegmentSize)
		rec.End = (rec.End + size - 1) &^ (size - 1)
		r.pageLSN, r.off = rec.End-PageSize, PageSize
		r.unread = 0 // nor does it matter whether the rest is there
	}
}
