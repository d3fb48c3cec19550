package walrecord

import (
	"encoding/binary"
	"fmt"

	"lifeboat/internal/pg"
)

// PageSize is XLOG_BLCKSZ as everyone builds PostgreSQL; other sizes are refused.
const PageSize = 8192

const (
	shortPageHeader = 24 // SizeOfXLogShortPHD
	longPageHeader  = 40 // SizeOfXLogLongPHD
)

// The bits of xlp_info (access/xlog_internal.h).
const (
	pageFirstIsContrecord = 0x0001
	pageLongHeader        = 0x0002
	pageOverwritesContrec = 0x0008
	pageAllFlags          = 0x000F
)

// MajorOfMagic is the PostgreSQL version that writes pages with this magic number
// (XLOG_PAGE_MAGIC); 0 for a version that is not supported, and for what is no WAL.
func MajorOfMagic(magic uint16) int {
	switch magic {
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// pageHeader is XLogPageHeaderData.
type pageHeader struct {
	magic, info uint16
	timeline    pg.Timeline
	addr        pg.LSN
	remaining   uint32 // bytes of the record that is continued here, from here on
}

func parsePageHeader(p []byte) pageHeader {
	le := binary.LittleEndian
	_ = p[shortPageHeader-1]
	return pageHeader{
		magic:     le.Uint16(p),
		info:      le.Uint16(p[2:]),
		timeline:  pg.Timeline(le.Uint32(p[4:])),
		addr:      pg.LSN(le.Uint64(p[8:])),
		remaining: le.Uint32(p[16:]),
	}
}

func (h pageHeader) size() int {
	if h.info&pageLongHeader != 0 {
		return longPageHeader
	}
	return shortPageHeader
}

func (h pageHeader) continues() bool  { return h.info&pageFirstIsContrecord != 0 }
func (h pageHeader) overwrites() bool { return h.info&pageOverwritesContrec != 0 }

// segmentHeader is what XLogLongPageHeaderData has beyond a pageHeader.
type segmentHeader struct {
	systemID pg.SystemID
	size     pg.SegmentSize
	pageSize uint32
}

func parseSegmentHeader(p []byte) segmentHeader {
	le := binary.LittleEndian
	_ = p[longPageHeader-1]
	return segmentHeader{
		systemID: pg.SystemID(le.Uint64(p[24:])),
		size:     pg.SegmentSize(le.Uint32(p[32:])),
		pageSize: le.Uint32(p[36:]),
	}
}

// checkPage validates the current page's header against what must stand there, as
// XLogReaderValidatePageHeader does. The LSN of the end is left to the caller.
func (r *Reader) checkPage() *EndOfWAL {
	h := parsePageHeader(r.page)
	at := func() string { return fmt.Sprintf(" in the page at %s", r.pageLSN) }
	switch {
	case h == pageHeader{}:
		return &EndOfWAL{Reason: ZeroPage, Detail: "nothing" + at()}
	case r.magic == 0 && MajorOfMagic(h.magic) == 0, r.magic != 0 && h.magic != r.magic:
		return &EndOfWAL{Reason: BadPageMagic, Detail: fmt.Sprintf("magic number %04X%s", h.magic, at())}
	case h.info&^pageAllFlags != 0:
		return &EndOfWAL{Reason: BadPageHeader, Detail: fmt.Sprintf("unknown flags %04X%s", h.info, at())}
	case h.addr != r.pageLSN:
		return &EndOfWAL{Reason: BadPageAddress, Detail: fmt.Sprintf("address %s%s", h.addr, at())}
	case h.timeline < r.timeline:
		return &EndOfWAL{Reason: BadTimeline, Detail: fmt.Sprintf("timeline %d after %d%s", h.timeline, r.timeline, at())}
	case r.fileTimeline != 0 && h.timeline > r.fileTimeline:
		return &EndOfWAL{Reason: BadTimeline, Detail: fmt.Sprintf("timeline %d in a file of timeline %d%s", h.timeline, r.fileTimeline, at())}
	}
	if h.info&pageLongHeader != 0 {
		if end := r.checkSegmentHeader(parseSegmentHeader(r.page)); end != nil {
			end.Detail += at()
			return end
		}
	} else if r.opt.SegmentSize.Offset(r.pageLSN) == 0 {
		return &EndOfWAL{Reason: BadPageHeader, Detail: "no long header" + at()}
	}
	if r.magic == 0 {
		r.magic, r.major = h.magic, MajorOfMagic(h.magic)
	}
	r.timeline, r.hdr = h.timeline, h
	return nil
}

func (r *Reader) checkSegmentHeader(s segmentHeader) *EndOfWAL {
	switch {
	case r.systemID != 0 && s.systemID != r.systemID:
		return &EndOfWAL{Reason: BadSystemID, Detail: fmt.Sprintf("system identifier %s, expected %s,", s.systemID, r.systemID)}
	case s.size != r.opt.SegmentSize:
		return &EndOfWAL{Reason: BadPageHeader, Detail: fmt.Sprintf("segment size %d, expected %d,", s.size, r.opt.SegmentSize)}
	case s.pageSize != PageSize:
		return &EndOfWAL{Reason: BadPageHeader, Detail: fmt.Sprintf("WAL block size %d, expected %d,", s.pageSize, PageSize)}
	}
	r.systemID = s.systemID
	return nil
}
