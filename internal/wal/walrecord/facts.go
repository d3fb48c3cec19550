package walrecord

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/pg"
)

// MaxListed is how many entries each list in [Facts] holds at most.
const MaxListed = 1024

// ErrNotSegment is what [ScanFacts] wraps when the bytes do not begin as a WAL segment
// of a supported version, so that nothing can be said of them.
var ErrNotSegment = errors.New("not a WAL segment")

// Facts is what one segment file holds, read from its bytes alone (R15). Positions are
// starts of records. A zero value or an absent field means that there is none.
//
// Not in it is the record that crosses the segment's end, nor the one that crosses its
// beginning: see [Join].
type Facts struct {
	SystemID     pg.SystemID    `json:"systemId"`
	Timeline     pg.Timeline    `json:"timeline"`               // of the first page: may be older than the file's name says
	LastTimeline pg.Timeline    `json:"lastTimeline,omitempty"` // of the last page that was read, if it differs
	SegmentSize  pg.SegmentSize `json:"segmentSize"`
	PageMagic    uint16         `json:"pageMagic"` // see MajorOfMagic
	StartLSN     pg.LSN         `json:"startLsn"`

	Records        uint64 `json:"records"` // complete ones
	FirstRecordLSN pg.LSN `json:"firstRecordLsn,omitempty"`
	LastRecordLSN  pg.LSN `json:"lastRecordLsn,omitempty"`
	LastRecordEnd  pg.LSN `json:"lastRecordEnd,omitempty"`
	SwitchLSN      pg.LSN `json:"switchLsn,omitempty"` // XLOG_SWITCH: what follows in the file is void

	// The ends of transactions: the first and last in WAL order, and those with the
	// earliest and latest time, which need not be the same (R19).
	Commits  uint64       `json:"commits,omitempty"`
	Aborts   uint64       `json:"aborts,omitempty"`
	First    *Transaction `json:"first,omitempty"`
	Last     *Transaction `json:"last,omitempty"`
	Earliest *Transaction `json:"earliest,omitempty"`
	Latest   *Transaction `json:"latest,omitempty"`

	RestorePoints    []RestorePoint       `json:"restorePoints,omitempty"`
	Checkpoints      []Checkpoint         `json:"checkpoints,omitempty"`
	EndsOfRecovery   []EndOfRecovery      `json:"endsOfRecovery,omitempty"`
	BackupEnds       []BackupEnd          `json:"backupEnds,omitempty"`
	Tablespaces      []TablespaceCreation `json:"tablespaces,omitempty"`
	ParameterChanges []ParameterChange    `json:"parameterChanges,omitempty"`
	// Cut: a list was longer than MaxListed, or a record could not be understood. Who
	// needs to be sure reads the segment with a Reader.
	Cut bool `json:"cut,omitempty"`

	Head *Head `json:"head,omitempty"`
	Tail *Tail `json:"tail,omitempty"`
	// Stop is set if valid WAL ends before the segment does, and neither SwitchLSN nor
	// Tail explains it: the segment is not full, or damaged. One sound segment in very
	// many looks so too, with a reason that is Unwritten: that which Head leaves empty
	// because it is the end of an XLOG_SWITCH, as only Join can tell.
	Stop *EndOfWAL `json:"stop,omitempty"`
}

// Major is the PostgreSQL version that wrote the segment.
func (f *Facts) Major() int { return MajorOfMagic(f.PageMagic) }

// Complete reports whether the segment holds WAL up to its end, or up to a switch that
// it tells of, so that only the next segment can follow.
func (f *Facts) Complete() bool { return f.Stop == nil }

// Covers reports whether every byte in the segment belongs to one record that began
// before it and goes on after it.
func (f *Facts) Covers() bool {
	return f.Head != nil && f.Head.Next != 0
}

// ScanFacts reads one segment file of size bytes, checking every record's CRC, in
// constant memory. Bytes that are not valid WAL end the scan and are told in
// Facts.Stop; they are no error. It wraps [ErrNotSegment] if not even the first header
// is that of a segment, and otherwise fails only as r or the context does. A file
// shorter than a segment is read as if zeroes followed, a longer one is refused.
func ScanFacts(ctx context.Context, r io.Reader, size int64) (*Facts, error) {
	start, err := readStart(r)
	if err != nil {
		return nil, err
	}
	h, seg := parsePageHeader(start), parseSegmentHeader(start)
	if err := checkStart(h, seg, size); err != nil {
		return nil, err
	}
	f := &Facts{SystemID: seg.systemID, Timeline: h.timeline, SegmentSize: seg.size, PageMagic: h.magic, StartLSN: h.addr}
	rd := &Reader{
		opt:      Options{SegmentSize: seg.size, Start: h.addr, Open: onlySegment(h.addr, seg.size, start, r)},
		systemID: seg.systemID,
		buf:      make([]byte, chunkSize),
		head:     &Head{At: h.addr},
	}
	defer rd.Close()
	var end *EndOfWAL
	for {
		rec, err := rd.next(ctx)
		if errors.As(err, &end) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("scan WAL segment at %s: %w", h.addr, err)
		}
		f.add(rec)
	}
	f.close(rd, end)
	return f, nil
}

// readStart reads the first page's long header.
func readStart(r io.Reader) ([]byte, error) {
	start := make([]byte, longPageHeader)
	switch _, err := io.ReadFull(r, start); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, fmt.Errorf("%w: it is shorter than a page header", ErrNotSegment)
	case err != nil:
		return nil, fmt.Errorf("read WAL segment: %w", err)
	}
	return start, nil
}

func checkStart(h pageHeader, seg segmentHeader, size int64) error {
	switch {
	case MajorOfMagic(h.magic) == 0:
		return fmt.Errorf("%w of PostgreSQL %d to %d: magic number %04X", ErrNotSegment, pg.MinMajor, pg.MaxMajor, h.magic)
	case h.info&^pageAllFlags != 0 || h.info&pageLongHeader == 0:
		return fmt.Errorf("%w: flags %04X in its first header", ErrNotSegment, h.info)
	case !seg.size.Valid():
		return fmt.Errorf("%w: its header says %d bytes: %w", ErrNotSegment, uint32(seg.size), pg.ErrSegmentSize)
	case seg.size.Offset(h.addr) != 0:
		return fmt.Errorf("%w: it begins at %s, within a segment", ErrNotSegment, h.addr)
	case seg.pageSize != PageSize:
		return fmt.Errorf("%w: WAL block size %d; only %d is supported", ErrNotSegment, seg.pageSize, PageSize)
	case size > int64(seg.size):
		return fmt.Errorf("%w: %d bytes, but its header says %d", ErrNotSegment, size, uint32(seg.size))
	}
	return nil
}

// onlySegment is a source with one segment, whose first bytes were read already.
func onlySegment(at pg.LSN, size pg.SegmentSize, start []byte, r io.Reader) OpenFunc {
	return func(_ context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
		if n != uint64(at)/uint64(size) {
			return 0, nil, ErrNoSegment
		}
		return 0, io.NopCloser(io.MultiReader(bytes.NewReader(start), r)), nil
	}
}

// add takes one record into account.
func (f *Facts) add(rec *Record) {
	if f.Records == 0 {
		f.FirstRecordLSN = rec.LSN
	}
	f.Records++
	f.LastRecordLSN, f.LastRecordEnd = rec.LSN, rec.End
	if !bearsFacts(rec.Rmgr, rec.Info) {
		return
	}
	if rec.Rmgr == RmgrXact { // the frequent kind, without allocating an Event
		tx, ok, err := decodeTransaction(rec)
		f.Cut = f.Cut || err != nil
		if ok {
			f.addTransaction(&tx)
		}
		return
	}
	ev, err := Decode(rec)
	if err != nil {
		f.Cut = true
		return
	}
	if ev.Switch {
		f.SwitchLSN = ev.LSN
	}
	cut := list(&f.RestorePoints, ev.RestorePoint) || list(&f.Checkpoints, ev.Checkpoint) ||
		list(&f.EndsOfRecovery, ev.EndOfRecovery) || list(&f.BackupEnds, ev.BackupEnd) ||
		list(&f.Tablespaces, ev.Tablespace) || list(&f.ParameterChanges, ev.ParameterChange)
	f.Cut = f.Cut || cut
}

// list appends v, if there is one, and is true if there was no room for it.
func list[T any](l *[]T, v *T) bool {
	if v == nil {
		return false
	}
	if len(*l) == MaxListed {
		return true
	}
	*l = append(*l, *v)
	return false
}

func (f *Facts) addTransaction(tx *Transaction) {
	if tx.Abort {
		f.Aborts++
	} else {
		f.Commits++
	}
	if f.First == nil {
		t1, t2, t3, t4 := *tx, *tx, *tx, *tx
		f.First, f.Last, f.Earliest, f.Latest = &t1, &t2, &t3, &t4
		return
	}
	*f.Last = *tx
	if tx.Time < f.Earliest.Time {
		*f.Earliest = *tx
	}
	if tx.Time > f.Latest.Time {
		*f.Latest = *tx
	}
}

// close tells how the segment begins and ends.
func (f *Facts) close(r *Reader, end *EndOfWAL) {
	if r.timeline != f.Timeline {
		f.LastTimeline = r.timeline
	}
	if r.head.Length > 0 || r.head.Overwritten {
		f.Head = r.head
		if f.Head.Remaining > f.Head.Length && end.Reason == NoMoreSegments {
			f.Head.Next = r.pageLSN
		}
	}
	if end.Reason != NoMoreSegments {
		f.Stop = end
	} else if r.asm.active {
		f.Tail = r.asm.tail(r.pageLSN, r.magic, f.LastRecordLSN)
	}
}
