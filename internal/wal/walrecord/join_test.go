package walrecord

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"

	"lifeboat/internal/pg"
)

func TestCRCShift(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 7, 8, 100, 8192, 1<<20 + 3} {
		a, b := make([]byte, 77), make([]byte, n)
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		want := crc32.Checksum(append(bytes.Clone(a), b...), castagnoli)
		if got := crcShift(crc32.Checksum(a, castagnoli), uint32(n)) ^ crc32.Checksum(b, castagnoli); got != want {
			t.Errorf("%d bytes: %08X, want %08X", n, got, want)
		}
	}
}

// crossingRecords are records of every kind that carries a fact, and some sizes.
func crossingRecords() map[string]struct {
	rmgr Rmgr
	info uint8
	body []byte
} {
	type rec = struct {
		rmgr Rmgr
		info uint8
		body []byte
	}
	blocks := make([]byte, 1+3+12+4)
	blocks[1] = blockHasData
	blocks[2] = 100
	return map[string]rec{
		"commit":          {RmgrXact, xactCommit, body(nil, nil, commitMain(4711))},
		"abort":           {RmgrXact, xactAbort, body([]byte{idOrigin, 1, 0}, nil, commitMain(4712))},
		"prepared commit": {RmgrXact, xactCommitPrepared | xactHasInfo, body(nil, nil, xactMain(4713, 99, 3, 2, 4, 5, 15))},
		"restore point":   {RmgrXLOG, xlogRestorePoint, body(nil, nil, restorePointMain(4714, "here"))},
		"backup end":      {RmgrXLOG, xlogBackupEnd, body(nil, nil, commitMain(4715))},
		"tablespace":      {RmgrTablespace, tablespaceCreate, body(nil, nil, append([]byte{1, 2, 3, 0}, "/a/b\x00"...))},
		"checkpoint":      {RmgrXLOG, xlogCheckpointOnline, body(nil, nil, make([]byte, 88))},
		"no fact":         {10, 0, body(blocks, make([]byte, 100), make([]byte, 10))},
		"full page":       {RmgrXLOG, 0xB0, body(blocks, make([]byte, 100), make([]byte, 9000))},
		"9 KB commit":     {RmgrXact, xactCommitPrepared | xactHasInfo, body(nil, nil, xactMain(4716, 98, 2300, 0, 0, 0, 15))},
	}
}

// A record of every kind, cut at every place where a segment may cut it, gives the
// same event joined as read.
func TestJoin_AtEveryCut(t *testing.T) {
	const size = pg.MinSegmentSize
	for name, c := range crossingRecords() {
		t.Run(name, func(t *testing.T) {
			total := recordHeader + len(c.body)
			step := 8
			if total > 1000 {
				step = 8 * 37
			}
			for cut := 8; cut < total; cut += step {
				b := newBuilder(size, 3*pg.LSN(size))
				// A record of more than a page needs room for page headers.
				start := 4*pg.LSN(size) - pg.LSN(cut) - pg.LSN(cut/(PageSize-shortPageHeader))*shortPageHeader
				b.fill(t, start)
				lsn := b.record(c.rmgr, c.info, 55, c.body)
				after := b.record(RmgrXact, xactCommit, 56, body(nil, nil, commitMain(1)))
				rec, err := b.reader(t, lsn).Next(t.Context())
				if err != nil || rec.LSN != lsn {
					t.Fatalf("cut at %d: read %+v, %v", cut, rec, err)
				}
				want, err := Decode(&rec)
				if err != nil {
					t.Fatal(err)
				}
				f, g := b.facts(t, 3), b.facts(t, 4)
				if f.Tail == nil || f.Tail.LSN != lsn || f.Stop != nil || g.FirstRecordLSN != after {
					t.Fatalf("cut at %d: tail %+v, stop %v, next record %s", cut, f.Tail, f.Stop, g.FirstRecordLSN)
				}
				got, err := Join(f.Tail, g.Head)
				if cut > MaxPiece || total-cut > MaxPiece { // the xid, at the very end, is not among what is kept
					if tx := want.Transaction; tx != nil {
						want.Transaction = &Transaction{Time: tx.Time, LSN: tx.LSN, Abort: tx.Abort, XIDUnknown: true}
					}
				}
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("cut at %d: joined %s %+v, %v; read %s %+v", cut, describe(&got), got, err, describe(&want), want)
				}
				if name != "no fact" && name != "full page" && describe(&got) == "" {
					t.Fatalf("cut at %d: no event", cut)
				}
				if (name == "no fact" || name == "full page") && len(f.Tail.Bytes) > recordHeader {
					t.Fatalf("cut at %d: %d bytes of a record without a fact were kept", cut, len(f.Tail.Bytes))
				}
			}
		})
	}
}

// longRecord builds a record that is longer than segments of 1 MiB.
func longRecord(t *testing.T, before int) (*builder, Event) {
	t.Helper()
	const size = pg.MinSegmentSize
	b := newBuilder(size, 3*pg.LSN(size))
	b.fill(t, 4*pg.LSN(size)-pg.LSN(before))
	lsn := b.record(RmgrXact, xactCommitPrepared|xactHasInfo, 0, body(nil, nil, xactMain(4711, 99, 700_000, 0, 0, 0, 15)))
	b.record(RmgrXact, xactCommit, 56, body(nil, nil, commitMain(1)))
	rec, err := b.reader(t, lsn).Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Main) != MaxMain || rec.MainLen < 2_800_000 {
		t.Errorf("%d of %d bytes of main data are kept", len(rec.Main), rec.MainLen)
	}
	want, err := Decode(&rec)
	if err != nil || want.Transaction.XID != 99 || want.Transaction.XIDUnknown {
		t.Fatalf("read %+v, %v: the xid lies behind 2.8 MB of subtransactions", want.Transaction, err)
	}
	return b, want
}

func TestJoin_OverSeveralSegments(t *testing.T) {
	for _, before := range []int{8, 16, 24, 48, 8192 - shortPageHeader} {
		b, want := longRecord(t, before)
		var heads []*Head
		for n := uint64(4); n <= 6; n++ {
			f := b.facts(t, n)
			if f.Covers() != (n < 6) || (n < 6) != (f.Stop == nil) || f.Tail != nil || (n < 6) != (f.Records == 0) {
				t.Errorf("segment %d: covers %v, %d records, tail %v, stop %v", n, f.Covers(), f.Records, f.Tail, f.Stop)
			}
			heads = append(heads, f.Head)
		}
		tail := b.facts(t, 3).Tail
		got, err := Join(tail, heads...)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Transaction.XIDUnknown || got.Transaction.XID != 0 {
			t.Errorf("the xid was not kept, but is %d", got.Transaction.XID)
		}
		got.Transaction.XID, got.Transaction.XIDUnknown = want.Transaction.XID, false
		if !reflect.DeepEqual(got, want) {
			t.Errorf("joined %+v, want %+v", got.Transaction, want.Transaction)
		}
		for n := range heads {
			if _, err := Join(tail, heads[:n]...); n > 0 && !errors.Is(err, ErrUnfinished) || err == nil {
				t.Errorf("with %d of 3 parts: %v", n, err)
			}
		}
		for _, bad := range [][]*Head{{heads[0], heads[2]}, {heads[1], heads[0], heads[2]}, {heads[0], nil, heads[2]}, {heads[0], heads[1], heads[2], heads[2]}} {
			if _, err := Join(tail, bad...); !errors.Is(err, ErrMismatch) {
				t.Errorf("wrong parts: %v", err)
			}
		}
	}
}

// A switch that begins in one segment leaves the rest of the next one empty.
func TestJoin_OfASwitch(t *testing.T) {
	const size = pg.MinSegmentSize
	b := newBuilder(size, 3*pg.LSN(size))
	b.fill(t, 4*pg.LSN(size)-16)
	lsn := b.record(RmgrXLOG, xlogSwitch, 0, nil)
	end := b.at
	b.at = 5 * pg.LSN(size)
	next := b.record(RmgrXact, xactCommit, 7, body(nil, nil, commitMain(1)))
	r := b.reader(t, lsn)
	if rec, err := r.Next(t.Context()); err != nil || rec.LSN != lsn || rec.End != 5*pg.LSN(size) {
		t.Errorf("read %+v, %v", rec, err)
	}
	if rec, err := r.Next(t.Context()); err != nil || rec.LSN != next {
		t.Errorf("behind the switch: %+v, %v", rec, err)
	}
	f := b.facts(t, 4)
	if f.Stop == nil || !f.Stop.Unwritten() || f.Stop.LSN != end || f.Records != 0 {
		t.Errorf("the emptied segment: %d records, stop %v", f.Records, f.Stop)
	}
	if ev, err := Join(b.facts(t, 3).Tail, f.Head); err != nil || !ev.Switch || ev.LSN != lsn || ev.End != end {
		t.Errorf("joined %+v, %v", ev, err)
	}
}

// What was not kept is unknown, and never taken from the next part.
func TestJoin_DoesNotReadAcrossAGap(t *testing.T) {
	const size = pg.MinSegmentSize
	b := newBuilder(size, 3*pg.LSN(size))
	b.fill(t, 4*pg.LSN(size)-8)
	main := xactMain(4711, 99, 2500, 0, 0, 0, 15) // the xid is 10 kB behind the beginning
	main = append(main, bytes.Repeat([]byte{0x77}, 1_500_000)...)
	lsn := b.record(RmgrXact, xactCommitPrepared|xactHasInfo, 0, body(nil, nil, main))
	rec, err := b.reader(t, lsn).Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ev, err := Decode(&rec); err != nil || ev.Transaction.XID != 99 {
		t.Errorf("read %+v, %v", ev.Transaction, err)
	}
	ev, err := Join(b.facts(t, 3).Tail, b.facts(t, 4).Head, b.facts(t, 5).Head)
	if err != nil || ev.Transaction.Time != 4711 || ev.Transaction.XID != 0 || !ev.Transaction.XIDUnknown {
		t.Errorf("joined %+v, %v", ev.Transaction, err)
	}
}

// No change of any field of tail or head may give an event.
func TestJoin_RefusesDamage(t *testing.T) {
	const size = pg.MinSegmentSize
	for _, cut := range []int{8, 16, 24, 32, 104} {
		b := newBuilder(size, 3*pg.LSN(size))
		b.fill(t, 4*pg.LSN(size)-pg.LSN(cut))
		b.record(RmgrXact, xactCommitPrepared|xactHasInfo, 0, body(nil, nil, xactMain(4713, 99, 30, 2, 4, 5, 15)))
		tail, head := b.facts(t, 3).Tail, b.facts(t, 4).Head
		if _, err := Join(tail, head); err != nil {
			t.Fatal(err)
		}
		damages := map[string]func(*Tail, *Head){
			"total":         func(a *Tail, b *Head) { a.Total++ },
			"total, both":   func(a *Tail, b *Head) { a.Total++; b.Remaining++; b.Length++ },
			"lsn":           func(a *Tail, b *Head) { a.LSN = 8 },
			"prev":          func(a *Tail, b *Head) { a.Prev += 8 },
			"next":          func(a *Tail, b *Head) { a.Next += 8192 },
			"tail length":   func(a *Tail, b *Head) { a.Length++ },
			"length moved":  func(a *Tail, b *Head) { a.Length++; b.Length--; b.Remaining-- },
			"tail crc":      func(a *Tail, b *Head) { a.CRC ^= 1 },
			"no tail bytes": func(a *Tail, b *Head) { a.Bytes = nil },
			"head at":       func(a *Tail, b *Head) { b.At += 8192 },
			"remaining":     func(a *Tail, b *Head) { b.Remaining-- },
			"head crc":      func(a *Tail, b *Head) { b.CRC ^= 1 << 31 },
			"no head":       func(a *Tail, b *Head) { *b = Head{At: b.At} },
			"long tail":     func(a *Tail, b *Head) { a.Bytes = append(a.Bytes, 1) },
			"long head":     func(a *Tail, b *Head) { b.Bytes = append(b.Bytes, 1) },
			"header":        func(a *Tail, b *Head) { a.Bytes[4] ^= 1 },
		}
		for name, damage := range damages {
			a, h := *tail, *head
			a.Bytes, h.Bytes = bytes.Clone(tail.Bytes), bytes.Clone(head.Bytes)
			damage(&a, &h)
			if ev, err := Join(&a, &h); !errors.Is(err, ErrMismatch) {
				t.Errorf("cut at %d, %s changed: %s, %v", cut, name, describe(&ev), err)
			}
		}
		if _, err := Join(nil, head); !errors.Is(err, ErrMismatch) {
			t.Errorf("no tail: %v", err)
		}
		if _, err := Join(tail); !errors.Is(err, ErrMismatch) {
			t.Errorf("no head: %v", err)
		}
	}
}

// A crash between two pages of a record: PostgreSQL writes something else there.
func TestOverwrittenRecord(t *testing.T) {
	const size = pg.MinSegmentSize
	end := 4 * pg.LSN(size)
	for _, test := range []struct {
		name      string
		start     pg.LSN // of the record that is given up
		lostPages pg.LSN // where its rest is written over
	}{
		{"at the segment's end", end - 64, end},
		{"within a segment", end - 3*PageSize - 64, end - 3*PageSize},
		{"in the next segment", end - 64, end + PageSize},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBuilder(size, end-pg.LSN(size))
			b.fill(t, test.start)
			prev := b.prev
			lost := b.record(RmgrXact, xactCommit, 55, body(nil, nil, append(commitMain(4711), make([]byte, 20000)...)))
			// The server writes on at lostPages, as if the record had never been.
			for n, seg := range b.segments {
				if from := int64(test.lostPages) - int64(n)*int64(size); from < int64(size) {
					clear(seg[max(from, 0):])
				}
			}
			if test.lostPages == end {
				delete(b.segments, 4)
			}
			b.at, b.prev = test.lostPages, prev
			b.page(b.at, pageOverwritesContrec, 0)
			next := b.record(RmgrXLOG, 0xD0, 0, body(nil, nil, append(commitMain(pg.Timestamp(lost)), make([]byte, 8)...)))
			last := b.record(RmgrXact, xactCommit, 56, body(nil, nil, commitMain(4712)))

			r := b.reader(t, prev)
			for _, want := range []pg.LSN{prev, next, last} {
				if rec, err := r.Next(t.Context()); err != nil || rec.LSN != want {
					t.Fatalf("read %s, %v; want %s", rec.LSN, err, want)
				}
			}
			commits := uint64(0)
			for n := range b.segments {
				commits += b.facts(t, n).Commits
			}
			if commits != 1 {
				t.Errorf("facts count %d commits, want the one behind the lost one", commits)
			}
			if f := b.facts(t, 3); f.Tail != nil {
				if ev, err := Join(f.Tail, b.facts(t, 4).Head); !errors.Is(err, ErrOverwritten) {
					t.Errorf("joined %s, %v", describe(&ev), err)
				}
			} else if test.lostPages >= end {
				t.Error("no tail")
			}
		})
	}
}

func ExampleJoin() {
	var neighbours []*Facts // of successive segments, from their objects' headers
	for i, f := range neighbours {
		if f.Tail == nil {
			continue
		}
		var heads []*Head
		for _, next := range neighbours[i+1:] {
			heads = append(heads, next.Head)
			if !next.Covers() {
				break
			}
		}
		switch ev, err := Join(f.Tail, heads...); {
		case errors.Is(err, ErrOverwritten): // the record was given up: nothing is missed
		case err != nil: // a segment is missing or damaged
		case ev.Transaction != nil:
			fmt.Println("a commit or abort between two segments at", ev.LSN)
		}
	}
	// Output:
}
