package walrecord

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"lifeboat/internal/pg"
)

// builder writes WAL as PostgreSQL does, for what a real server cannot be brought to
// write at will: any record at any position.
type builder struct {
	magic    uint16
	sysid    uint64
	timeline pg.Timeline
	segSize  pg.SegmentSize

	segments map[uint64][]byte
	at       pg.LSN // where the next byte goes
	prev     pg.LSN
}

const testSystemID = 7000000000000000042

func newBuilder(segSize pg.SegmentSize, start pg.LSN) *builder {
	return &builder{magic: 0xD110, sysid: testSystemID, timeline: 1, segSize: segSize, segments: map[uint64][]byte{}, at: start}
}

// page is the page that holds lsn, with its header; new pages get info and remaining.
func (b *builder) page(lsn pg.LSN, info uint16, remaining uint32) []byte {
	n := uint64(lsn) / uint64(b.segSize)
	seg := b.segments[n]
	if seg == nil {
		seg = make([]byte, b.segSize)
		b.segments[n] = seg
	}
	off := b.segSize.Offset(lsn) &^ (PageSize - 1)
	p := seg[off : off+PageSize]
	if p[0] != 0 {
		return p
	}
	le := binary.LittleEndian
	if off == 0 {
		info |= pageLongHeader
		le.PutUint64(p[24:], b.sysid)
		le.PutUint32(p[32:], uint32(b.segSize))
		le.PutUint32(p[36:], PageSize)
	}
	le.PutUint16(p, b.magic)
	le.PutUint16(p[2:], info)
	le.PutUint32(p[4:], uint32(b.timeline))
	le.PutUint64(p[8:], uint64(lsn&^(PageSize-1)))
	le.PutUint32(p[16:], remaining)
	return p
}

// write lays bytes from b.at on, past page headers. A page that is begun within a
// record says how much of it is to come.
func (b *builder) write(p []byte) {
	for first := true; len(p) > 0; first = false {
		var info uint16
		var remaining uint32
		if !first {
			info, remaining = pageFirstIsContrecord, uint32(len(p))
		}
		page := b.page(b.at, info, remaining)
		if b.at%PageSize == 0 {
			b.at += pg.LSN(parsePageHeader(page).size())
		}
		n := copy(page[b.at%PageSize:], p)
		p = p[n:]
		b.at += pg.LSN(n)
	}
}

// body joins block headers, the header of the main data, block data and main data.
func body(blocks, blockData, main []byte) []byte {
	out := append([]byte(nil), blocks...)
	switch {
	case len(main) > 255:
		out = append(out, idDataLong)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(main)))
	case len(main) > 0:
		out = append(out, idDataShort, byte(len(main)))
	}
	return append(append(out, blockData...), main...)
}

// record writes a record with a right CRC and returns its position.
func (b *builder) record(rmgr Rmgr, info uint8, xid uint32, body []byte) pg.LSN {
	rec := make([]byte, recordHeader+len(body))
	le := binary.LittleEndian
	le.PutUint32(rec, uint32(len(rec)))
	le.PutUint32(rec[4:], xid)
	le.PutUint64(rec[8:], uint64(b.prev))
	rec[16], rec[17] = info, byte(rmgr)
	copy(rec[recordHeader:], body)
	le.PutUint32(rec[20:], crc32.Update(crc32.Checksum(body, castagnoli), castagnoli, rec[:20]))
	if b.at%PageSize == 0 {
		b.at += pg.LSN(parsePageHeader(b.page(b.at, 0, 0)).size())
	}
	lsn := b.at
	b.write(rec)
	b.at = (b.at + 7) &^ 7
	b.prev = lsn
	return lsn
}

// fill writes records that tell nothing until the next one would begin at lsn.
func (b *builder) fill(t testing.TB, lsn pg.LSN) {
	t.Helper()
	b.page(b.at, 0, 0)
	for b.at != lsn {
		if b.at%PageSize == 0 {
			b.at += pg.LSN(parsePageHeader(b.page(b.at, 0, 0)).size())
			continue
		}
		end := b.at&^(PageSize-1) + PageSize
		room := min(end, lsn) - b.at
		if lsn < b.at || room < recordHeader {
			t.Fatalf("cannot fill from %s to %s", b.at, lsn)
		}
		if room > 4096 { // leave enough that the rest is never too small for a record
			room = 2048
		}
		n := int(room) - recordHeader - 2
		if n < 0 {
			b.record(RmgrXLOG, 0x20, 0, nil) // 24 bytes of NOOP
			continue
		}
		if n > 255 {
			n -= 3
		}
		b.record(RmgrXLOG, 0x20, 0, body(nil, nil, make([]byte, n)))
	}
}

// open gives the built segments to a Reader.
func (b *builder) open() OpenFunc {
	return func(_ context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
		seg, ok := b.segments[n]
		if !ok {
			return 0, nil, ErrNoSegment
		}
		return b.timeline, io.NopCloser(bytes.NewReader(seg)), nil
	}
}

func (b *builder) reader(t testing.TB, start pg.LSN) *Reader {
	t.Helper()
	r, err := NewReader(Options{Open: b.open(), SegmentSize: b.segSize, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (b *builder) facts(t testing.TB, n uint64) *Facts {
	t.Helper()
	f, err := ScanFacts(t.Context(), bytes.NewReader(b.segments[n]), int64(b.segSize))
	if err != nil {
		t.Fatal(err)
	}
	return viaJSON(t, f)
}

// xactMain is the main data of a commit or abort record that ends a prepared
// transaction, with lists of the given lengths before the xid.
func xactMain(ts pg.Timestamp, twoPhase uint32, subxacts, rels, stats, invals int, major int) []byte {
	le := binary.LittleEndian
	out := le.AppendUint64(nil, uint64(ts))
	flags := uint32(xinfoHasDBInfo | xinfoHasTwoPhase)
	statSize := 12
	if major >= 18 {
		statSize = 16
	}
	lists := []struct {
		flag    uint32
		n, size int
	}{{xinfoHasSubxacts, subxacts, 4}, {xinfoHasRelfiles, rels, 12}, {xinfoHasDroppedStats, stats, statSize}, {xinfoHasInvals, invals, 16}}
	for _, l := range lists {
		if l.n > 0 {
			flags |= l.flag
		}
	}
	out = le.AppendUint32(out, flags)
	out = append(out, make([]byte, 8)...)
	for _, l := range lists {
		if l.n > 0 {
			out = le.AppendUint32(out, uint32(l.n))
			out = append(out, bytes.Repeat([]byte{0xEE}, l.n*l.size)...)
		}
	}
	return le.AppendUint32(out, twoPhase)
}

func commitMain(ts pg.Timestamp) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(ts)) }

func restorePointMain(ts pg.Timestamp, name string) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(ts))
	return append(out, append([]byte(name), make([]byte, 64-len(name))...)...)
}
