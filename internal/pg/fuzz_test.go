package pg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzControlFile reads hostile bytes as pg_control; with repair their checksum is made
// right, without which nothing else is looked at. The seeds are what initdb wrote.
func FuzzControlFile(f *testing.F) {
	files, err := filepath.Glob("testdata/pg_control.*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no control files in testdata: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := ParseControlFile(b); err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		f.Add(b, false, uint16(100))
		f.Add(b[:controlMinLen], true, uint16(0))
	}
	f.Add([]byte{}, false, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, repair bool, flip uint16) {
		at := 0
		if len(b) >= controlMinLen {
			at = controlCRCAt[binary.LittleEndian.Uint32(b[8:])]
		}
		if repair && at > 0 {
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], castagnoli))
		}
		c, err := ParseControlFile(b)
		if err != nil {
			return
		}
		if at == 0 || !c.WALSegmentSize.Valid() || c.CatalogVersion < oldestCatalog || c.Major != 0 && !SupportedMajor(c.Major) {
			t.Fatalf("accepted %+v", c)
		}
		again, err := ParseControlFile(b[:controlMinLen]) // what is behind the fields does not count
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("read again: %v\n%+v\n%+v", err, again, c)
		}
		torn := bytes.Clone(b) // and any bit before the checksum does
		bit := int(flip) % (at * 8)
		torn[bit/8] ^= 1 << (bit % 8)
		version := bit/8 >= 8 && bit/8 < 12
		if _, err := ParseControlFile(torn); err == nil || !version && !errors.Is(err, ErrControlCRC) {
			t.Fatalf("with bit %d flipped: %v", bit, err)
		}
	})
}

// FuzzHistory reads hostile bytes as a timeline's history, and asks it all that plans ask.
func FuzzHistory(f *testing.F) {
	f.Add(uint32(2), []byte("1\t0/3000148\tno recovery target specified\n"), uint64(0x3000148))
	f.Add(uint32(5), []byte("1\t0/A000000\tbefore 2000-01-01 00:00:00+00\n\n2\t0/9000000\tx\n# a comment\n4 1/0"), uint64(1<<32))
	f.Add(uint32(1), []byte{}, uint64(0))
	f.Add(uint32(3), []byte("1 0/0\n2 FFFFFFFF/FFFFFFFF"), uint64(1)<<63)
	f.Fuzz(func(t *testing.T, tli uint32, data []byte, at uint64) {
		h, err := ParseHistory(Timeline(tli), data)
		if err != nil {
			return
		}
		const shortest = len("1 0/0\n")
		if len(h.Entries)*shortest > len(data)+1 {
			t.Fatalf("%d entries of %d bytes", len(h.Entries), len(data))
		}
		var text strings.Builder
		for _, e := range h.Entries {
			fmt.Fprintf(&text, "%d\t%v\t%s\n", e.Timeline, e.SwitchLSN, e.Reason)
		}
		again, err := ParseHistory(Timeline(tli), []byte(text.String()))
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("read again: %v\n%+v\n%+v", err, again, h)
		}
		checkAncestors(t, h)
		if tl := h.TimelineAt(LSN(at)); !h.Contains(tl, LSN(at)) {
			t.Fatalf("timeline %d at %v is not on the way", tl, LSN(at))
		}
	})
}

// checkAncestors makes sure that the stretches of a history join, and that all questions agree on them.
func checkAncestors(t *testing.T, h History) {
	t.Helper()
	list := h.Ancestors()
	last := list[len(list)-1]
	if list[0].Begin != 0 || last.Timeline != h.Timeline || last.End != 0 {
		t.Fatalf("ancestors %+v", list)
	}
	for i, a := range list {
		if got := h.TimelineAt(a.Begin); got != a.Timeline {
			t.Fatalf("at %v is timeline %d, not %d", a.Begin, got, a.Timeline)
		}
		size := MinSegmentSize
		if s := h.SegmentFile(uint64(a.Begin)/uint64(size), size); s.Timeline < a.Timeline {
			t.Fatalf("the segment of %v is %s", a.Begin, s.Name(size))
		}
		if i == len(list)-1 {
			return
		}
		if a.End != list[i+1].Begin || a.End <= a.Begin || a.Timeline >= list[i+1].Timeline {
			t.Fatalf("%+v, then %+v", a, list[i+1])
		}
		if end, ok := h.SwitchPoint(a.Timeline); !ok || end != a.End {
			t.Fatalf("timeline %d was left at %v, not %v", a.Timeline, a.End, end)
		}
	}
}

// FuzzLSN reads a hostile position, and prints and reads an arbitrary one.
func FuzzLSN(f *testing.F) {
	for _, s := range []string{"0/0", "0/3000028", "ffffffff/FFFFFFFF", "16/b374d848", "00000000/00000001", "0x1/2", "1/+2", "/", "1/2/3"} {
		f.Add(s, uint64(len(s))<<30)
	}
	f.Fuzz(func(t *testing.T, s string, n uint64) {
		if v, err := ParseLSN(LSN(n).String()); err != nil || v != LSN(n) {
			t.Fatalf("%X was printed as %s and read as %v, %v", n, LSN(n), v, err)
		}
		v, err := ParseLSN(s)
		if err != nil {
			return
		}
		if v.String() != shortLSN(s) {
			t.Fatalf("%q was read as %v", s, v)
		}
	})
}

// shortLSN writes a position without the zeroes that PostgreSQL does not print.
func shortLSN(s string) string {
	hi, lo, _ := strings.Cut(strings.ToUpper(s), "/")
	short := func(half string) string { return half[min(len(half)-1, len(half)-len(strings.TrimLeft(half, "0"))):] }
	return short(hi) + "/" + short(lo)
}

// FuzzWALFileName reads hostile names: they come from other processes and become parts of paths and keys.
func FuzzWALFileName(f *testing.F) {
	for _, s := range []string{
		"000000010000000000000001", "00000002.history", "0000000200000003000000FF.partial", "00000001000000000000000A.00000028.backup",
		"00000000000000000000000F", "../0001000000000000000001", "00000001000000000000000a", "000000010000000000000001.gz", "FFFFFFFFFFFFFFFFFFFFFFFF",
	} {
		f.Add(s, byte(24))
	}
	f.Fuzz(func(t *testing.T, name string, log byte) {
		w, err := ParseWALFileName(name)
		if err != nil {
			if w != (WALFile{}) {
				t.Fatalf("%+v and %v", w, err)
			}
			return
		}
		if w.Name != name || w.Timeline == 0 || !strings.HasPrefix(name, w.Timeline.Hex()) || strings.ContainsAny(name, "/\\\x00") {
			t.Fatalf("%q is %+v", name, w)
		}
		size := SegmentSize(1) << (20 + log%11)
		seg, err := w.Segment(size)
		if err != nil {
			return
		}
		made := seg.Name(size)
		switch w.Kind {
		case WALPartial:
			made += partialSuffix
		case WALBackupHistory:
			made += fmt.Sprintf(".%08X%s", w.Offset, backupSuffix)
		}
		if made != name || SegmentOf(seg.Timeline, seg.Start(size), size) != seg || SegmentOf(seg.Timeline, seg.End(size)-1, size) != seg {
			t.Fatalf("%q is %+v, named %q", name, seg, made)
		}
	})
}
