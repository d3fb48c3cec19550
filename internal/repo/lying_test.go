package repo

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob/mem"
)

// These objects have sound tags and names, and still no writer makes them: a reader must not trust them for that.

// liar stores frames with sound tags through a writer's packers.
type liar struct {
	t *testing.T
	w *Writer
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	w, err := testRepo(t, mem.New()).NewWriter(t.Context(), WriterOptions{Cluster: "c1", BackupID: "20261123T074501Z-full-1f3a9c"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &liar{t, w}
}

func (l *liar) chunk(plain []byte, id ID) Chunk {
	ref, err := l.w.data.add(id, append([]byte{codecNone}, plain...), len(plain))
	if err != nil {
		l.t.Fatal(err)
	}
	return Chunk{Ref: ref}
}

func (l *liar) node(plain []byte) Ref {
	ref, err := l.w.putNode(plain)
	if err != nil {
		l.t.Fatal(err)
	}
	return ref
}

// read reads a file of size bytes whose root is given, after all was stored.
func (l *liar) read(size int64, r root) ([]byte, error) {
	if err := l.w.flush(); err != nil {
		l.t.Fatal(err)
	}
	snap := &Snapshot{Manifest: &Manifest{BackupID: "x"}, rd: reader{l.w.repo, "c1"}}
	e := Entry{Path: "f", Type: TypeFile, Size: size, root: r}
	got := make([]byte, size)
	n, err := snap.ReadAt(l.t.Context(), &e, got, 0)
	return got[:n], err
}

func TestReader_RefusesLies(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789"), 10)
	index := func(level byte, spans ...uint64) func(l *liar) root {
		return func(l *liar) root {
			leaf := &leaf{chunks: []Chunk{l.chunk(plain, l.w.repo.name(plain))}}
			var children []child
			for _, s := range spans {
				children = append(children, child{l.node(leaf.encode()), s})
			}
			return root{form: rootNode, level: 1, ref: Chunk{Ref: l.node(encodeIndex(level, children))}}
		}
	}
	leafOf := func(chunks int, extents ...leafExtent) func(l *liar) root {
		return func(l *liar) root {
			lf := &leaf{extents: extents}
			for range chunks {
				lf.chunks = append(lf.chunks, l.chunk(plain, l.w.repo.name(plain)))
			}
			return root{form: rootNode, ref: Chunk{Ref: l.node(lf.encode())}}
		}
	}
	for _, tt := range []struct {
		name string
		size int64
		root func(l *liar) root
		want string // "": it can be read
	}{
		{"sound chunk", 100, func(l *liar) root { return root{form: rootChunk, ref: l.chunk(plain, l.w.repo.name(plain))} }, ""},
		{"sound tree", 200, index(1, 100, 100), ""},
		{"sound leaf", 200, leafOf(2), ""},
		{"sound extents", 30, leafOf(2, leafExtent{1, 90, 10}, leafExtent{0, 0, 20}), ""},
		{"chunk of another name", 100, func(l *liar) root { return root{form: rootChunk, ref: l.chunk(plain, ID{1})} }, "does not hash"},
		{"node of another level", 200, index(2, 100, 100), "index of level 1"},
		{"leaf as index", 100, func(l *liar) root { r := leafOf(1)(l); r.level = 1; return r }, "want an index"},
		{"index as leaf", 200, func(l *liar) root { r := index(1, 100, 100)(l); r.level = 0; return r }, "want a leaf"},
		{"children that cover less", 300, index(1, 100, 100), "cover 200 of 300"},
		{"children that cover more", 100, index(1, 100, 100), "do not cover 100"},
		{"children that cover nothing", 200, index(1, 100, 0, 100), "do not cover 200"},
		{"children that wrap around", 200, index(1, 1<<63, 1<<63+200), "do not cover 200"},
		{"no children", 200, index(1), "cover 0 of 200"},
		{"child that covers less than it says", 150, index(1, 100, 50), "covers 100 bytes, not 50"},
		{"leaf that covers less", 300, leafOf(2), "covers 200 bytes, not 300"},
		{"leaf that covers more", 100, leafOf(2), "covers 200 bytes, not 100"},
		{"extent beyond its chunk", 110, leafOf(1, leafExtent{0, 0, 110}), "outside its chunk"},
		{"extent that wraps around", 10, leafOf(1, leafExtent{0, 1<<32 - 1, 11}), "outside its chunk"},
		{"extent of a chunk that is not there", 10, leafOf(1, leafExtent{1, 0, 10}), "outside its chunk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLiar(t)
			got, err := l.read(tt.size, tt.root(l))
			switch {
			case tt.want == "" && (err != nil || int64(len(got)) != tt.size):
				t.Errorf("%d bytes, %v", len(got), err)
			case tt.want != "" && (!IsDamage(err) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "clusters/c1/")):
				t.Errorf("%v, want damage with %q", err, tt.want)
			}
		})
	}
}

func TestDecodePage_Refuses(t *testing.T) {
	at := time.Unix(1, 0).UTC()
	file := func(path string, size int64, r root) Entry {
		return Entry{Path: path, Type: TypeFile, ModTime: at, Size: size, root: r}
	}
	dir := func(path string) Entry { return Entry{Path: path, Type: TypeDir, ModTime: at} }
	chunk := root{form: rootChunk, ref: Chunk{Ref: someRef(1)}}
	for _, tt := range []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"sound", []Entry{dir("a"), file("a/b", 128<<10, chunk)}, ""},
		{"out of order", []Entry{dir("b"), dir("a")}, "does not follow"},
		{"twice", []Entry{dir("a"), dir("a")}, "does not follow"},
		{"absolute", []Entry{dir("/etc")}, "not relative"},
		{"upwards", []Entry{dir("a/../../etc/passwd")}, "not relative"},
		{"empty", []Entry{dir("")}, "not relative"},
		{"zero byte", []Entry{dir("a\x00b")}, "zero byte"},
		{"very long", []Entry{dir(strings.Repeat("a", maxPath+1))}, "limit"},
		{"chunk of another size", []Entry{file("a", 1, chunk)}, "its only chunk 131072"},
		{"content without bytes", []Entry{file("a", 0, root{form: rootNode, ref: Chunk{Ref: someRef(1)}})}, "root of form 2"},
		{"bytes without content", []Entry{file("a", 1, root{})}, "root of form 0"},
		{"negative size", []Entry{file("a", -1, root{form: rootNode, ref: Chunk{Ref: someRef(1)}})}, "root of form 2"},
		{"unknown form", []Entry{file("a", 1, root{form: 9})}, "root of form 9"},
		{"unknown type", []Entry{{Path: "a", Type: 9}}, "type 9"},
		{"frame too long", []Entry{file("a", 1<<27, root{form: rootChunk, ref: Chunk{Ref: Ref{Stored: 100, Raw: 1 << 27}}})}, "limits"},
		{"frame too short", []Entry{file("a", 1, root{form: rootChunk, ref: Chunk{Ref: Ref{Stored: tagSize, Raw: 1}}})}, "limits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var packs packTable
			var body []byte
			prev := ""
			for i := range tt.entries {
				body = appendEntry(body, &tt.entries[i], prev, &packs)
				prev = tt.entries[i].Path
			}
			page := append(packs.encode(nil), byte(len(tt.entries)))
			got, err := decodePage(append(page, body...))
			if tt.want == "" && (err != nil || len(got) != len(tt.entries)) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			for _, more := range [][]byte{append(page, append(body, 0)...), page[:len(page)-1]} {
				if _, err := decodePage(more); err == nil {
					t.Error("a page with a byte more or less was read")
				}
			}
		})
	}
}

// TestDecompress_ReservesWhatItNeeds decodes data that claims, or has, far more bytes than the reference says.
func TestDecompress_ReservesWhatItNeeds(t *testing.T) {
	r := testRepo(t, mem.New())
	for _, how := range []Compression{Zstd, S2, NoCompression} {
		comp, err := newCompressor(how, 32<<20)
		if err != nil {
			t.Fatal(err)
		}
		bomb := bytes.Clone(comp.payload(make([]byte, 32<<20)))
		small := bytes.Clone(comp.payload(bytes.Repeat([]byte("ab"), 500)))
		for _, tt := range []struct {
			payload []byte
			raw     int
		}{{bomb, 1000}, {small, 999}, {small, 1001}, {small, 0}, {bomb[:len(bomb)/2], 32 << 20}} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if plain, err := r.decompress(nil, tt.payload, tt.raw); err == nil {
				t.Errorf("%s: %d bytes where %d were wanted", how, len(plain), tt.raw)
			}
			runtime.ReadMemStats(&after)
			if got := int(after.TotalAlloc - before.TotalAlloc); how != NoCompression && got > tt.raw+2<<20 {
				t.Errorf("%s: %d bytes were allocated for %d", how, got, tt.raw)
			}
		}
		if plain, err := r.decompress(nil, small, 1000); err != nil || len(plain) != 1000 {
			t.Errorf("%s: %d bytes, %v", how, len(plain), err)
		}
	}
}
