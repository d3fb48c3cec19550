package pg

import (
	"errors"
	"fmt"
)

// SegmentSize is a cluster's wal_segment_size in bytes: a power of two from 1 MiB to
// 1 GiB (IsValidWalSegSize, access/xlog_internal.h), fixed by initdb. Zero is
// unknown and never valid.
type SegmentSize uint32

// The bounds of wal_segment_size, and what initdb takes if it is told nothing.
const (
	MinSegmentSize     SegmentSize = 1 << 20
	MaxSegmentSize     SegmentSize = 1 << 30
	DefaultSegmentSize SegmentSize = 16 << 20
)

// ErrSegmentSize is what [SegmentSize.Validate] and all that checks a size returns.
var ErrSegmentSize = errors.New("WAL segment size is not a power of two from 1 MiB to 1 GiB")

// Valid reports whether PostgreSQL could run with this segment size.
func (s SegmentSize) Valid() bool {
	return s >= MinSegmentSize && s <= MaxSegmentSize && s&(s-1) == 0
}

// Validate is nil for a valid size, otherwise it wraps [ErrSegmentSize].
func (s SegmentSize) Validate() error {
	if !s.Valid() {
		return fmt.Errorf("segment size %d: %w", uint32(s), ErrSegmentSize)
	}
	return nil
}

// perXLogID is how many segments share the middle eight digits of a name
// (XLogSegmentsPerXLogId). The size must be valid.
func (s SegmentSize) perXLogID() uint64 { return (1 << 32) / uint64(s) }

// Offset is how far a position lies behind the start of its segment, in bytes.
func (s SegmentSize) Offset(lsn LSN) uint32 { return uint32(lsn) & (uint32(s) - 1) }

// Segment names one file of WAL: the Number-th piece, of segment-size bytes, of the
// WAL as timeline Timeline sees it. The same number on two timelines may hold the
// same bytes up to where they part.
//
// The methods that take a segment size need a valid one; an invalid size is a
// programming error, and they panic on zero as integer division does.
type Segment struct {
	Timeline Timeline
	Number   uint64
}

// SegmentOf is the segment that holds the byte at lsn. A position that ends a
// segment belongs to the next one.
func SegmentOf(tli Timeline, lsn LSN, size SegmentSize) Segment {
	return Segment{Timeline: tli, Number: uint64(lsn) / uint64(size)}
}

// ParseSegment reads the name of a whole segment: 24 upper-case hexadecimal digits.
// It refuses a suffix, timeline 0, and a name that is impossible for this segment
// size, because the last eight digits count beyond what 4 GiB hold.
func ParseSegment(name string, size SegmentSize) (Segment, error) {
	f, err := ParseWALFileName(name)
	if err != nil {
		return Segment{}, err
	}
	if f.Kind != WALSegment {
		return Segment{}, fmt.Errorf("parse WAL segment name %q: it names a %s", name, f.Kind)
	}
	return f.Segment(size)
}

// Name is the segment's file name (XLogFileName, access/xlog_internal.h).
func (s Segment) Name(size SegmentSize) string {
	per := size.perXLogID()
	return fmt.Sprintf("%08X%08X%08X", uint32(s.Timeline), uint32(s.Number/per), uint32(s.Number%per))
}

// Start is the position of the segment's first byte.
func (s Segment) Start(size SegmentSize) LSN { return LSN(s.Number * uint64(size)) }

// End is the position behind the segment's last byte, where the next one starts.
func (s Segment) End(size SegmentSize) LSN { return LSN((s.Number + 1) * uint64(size)) }

// Next is the segment that follows on the same timeline.
func (s Segment) Next() Segment { return Segment{Timeline: s.Timeline, Number: s.Number + 1} }
