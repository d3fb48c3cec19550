package walrecord

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"lifeboat/internal/pg"
)

// FuzzFacts scans hostile bytes as a segment. The first page's header is made valid,
// since nothing else is looked at without it.
func FuzzFacts(f *testing.F) {
	b, _ := twoSegments(f)
	f.Add(b.segments[3][:PageSize+100], true)
	f.Add(b.segments[4][:2*PageSize], true)
	f.Add([]byte{}, false)
	addRealSegments(f)
	start := bytes.Clone(b.segments[3][:longPageHeader])
	f.Fuzz(func(t *testing.T, data []byte, repair bool) {
		if repair && len(data) >= longPageHeader {
			data = bytes.Clone(data)
			flags, remaining := data[2]&pageAllFlags, binary.LittleEndian.Uint32(data[16:])
			copy(data, start)
			data[2] = flags | pageLongHeader
			binary.LittleEndian.PutUint32(data[16:], remaining)
		}
		facts, err := ScanFacts(t.Context(), bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrNotSegment) {
				t.Fatalf("hostile bytes are no reason for another error: %v", err)
			}
			return
		}
		viaJSON(t, facts)
		if facts.LastRecordEnd > facts.StartLSN+pg.LSN(facts.SegmentSize) && facts.StartLSN+pg.LSN(facts.SegmentSize) != 0 {
			t.Fatalf("a record ends at %s, behind the segment at %s", facts.LastRecordEnd, facts.StartLSN)
		}
		if len(data) < int(facts.SegmentSize) && facts.Complete() && facts.SwitchLSN == 0 {
			t.Fatal("a short file is complete")
		}
		if facts.Tail != nil {
			if ev, err := Join(facts.Tail, facts.Head); err == nil {
				t.Fatalf("a segment was joined with itself: %+v", ev)
			}
		}
	})
}

// addRealSegments seeds with the beginnings of segments that real servers wrote.
func addRealSegments(f *testing.F) {
	files, err := filepath.Glob("testdata/*.wal")
	if err != nil || len(files) == 0 {
		f.Fatalf("no segments in testdata: %v", err)
	}
	for _, name := range files {
		seg, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seg, false)
	}
}

// FuzzReader lays records with hostile bodies, but right checksums, across segments.
// Reading them as one row, and segment by segment with joining, must tell the same.
func FuzzReader(f *testing.F) {
	seed := func(recs ...[]byte) {
		var out []byte
		for _, r := range recs {
			out = binary.LittleEndian.AppendUint16(out, uint16(len(r)))
			out = append(out, r...)
		}
		f.Add(out, uint16(400))
	}
	for _, c := range crossingRecords() {
		seed(append([]byte{byte(c.rmgr), c.info}, c.body...), append([]byte{byte(c.rmgr), c.info}, c.body...))
	}
	f.Fuzz(func(t *testing.T, data []byte, before uint16) {
		// The first record begins up to 64 KiB before the segment's end.
		b := newBuilder(pg.MinSegmentSize, 4*mib-(pg.LSN(before)|7)-1)
		b.page(3*mib, 0, 0) // its pages are zeroes up to there
		if b.at%PageSize < longPageHeader {
			b.at += longPageHeader
		}
		start := b.at
		b.prev = 3*mib + longPageHeader
		var lsns []pg.LSN
		for len(data) > 4 {
			n := min(int(binary.LittleEndian.Uint16(data)), len(data)-4)
			body := data[4 : 4+n]
			if data[3]&1 != 0 { // a long one
				body = append(bytes.Clone(body), make([]byte, int(data[3])<<9)...)
			}
			lsns = append(lsns, b.record(Rmgr(data[2]), data[3], 7, body))
			data = data[4+n:]
		}
		events, end := readEvents(t, b, start)
		if int(end.LSN-start) > 0 && len(events) > len(lsns) {
			t.Fatalf("%d records of %d", len(events), len(lsns))
		}
		for i, ev := range events {
			if ev.LSN != lsns[i] {
				t.Fatalf("record %d is at %s, read %s", i, lsns[i], ev.LSN)
			}
		}
		compareWithFacts(t, b, start, events, end)
	})
}

func readEvents(t *testing.T, b *builder, start pg.LSN) ([]Event, *EndOfWAL) {
	t.Helper()
	r := b.reader(t, start)
	var events []Event
	for {
		rec, err := r.Next(t.Context())
		var end *EndOfWAL
		if errors.As(err, &end) {
			return events, end
		}
		if err != nil {
			t.Fatal(err)
		}
		if int(rec.MainLen) < len(rec.Main) || rec.Length < rec.MainLen+recordHeader || len(rec.Main) > MaxMain {
			t.Fatalf("record of %d bytes with %d of %d bytes of main data", rec.Length, len(rec.Main), rec.MainLen)
		}
		ev, err := Decode(&rec)
		if err != nil {
			ev = Event{LSN: rec.LSN, End: rec.End}
		}
		events = append(events, ev)
	}
}

// compareWithFacts looks for the events that cross the end of segment 3.
func compareWithFacts(t *testing.T, b *builder, start pg.LSN, events []Event, end *EndOfWAL) {
	t.Helper()
	if b.segments[4] == nil || end.LSN < 4*mib {
		return
	}
	// Of segment 3 only the end was written; scan it from there as the Reader does.
	rd := b.reader(t, start)
	rd.opt.Open = func(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
		if n != 3 {
			return 0, nil, ErrNoSegment
		}
		return b.open()(ctx, n)
	}
	for {
		if _, err := rd.Next(t.Context()); err != nil {
			break
		}
	}
	if !rd.asm.active {
		return
	}
	tail := rd.asm.tail(rd.pageLSN, rd.magic, 0)
	var heads []*Head
	for n := uint64(4); b.segments[n] != nil; n++ {
		f := b.facts(t, n)
		heads = append(heads, f.Head)
		if !f.Covers() {
			break
		}
	}
	got, err := Join(viaJSON(t, tail), heads...)
	for _, want := range events {
		if want.LSN != tail.LSN {
			continue
		}
		if got.Transaction != nil && got.Transaction.XIDUnknown && want.Transaction != nil {
			got.Transaction.XID, got.Transaction.XIDUnknown = want.Transaction.XID, want.Transaction.XIDUnknown
		}
		if want.Switch {
			want.End = got.End // which segment that is a join does not know
		}
		if describe(&want) == "" && err != nil {
			return // no fact in it, or one that cannot be understood
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("joined %s %+v, %v; read %s %+v", describe(&got), got, err, describe(&want), want)
		}
		return
	}
}

// FuzzJoin joins parts as they come out of a repository that somebody else wrote.
func FuzzJoin(f *testing.F) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	b.fill(f, 4*mib-64)
	b.record(RmgrXact, xactCommitPrepared|xactHasInfo, 0, body(nil, nil, xactMain(4713, 99, 30, 2, 4, 5, 15)))
	for _, pair := range [][2]any{{b.facts(f, 3).Tail, []*Head{b.facts(f, 4).Head}}} {
		tail, _ := json.Marshal(pair[0])
		heads, _ := json.Marshal(pair[1])
		f.Add(tail, heads)
	}
	f.Fuzz(func(t *testing.T, tailJSON, headsJSON []byte) {
		var tail *Tail
		var heads []*Head
		if json.Unmarshal(tailJSON, &tail) != nil || json.Unmarshal(headsJSON, &heads) != nil {
			return
		}
		ev, err := Join(tail, heads...)
		if err == nil && ev.LSN != tail.LSN {
			t.Fatalf("joined at %s, the record is at %s", ev.LSN, tail.LSN)
		}
	})
}
