package walrecord

import (
	"encoding/binary"
	"hash/crc32"

	"lifeboat/internal/pg"
)

// assembly collects a record that lies on more than one page. It keeps the header, the
// first bodyPrefix bytes of the body and the first MaxMain of the main data, and runs
// the CRC over the rest as it passes by.
type assembly struct {
	active   bool
	lsn      pg.LSN
	timeline pg.Timeline
	major    int
	total    uint32
	got      uint32
	head     [recordHeader]byte
	crc      uint32 // of the body so far

	body []byte // its beginning, up to bodyPrefix

	// For a body longer than bodyPrefix, once that much is there:
	laidOut bool
	broken  bool // the layout is impossible
	mainLen uint32
	main    []byte
	walk    *xactWalk
}

func (a *assembly) begin(lsn pg.LSN, tli pg.Timeline, major int, total uint32) {
	*a = assembly{active: true, lsn: lsn, timeline: tli, major: major, total: total, body: a.body[:0], main: a.main[:0]}
}

func (a *assembly) haveHeader() bool { return a.got >= recordHeader }

// add takes the next bytes of the record; the caller gives no more than are missing.
func (a *assembly) add(p []byte) {
	if a.got < recordHeader {
		n := copy(a.head[a.got:], p)
		a.got += uint32(n)
		p = p[n:]
	}
	if len(p) == 0 {
		return
	}
	at := a.got - recordHeader
	a.got += uint32(len(p))
	a.crc = crc32.Update(a.crc, castagnoli, p)
	if room := bodyPrefix - len(a.body); room > 0 {
		a.body = append(a.body, p[:min(room, len(p))]...)
	}
	if a.total-recordHeader <= bodyPrefix {
		return
	}
	if a.laidOut {
		a.capture(at, p)
	} else if len(a.body) == bodyPrefix {
		a.layOut(at, p)
	}
}

// layOut parses the layout from the full prefix, and goes through what was added so
// far: the prefix, and the end of p, which begins at position at, that lies behind it.
func (a *assembly) layOut(at uint32, p []byte) {
	a.laidOut = true
	var ok bool
	if a.mainLen, ok = mainData(a.body, a.total-recordHeader); !ok {
		a.broken = true
		return
	}
	var rec Record
	if a.setHeader(&rec); rec.Rmgr == RmgrXact && a.mainLen > MaxMain {
		a.walk = newXactWalk(rec.Info, a.major)
	}
	a.capture(0, a.body)
	a.capture(bodyPrefix, p[bodyPrefix-at:])
}

// capture keeps what of p, which begins at position at of the body, is main data.
func (a *assembly) capture(at uint32, p []byte) {
	start := a.total - recordHeader - a.mainLen
	if skip := int64(start) - int64(at); skip > 0 {
		p = p[min(skip, int64(len(p))):]
	}
	if a.walk != nil {
		a.walk.feed(p)
	}
	if room := MaxMain - len(a.main); room > 0 {
		a.main = append(a.main, p[:min(room, len(p))]...)
	}
}

// setHeader makes of rec the record as far as the header goes, which must be there.
func (a *assembly) setHeader(rec *Record) (crc uint32) {
	rec.LSN, rec.Timeline, rec.Major = a.lsn, a.timeline, a.major
	return rec.setHeader(a.head[:])
}

// record makes of rec the complete record, or gives the reason why it is none.
func (a *assembly) record(rec *Record) Reason {
	if finishCRC(a.crc, a.head[:]) != a.setHeader(rec) {
		return BadCRC
	}
	if a.laidOut {
		rec.Main, rec.MainLen, rec.walk = a.main, a.mainLen, a.walk
		if a.broken {
			return BadRecord
		}
		return ""
	}
	if !rec.setMain(a.body) {
		return BadRecord
	}
	return ""
}

// total length of the record that begins at b, which holds at least 8 bytes.
func recordLength(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
