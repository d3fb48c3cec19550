package walrecord

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/pg"
)

const mib = pg.LSN(pg.MinSegmentSize)

// twoSegments is a small WAL: records of many sizes over segments 3 and 4, ending in 4.
func twoSegments(t testing.TB) (*builder, []pg.LSN) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	var starts []pg.LSN
	for i := 0; b.at < 4*mib+100_000; i++ {
		n := []int{8, 50, 300, 20_000, 0, 100_000, 120}[i%7]
		if i%3 == 0 {
			starts = append(starts, b.record(RmgrXact, xactCommit, uint32(i), body(nil, nil, commitMain(pg.Timestamp(i)))))
		}
		starts = append(starts, b.record(RmgrXLOG, 0x20, 0, body(nil, nil, bytes.Repeat([]byte{byte(i)}, n))))
	}
	return b, starts
}

// readAll reads to the end, which must be an EndOfWAL.
func readAll(t testing.TB, r *Reader) ([]pg.LSN, *EndOfWAL) {
	t.Helper()
	var starts []pg.LSN
	for {
		rec, err := r.Next(t.Context())
		var end *EndOfWAL
		if errors.As(err, &end) {
			if _, again := r.Next(t.Context()); !errors.Is(again, err) {
				t.Errorf("after the end: %v, then %v", err, again)
			}
			return starts, end
		}
		if err != nil {
			t.Fatal(err)
		}
		starts = append(starts, rec.LSN)
	}
}

func TestReader_StartsAnywhere(t *testing.T) {
	b, starts := twoSegments(t)
	for start := 3 * mib; start < b.at; start += 997 {
		from, _ := slices.BinarySearch(starts, start)
		got, end := readAll(t, b.reader(t, start))
		if !slices.Equal(got, starts[from:]) || end.LSN != b.at || end.Reason != ZeroLength {
			t.Fatalf("from %s: %d records, first %v, end %v; want %d from %s, end %s", start, len(got), got[:min(1, len(got))], end, len(starts)-from, starts[from], b.at)
		}
	}
	for _, lsn := range starts {
		if rec, err := b.reader(t, lsn).Next(t.Context()); err != nil || rec.LSN != lsn {
			t.Fatalf("from %s: %s, %v", lsn, rec.LSN, err)
		}
	}
}

func TestReader_EndOfWAL(t *testing.T) {
	le := binary.LittleEndian
	at := func(b *builder, lsn pg.LSN) []byte {
		return b.segments[uint64(lsn/mib)][lsn%mib:]
	}
	b0, starts := twoSegments(t)
	spanning, inside, last := pg.LSN(0), pg.LSN(0), starts[len(starts)-1]
	for i, lsn := range starts[50:] {
		next := starts[51+i]
		if spanning == 0 && next-lsn > 2*PageSize && lsn/PageSize != next/PageSize {
			spanning = lsn
		}
		if inside == 0 && lsn/PageSize == (next-1)/PageSize && next-lsn > 40 {
			inside = lsn
		}
		if spanning != 0 && inside != 0 {
			break
		}
	}
	page := spanning&^(PageSize-1) + PageSize // on which spanning goes on
	plain := b0.at&^(PageSize-1) + PageSize   // behind the end
	tests := []struct {
		name   string
		damage func(b *builder)
		reason Reason
		lsn    pg.LSN
	}{
		{"nothing", func(b *builder) {}, ZeroLength, b0.at},
		{"no segment 4", func(b *builder) { delete(b.segments, 4) }, NoMoreSegments, starts[slices.IndexFunc(starts, func(l pg.LSN) bool { return l >= 4*mib })-1]},
		{"zero record", func(b *builder) { clear(at(b, inside)[:24]) }, ZeroLength, inside},
		{"length 23", func(b *builder) { le.PutUint32(at(b, inside), 23) }, BadLength, inside},
		{"length 4 GiB", func(b *builder) { le.PutUint32(at(b, inside), 1<<32-1) }, "", inside},
		{"body", func(b *builder) { at(b, inside)[30] ^= 1 }, BadCRC, inside},
		{"body, other page", func(b *builder) { at(b, page)[100] ^= 1 }, BadCRC, spanning},
		{"xid", func(b *builder) { at(b, inside)[5] ^= 1 }, BadCRC, inside},
		{"crc", func(b *builder) { at(b, inside)[20] ^= 1 }, BadCRC, inside},
		{"prev", func(b *builder) { at(b, inside)[9] ^= 1 }, BadPrev, inside},
		{"prev, of the first record read", func(b *builder) {
			b.fill(t, plain)
			b.prev = 5 * mib
			b.record(RmgrXLOG, 0x20, 0, nil)
		}, BadPrev, plain + shortPageHeader},
		{"rmgr", func(b *builder) { at(b, inside)[17] = 22 }, BadRmgr, inside},
		{"magic", func(b *builder) { at(b, page)[0]++ }, BadPageMagic, spanning},
		{"magic of another version", func(b *builder) { le.PutUint16(at(b, page), 0xD118) }, BadPageMagic, spanning},
		{"flags", func(b *builder) { at(b, page)[2] |= 0x10 }, BadPageHeader, spanning},
		{"zero page", func(b *builder) { clear(at(b, page)[:PageSize]) }, ZeroPage, spanning},
		{"address", func(b *builder) { at(b, page)[9]++ }, BadPageAddress, spanning},
		{"timeline beyond the file's", func(b *builder) { at(b, page)[4] = 2 }, BadTimeline, spanning},
		{"timeline back", func(b *builder) { at(b, page)[4] = 0 }, BadTimeline, spanning},
		{"no contrecord", func(b *builder) { at(b, page)[2] = 0 }, MissingContrecord, spanning},
		{"contrecord length", func(b *builder) { at(b, page)[16]++ }, BadContrecordLength, spanning},
		{"system identifier", func(b *builder) { at(b, 4*mib)[24]++ }, BadSystemID, 0},
		{"segment size", func(b *builder) { at(b, 4*mib)[34]++ }, BadPageHeader, 0},
		{"block size", func(b *builder) { at(b, 4*mib)[37]++ }, BadPageHeader, 0},
		{"short header in a first page", func(b *builder) { at(b, 4*mib)[2] &^= pageLongHeader }, BadPageHeader, 0},
		{"stray contrecord", func(b *builder) {
			b.fill(t, plain)
			b.page(plain, pageFirstIsContrecord, 8)
		}, StrayContrecord, plain},
		{"timeline of a new page", func(b *builder) {
			b.fill(t, plain)
			b.timeline = 0
			b.page(plain, 0, 0)
			b.timeline = 1
		}, BadTimeline, plain},
		{"nothing behind a full page", func(b *builder) { b.fill(t, plain) }, ZeroPage, plain},
		{"short file", func(b *builder) { b.segments[4] = b.segments[4][:last%mib+20] }, ShortSegment, last},
		{"short file at a record's end", func(b *builder) { b.segments[4] = b.segments[4][:b.at%mib] }, ShortSegment, b0.at},
		{"short file at a page's end", func(b *builder) { b.segments[4] = b.segments[4][:PageSize] }, ShortSegment, 0},
		{"empty file", func(b *builder) { b.segments[4] = nil }, ShortSegment, 0},
		{"layout", func(b *builder) { b.record(RmgrXLOG, 0x20, 0, []byte{200, 1, 2}) }, BadRecord, b0.at},
		{"layout of a long record", func(b *builder) { b.record(RmgrXLOG, 0x20, 0, bytes.Repeat([]byte{200}, 100_000)) }, BadRecord, b0.at},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, _ := twoSegments(t)
			test.damage(b)
			start := starts[50]
			if strings.Contains(test.name, "first record read") {
				start = plain
			}
			got, end := readAll(t, b.reader(t, start))
			if test.reason != "" && end.Reason != test.reason {
				t.Errorf("%v, want %s", end, test.reason)
			}
			if test.lsn != 0 && end.LSN != test.lsn {
				t.Errorf("%v, want it at %s", end, test.lsn)
			}
			n, _ := slices.BinarySearch(starts, end.LSN)
			if want := starts[50:n]; start == starts[50] && !slices.Equal(got[:min(len(got), len(want))], want) {
				t.Errorf("%d records before %s, want %d", len(got), end.LSN, len(want))
			}
			if !strings.Contains(end.Error(), end.LSN.String()) || !strings.Contains(end.Error(), string(end.Reason)) {
				t.Errorf("message %q", end.Error())
			}
			if want := test.reason == ZeroLength || test.reason == ZeroPage || test.reason == NoMoreSegments; test.reason != "" && end.Unwritten() != want {
				t.Errorf("%s: unwritten %v", end.Reason, end.Unwritten())
			}
		})
	}
}

func TestMainData(t *testing.T) {
	block := func(id, flags byte, data uint16, rest int) []byte {
		return append([]byte{id, flags, byte(data), byte(data >> 8)}, make([]byte, rest)...)
	}
	image := func(info byte, n int) []byte { return append([]byte{50, 0, 0, 0, info}, make([]byte, n)...) }
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	const rel, blk = 12, 4
	tests := []struct {
		name string
		body []byte
		main int // -1: impossible
	}{
		{"nothing", nil, 0},
		{"short main", cat([]byte{idDataShort, 3}, make([]byte, 3)), 3},
		{"long main", cat([]byte{idDataLong, 0, 1, 0, 0}, make([]byte, 256)), 256},
		{"main of nothing", []byte{idDataShort, 0}, 0},
		{"block", cat(block(0, 0, 0, rel+blk)), 0},
		{"block and main", cat(block(0, 0, 0, rel+blk), []byte{idDataShort, 2, 1, 2}), 2},
		{"block data", cat(block(0, blockHasData, 7, rel+blk), make([]byte, 7)), 0},
		{"same relation", cat(block(0, 0, 0, rel+blk), block(1, blockSameRel, 0, blk)), 0},
		{"image", cat(block(0, blockHasImage, 0, 0), image(imageHasHole, rel+blk), make([]byte, 50)), 0},
		{"compressed image", cat(block(0, blockHasImage, 0, 0), image(imageHasHole|4, 2+rel+blk), make([]byte, 50)), 0},
		{"compressed image without a hole", cat(block(0, blockHasImage, 0, 0), image(4, rel+blk), make([]byte, 50)), 0},
		{"origin and top-level transaction", cat([]byte{idOrigin, 1, 2, idTopLevelXID, 1, 2, 3, 4, idDataShort, 1, 9}), 1},
		{"data without the flag", cat(block(0, 0, 7, rel+blk), make([]byte, 7)), -1},
		{"flag without data", cat(block(0, blockHasData, 0, rel+blk)), -1},
		{"same relation as none", cat(block(0, blockSameRel, 0, blk)), -1},
		{"blocks out of order", cat(block(1, 0, 0, rel+blk), block(1, blockSameRel, 0, blk)), -1},
		{"block 33", cat(block(33, 0, 0, rel+blk)), -1},
		{"cut block", block(0, 0, 0, rel+blk-1), -1},
		{"cut image", cat(block(0, blockHasImage, 0, 4)), -1},
		{"too little data", cat(block(0, blockHasData, 7, rel+blk), make([]byte, 6)), -1},
		{"too much main", cat([]byte{idDataShort, 3}, make([]byte, 4)), -1},
		{"too little main", cat([]byte{idDataLong, 0, 1, 0, 0}, make([]byte, 255)), -1},
		{"main of 4 GiB", cat([]byte{idDataLong, 255, 255, 255, 255}, make([]byte, 255)), -1},
		{"cut long header", []byte{idDataLong, 0, 1}, -1},
		{"cut origin", []byte{idOrigin, 1}, -1},
		{"cut transaction", []byte{idTopLevelXID, 1, 2, 3}, -1},
	}
	for _, test := range tests {
		n, ok := mainData(test.body, uint32(len(test.body)))
		if ok != (test.main >= 0) || ok && int(n) != test.main {
			t.Errorf("%s: %d, %v; want %d", test.name, n, ok, test.main)
		}
	}
}

// A system identifier that is asked for is checked from the first page on.
func TestReader_ChecksSystemID(t *testing.T) {
	b, _ := twoSegments(t)
	for id, ok := range map[pg.SystemID]bool{0: true, testSystemID: true, 1: false} {
		r, err := NewReader(Options{Open: b.open(), SegmentSize: b.segSize, Start: 3 * mib, SystemID: id})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Next(t.Context())
		var end *EndOfWAL
		if ok && (err != nil || r.SystemID() != testSystemID) || !ok && (!errors.As(err, &end) || end.Reason != BadSystemID) {
			t.Errorf("asked for %d: %v, reader says %s", id, err, r.SystemID())
		}
		r.Close()
	}
}

// No turned bit in a record goes unseen; in page headers only where nothing is told.
func TestReader_SeesEveryTurnedBit(t *testing.T) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	for i := range 25 {
		b.record(RmgrXLOG, 0x20, 0, body(nil, nil, bytes.Repeat([]byte{byte(i)}, 803))) // no padding behind it
	}
	seg := b.segments[3]
	intact, _ := readAll(t, b.reader(t, 3*mib))
	unseen := 0
	for bit := 0; bit < int(b.at-3*mib)*8; bit += 11 {
		seg[bit/8] ^= 1 << (bit % 8)
		got, end := readAll(t, b.reader(t, 3*mib))
		if slices.Equal(got, intact) && end.LSN == b.at {
			inPage := bit / 8 % PageSize
			switch {
			case inPage >= 20 && inPage < 24: // padding of the header
			case inPage == 2: // XLP_BKP_REMOVABLE, and flags of a page on which no record goes on
			case inPage >= 16 && inPage < 20 && bit/8 < PageSize: // xlp_rem_len without a contrecord
			case inPage >= 24 && inPage < 32 && bit/8 < PageSize: // the system identifier: any will do here
			default:
				t.Errorf("bit %d of byte %d was turned: not seen", bit%8, bit/8)
			}
			unseen++
		}
		seg[bit/8] ^= 1 << (bit % 8)
	}
	t.Logf("%d of %d turned bits tell nothing", unseen, int(b.at-3*mib)*8/11)
}

func TestReader_PassesOnSourceErrors(t *testing.T) {
	b, _ := twoSegments(t)
	broken := errors.New("the line is down")
	t.Run("open", func(t *testing.T) {
		r, err := NewReader(Options{SegmentSize: b.segSize, Start: 3 * mib, Open: func(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
			if n == 4 {
				return 0, nil, broken
			}
			return b.open()(ctx, n)
		}})
		if err != nil {
			t.Fatal(err)
		}
		checkFails(t, r, broken)
	})
	t.Run("read", func(t *testing.T) {
		opened, closed := 0, 0
		r, err := NewReader(Options{SegmentSize: b.segSize, Start: 3 * mib, Open: func(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
			opened++
			src := io.MultiReader(bytes.NewReader(b.segments[n][:500_001]), errReader{broken})
			return 0, closer{src, func() { closed++ }}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		checkFails(t, r, broken)
		if err := r.Close(); err != nil || opened != 1 || closed != 1 {
			t.Errorf("close: %v; opened %d, closed %d", err, opened, closed)
		}
		if _, err := r.Next(t.Context()); err == nil {
			t.Error("a closed reader reads")
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := b.reader(t, 3*mib)
		if _, err := r.Next(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		for {
			_, err := r.Next(ctx)
			if err == nil {
				continue
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			break
		}
		if _, err := ScanFacts(ctx, bytes.NewReader(b.segments[3]), int64(mib)); !errors.Is(err, context.Canceled) {
			t.Errorf("ScanFacts: %v", err)
		}
	})
	t.Run("scan", func(t *testing.T) {
		for _, n := range []int{0, 10, 40, 700_000} {
			src := io.MultiReader(bytes.NewReader(b.segments[3][:n]), errReader{broken})
			if f, err := ScanFacts(t.Context(), src, int64(mib)); !errors.Is(err, broken) {
				t.Errorf("after %d bytes: %+v, %v", n, f, err)
			}
		}
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type closer struct {
	io.Reader
	onClose func()
}

func (c closer) Close() error { c.onClose(); return nil }

func checkFails(t *testing.T, r *Reader, want error) {
	t.Helper()
	for {
		_, err := r.Next(t.Context())
		var end *EndOfWAL
		if err == nil {
			continue
		}
		if !errors.Is(err, want) || errors.As(err, &end) {
			t.Errorf("%v, want %v and no end of WAL", err, want)
		}
		return
	}
}

func TestNewReader_Refuses(t *testing.T) {
	if _, err := NewReader(Options{SegmentSize: 5, Open: newBuilder(1, 0).open()}); !errors.Is(err, pg.ErrSegmentSize) {
		t.Errorf("segment size 5: %v", err)
	}
	if _, err := NewReader(Options{SegmentSize: pg.DefaultSegmentSize}); err == nil {
		t.Error("no source: no error")
	}
}

// endlessRecord gives segments that hold nothing but the rest of one enormous record.
type endlessRecord struct {
	at, start, total uint64
	page             [PageSize]byte
}

func (e *endlessRecord) Read(p []byte) (int, error) {
	if e.at%PageSize == 0 {
		b := newBuilder(pg.MaxSegmentSize, 0)
		hdr := shortPageHeader
		if e.at%uint64(pg.MaxSegmentSize) == 0 {
			hdr = longPageHeader
		}
		clear(e.page[:])
		le := binary.LittleEndian
		le.PutUint16(e.page[:], b.magic)
		le.PutUint32(e.page[4:], 1)
		le.PutUint64(e.page[8:], e.at)
		if hdr == longPageHeader {
			le.PutUint16(e.page[2:], pageLongHeader)
			le.PutUint64(e.page[24:], b.sysid)
			le.PutUint32(e.page[32:], uint32(pg.MaxSegmentSize))
			le.PutUint32(e.page[36:], PageSize)
		}
		if e.at == e.start {
			le.PutUint32(e.page[hdr:], uint32(e.total))
			e.page[hdr+17] = byte(RmgrXact)
			e.page[hdr+24] = idDataLong
			le.PutUint32(e.page[hdr+25:], uint32(e.total)-24-5)
			e.total -= PageSize - uint64(hdr)
		} else {
			e.page[2] |= pageFirstIsContrecord
			le.PutUint32(e.page[16:], uint32(e.total))
			e.total -= min(e.total, PageSize-uint64(hdr))
		}
	}
	n := copy(p, e.page[e.at%PageSize:])
	e.at += uint64(n)
	return n, nil
}

// A record of nearly 1 GiB, the most that PostgreSQL writes, costs no memory.
func TestReader_MemoryIsBounded(t *testing.T) {
	const start = uint64(pg.MaxSegmentSize)
	open := func(_ context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
		return 1, io.NopCloser(&endlessRecord{at: start, start: start, total: 1020 << 20}), nil
	}
	r, err := NewReader(Options{Open: open, SegmentSize: pg.MaxSegmentSize, Start: pg.LSN(start)})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = r.Next(t.Context())
	runtime.ReadMemStats(&after)
	var end *EndOfWAL
	if !errors.As(err, &end) || end.Reason != BadCRC {
		t.Errorf("%v, want a bad CRC after 1020 MiB", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}

func TestRmgr_Names(t *testing.T) {
	for r, want := range map[Rmgr]string{0: "XLOG", 1: "Transaction", 5: "Tablespace", 21: "LogicalMessage", 22: "UNKNOWN (22)", 127: "UNKNOWN (127)", 128: "custom128"} {
		if got := r.String(); got != want || r.Valid() != !strings.HasPrefix(want, "UNKNOWN") {
			t.Errorf("%d: %s, valid %v", uint8(r), got, r.Valid())
		}
	}
}

func ExampleReader() {
	r, err := NewReader(Options{
		SegmentSize: pg.DefaultSegmentSize,
		Start:       0x3000028,
		Open: func(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
			return 1, nil, ErrNoSegment // open the segment's object, or its file in pg_wal
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	for {
		rec, err := r.Next(context.Background())
		var end *EndOfWAL
		if errors.As(err, &end) {
			fmt.Println(end.LSN, end.Reason) // is that where WAL should end?
			return
		}
		if err != nil {
			fmt.Println(err) // the source failed: nothing is known
			return
		}
		if ev, err := Decode(&rec); err == nil && ev.Transaction != nil {
			fmt.Println(ev.Transaction.XID, ev.Transaction.Time)
		}
	}
	// Output: 0/3000028 noMoreSegments
}
