package walrecord

import (
	"encoding/binary"
	"hash/crc32"

	"lifeboat/internal/pg"
)

const (
	recordHeader = 24 // SizeOfXLogRecord
	crcOffset    = 20 // what of the header the CRC covers

	// MaxMain is how many bytes of a record's main data are kept.
	MaxMain = 64 << 10
	// bodyPrefix is how much of a long record's body is collected before its layout is
	// parsed. The block headers, 33 at most, take less than 1 KiB.
	bodyPrefix = 64 << 10
)

// Record is one WAL record, proved by its CRC.
type Record struct {
	LSN  pg.LSN // of its first byte, as pg_waldump prints it and recovery_target_lsn means it
	End  pg.LSN // where the next record, or the page header before it, begins; after XLOG_SWITCH the segment's end
	Prev pg.LSN // of the record before it

	Timeline pg.Timeline // of the page on which it begins
	Major    int         // PostgreSQL version of the page format
	XID      uint32      // 0 if it belongs to no transaction
	Rmgr     Rmgr
	Info     uint8  // xl_info; the resource manager's own bits are the upper four
	Length   uint32 // xl_tot_len

	// Main is the main data, at most MaxMain bytes of it, and valid until the reader's
	// next call. MainLen is its whole length. Block references and page images are
	// checked and passed over.
	Main    []byte
	MainLen uint32

	// walk has seen the main data of a transaction record that is longer than Main.
	walk *xactWalk
}

// setHeader takes the fields of XLogRecord and returns its CRC.
func (rec *Record) setHeader(b []byte) (crc uint32) {
	le := binary.LittleEndian
	_ = b[recordHeader-1]
	rec.Length = le.Uint32(b)
	rec.XID = le.Uint32(b[4:])
	rec.Prev = pg.LSN(le.Uint64(b[8:]))
	rec.Info = b[16]
	rec.Rmgr = Rmgr(b[17])
	return le.Uint32(b[20:])
}

// setMain takes the main data out of a whole body; false if its layout is impossible.
func (rec *Record) setMain(body []byte) bool {
	n, ok := mainData(body, uint32(len(body)))
	if !ok {
		return false
	}
	rec.Main, rec.MainLen, rec.walk = body[uint32(len(body))-n:], n, nil
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// finishCRC adds the header, which the CRC takes last, to that of the body.
func finishCRC(body uint32, head []byte) uint32 {
	return crc32.Update(body, castagnoli, head[:crcOffset])
}

// The marks in front of the parts of a record's body (access/xlogrecord.h).
const (
	maxBlockID    = 32
	idDataShort   = 255
	idDataLong    = 254
	idOrigin      = 253
	idTopLevelXID = 252

	blockHasImage = 0x10
	blockHasData  = 0x20
	blockSameRel  = 0x80

	imageHasHole    = 0x01
	imageCompressed = 0x04 | 0x08 | 0x10
)

// mainData finds the main data in a body of bodyLen bytes of which p is the beginning:
// it is the last mainLen bytes. It checks the layout as DecodeXLogRecord does; false
// means that the parts do not add up, or that p is too short to tell.
func mainData(p []byte, bodyLen uint32) (mainLen uint32, ok bool) {
	le := binary.LittleEndian
	var data uint64 // what the headers so far claim for block data, images and main data
	pos, lastBlock, haveRel := 0, -1, false
	for uint64(bodyLen) > uint64(pos)+data {
		if pos == len(p) {
			return 0, false
		}
		id := p[pos]
		pos++
		switch {
		case id <= maxBlockID:
			n, size, rel := blockHeader(p[pos:])
			if n == 0 || int(id) <= lastBlock || !rel && !haveRel {
				return 0, false
			}
			pos, data, lastBlock, haveRel = pos+n, data+size, int(id), true
		case id == idDataShort && len(p)-pos >= 1:
			n := uint32(p[pos])
			return n, uint64(bodyLen) == uint64(pos)+1+data+uint64(n)
		case id == idDataLong && len(p)-pos >= 4:
			n := le.Uint32(p[pos:])
			return n, uint64(bodyLen) == uint64(pos)+4+data+uint64(n)
		case id == idOrigin && len(p)-pos >= 2:
			pos += 2
		case id == idTopLevelXID && len(p)-pos >= 4:
			pos += 4
		default:
			return 0, false
		}
	}
	return 0, uint64(bodyLen) == uint64(pos)+data
}

// blockHeader reads an XLogRecordBlockHeader behind its id: its length, 0 if it is
// impossible, how much data and image it announces, and whether it names a relation
// rather than meaning that of the block before.
func blockHeader(p []byte) (n int, data uint64, rel bool) {
	le := binary.LittleEndian
	if len(p) < 3 {
		return 0, 0, false
	}
	flags := p[0]
	data = uint64(le.Uint16(p[1:]))
	if (flags&blockHasData != 0) != (data > 0) {
		return 0, 0, false
	}
	n = 3
	if flags&blockHasImage != 0 {
		if len(p) < n+5 {
			return 0, 0, false
		}
		data += uint64(le.Uint16(p[n:]))
		if info := p[n+4]; info&imageHasHole != 0 && info&imageCompressed != 0 {
			n += 2 // length of the hole
		}
		n += 5
	}
	if rel = flags&blockSameRel == 0; rel {
		n += 12
	}
	n += 4 // block number
	if len(p) < n {
		return 0, 0, false
	}
	return n, data, rel
}
