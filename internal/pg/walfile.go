package pg

import (
	"fmt"
	"strings"
)

// WALFileKind is what a file in pg_wal or in an archive holds, judged by its name.
type WALFileKind int

// The kinds of file that PostgreSQL hands to archive_command.
const (
	_                WALFileKind = iota // zero: no WAL file
	WALSegment                          // 24 digits: one complete segment
	WALPartial                          // segment name + ".partial": the last one of a timeline that was left, or a receiver's unfinished one
	WALHistory                          // timeline + ".history": where a timeline branched off
	WALBackupHistory                    // segment name + "." + offset + ".backup": a note about a finished base backup
)

// String names the kind for people.
func (k WALFileKind) String() string {
	switch k {
	case WALSegment:
		return "WAL segment"
	case WALPartial:
		return "partial WAL segment"
	case WALHistory:
		return "timeline history file"
	case WALBackupHistory:
		return "backup history file"
	}
	return "unknown file"
}

// WALFile is a parsed file name. The zero value names nothing.
type WALFile struct {
	Kind     WALFileKind
	Name     string
	Timeline Timeline
	// Offset is the byte within the segment at which a backup began; only for
	// WALBackupHistory.
	Offset uint32

	log, seg uint32 // the middle and the last eight digits; 0 for WALHistory
}

const (
	segmentNameLen = 24
	partialSuffix  = ".partial"
	historySuffix  = ".history"
	backupSuffix   = ".backup"
)

// ParseWALFileName says what a file name means, exactly as PostgreSQL writes it:
// upper-case digits, nothing before or after, timeline at least 1. Everything else is
// an error, path separators above all: the name comes from another process and
// becomes part of a path (access/xlog_internal.h).
func ParseWALFileName(name string) (WALFile, error) {
	f := WALFile{Name: name}
	bad := func(why string) (WALFile, error) {
		return WALFile{}, fmt.Errorf("parse WAL file name %q: %s", name, why)
	}
	tli, ok := upperHex32(name, 0)
	if !ok {
		return bad("it does not begin with eight upper-case hexadecimal digits")
	}
	if tli == 0 {
		return bad("there is no timeline 0")
	}
	f.Timeline = Timeline(tli)
	if name[8:] == historySuffix {
		f.Kind = WALHistory
		return f, nil
	}
	var ok1, ok2 bool
	f.log, ok1 = upperHex32(name, 8)
	f.seg, ok2 = upperHex32(name, 16)
	if !ok1 || !ok2 {
		return bad("it is neither a segment, a partial segment, a history file nor a backup history file")
	}
	switch rest := name[segmentNameLen:]; {
	case rest == "":
		f.Kind = WALSegment
	case rest == partialSuffix:
		f.Kind = WALPartial
	case strings.HasPrefix(rest, ".") && len(rest) == 1+8+len(backupSuffix) && strings.HasSuffix(rest, backupSuffix):
		if f.Offset, ok = upperHex32(rest, 1); !ok {
			return bad("the offset of a backup history file is eight upper-case hexadecimal digits")
		}
		f.Kind = WALBackupHistory
	default:
		return bad("unknown suffix")
	}
	return f, nil
}

// upperHex32 reads the eight digits of s from position at; false if they are not there.
func upperHex32(s string, at int) (uint32, bool) {
	if len(s) < at+8 {
		return 0, false
	}
	var v uint32
	for i := at; i < at+8; i++ {
		d, ok := hexDigit(s[i])
		if !ok || s[i] >= 'a' {
			return 0, false
		}
		v = v<<4 | uint32(d)
	}
	return v, true
}

// Segment is the segment that the name speaks of. It fails for a history file, for
// an invalid size, and for a name that is impossible with this segment size.
func (f WALFile) Segment(size SegmentSize) (Segment, error) {
	if err := size.Validate(); err != nil {
		return Segment{}, fmt.Errorf("segment of %s: %w", f.Name, err)
	}
	if f.Kind == WALHistory || f.Kind == 0 {
		return Segment{}, fmt.Errorf("segment of %q: a %s has none", f.Name, f.Kind)
	}
	per := size.perXLogID()
	if uint64(f.seg) >= per {
		return Segment{}, fmt.Errorf("segment of %s: the last eight digits are beyond %08X, "+
			"the highest for a segment size of %d bytes: is the segment size right?", f.Name, per-1, uint32(size))
	}
	return Segment{Timeline: f.Timeline, Number: uint64(f.log)*per + uint64(f.seg)}, nil
}
