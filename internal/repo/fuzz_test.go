package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
)

// testRepo opens a repository with fixed keys, so that fuzzing finds the same inputs again.
func testRepo(t testing.TB, store blob.Store) *Repository {
	t.Helper()
	h := Header{Format: Format, ChunkSize: 128 << 10, LeafSpan: 16 << 20, FanOut: 256, PackSize: 16 << 20}
	h.ID[0], h.NamingKey[0] = 1, 2
	r, err := newRepository(store, h)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// someRef makes a reference that no other number makes, into one of a few packs.
func someRef(n int) Ref {
	r := Ref{Frame: uint32(n), Offset: uint32(68 + n*40_000), Stored: uint32(30_000 + n*37%20_000), Raw: 128 << 10}
	binary.LittleEndian.PutUint64(r.ID[:], uint64(n)*0x9e3779b97f4a7c15)
	r.Pack[0], r.Pack[31] = byte(n%3), 7
	return r
}

func FuzzDecodeLeaf(f *testing.F) {
	l := &leaf{}
	f.Add(l.encode())
	for n := range 4 {
		l.chunks = append(l.chunks, Chunk{someRef(n), uint32(n) * 77})
	}
	f.Add(l.encode())
	l.extents = []leafExtent{{0, 8192, 16384}, {3, 0, 131072}, {0, 0, 0}}
	f.Add(l.encode())
	f.Add([]byte{nodeLeaf, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLeaf(b)
		if err != nil {
			return
		}
		if len(l.chunks)*(minRefSize+4)+len(l.extents)*3 > len(b) {
			t.Fatalf("%d chunks and %d extents of %d bytes", len(l.chunks), len(l.extents), len(b))
		}
		for _, e := range l.list() {
			if uint64(e.ChunkOffset)+uint64(e.Length) > uint64(e.Chunk.Raw) || e.Chunk.Raw > maxFrame {
				t.Fatalf("extent %+v", e)
			}
		}
		again, err := decodeLeaf(l.encode())
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Fatalf("decoded again: %v\n%+v\n%+v", err, again, l)
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	f.Add(encodeIndex(1, nil), byte(1))
	f.Add(encodeIndex(3, []child{{someRef(1), 16 << 20}, {someRef(2), 1}, {someRef(5), 1 << 62}}), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, level byte) {
		children, err := decodeIndex(b, level)
		if err != nil {
			return
		}
		if len(children)*(minRefSize+1) > len(b) {
			t.Fatalf("%d children of %d bytes", len(children), len(b))
		}
		again, err := decodeIndex(encodeIndex(level, children), level)
		if err != nil || !reflect.DeepEqual(again, children) {
			t.Fatalf("decoded again: %v\n%+v\n%+v", err, again, children)
		}
	})
}

// someEntries are entries of every kind, sorted.
func someEntries() []Entry {
	at := time.Unix(1_700_000_000, 0).UTC()
	return []Entry{
		{Path: "base", Type: TypeDir, Mode: 0o700, ModTime: at},
		{Path: "base/1/112", Type: TypeFile, Mode: 0o600, ModTime: at, Size: 131072, CRC: 5, root: root{form: rootChunk, ref: Chunk{someRef(1), 5}}},
		{Path: "base/1/112_fsm", Type: TypeFile, ModTime: at, Size: 1 << 30, CRC: 6, root: root{form: rootNode, level: 1, ref: Chunk{Ref: someRef(2)}}},
		{Path: "base/1/\xff", Type: TypeFile, ModTime: time.Unix(-1, 0).UTC()},
		{Path: "pg_tblspc/1", Type: TypeSymlink, Mode: 0o777, ModTime: at, Link: "/x"},
	}
}

func FuzzDecodePage(f *testing.F) {
	for n := range len(someEntries()) + 1 {
		_ = encodePages(someEntries()[:n], func(_ string, page []byte) error { f.Add(page); return nil })
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodePage(b)
		if err != nil {
			return
		}
		if len(entries)*5 > len(b) {
			t.Fatalf("%d entries of %d bytes", len(entries), len(b))
		}
		for i, e := range entries {
			if checkPath(e.Path) != nil || i > 0 && e.Path <= entries[i-1].Path || e.Size < 0 {
				t.Fatalf("entry %+v", e)
			}
		}
		var again []Entry
		err = encodePages(entries, func(_ string, page []byte) error {
			more, err := decodePage(page)
			again = append(again, more...)
			return err
		})
		if err != nil || len(again) != len(entries) || len(entries) > 0 && !reflect.DeepEqual(again, entries) {
			t.Fatalf("decoded again: %v\n%+v\n%+v", err, again, entries)
		}
	})
}

// FuzzContainer reads arbitrary bytes as a document. What passes must be what was written, and nobody else can make a
// tag: so the content is that of a seed.
func FuzzContainer(f *testing.F) {
	const key = "clusters/c1/reports/r"
	r := testRepo(f, mem.New())
	comp, err := newCompressor(Zstd, frameSize)
	if err != nil {
		f.Fatal(err)
	}
	known := map[string]bool{}
	for _, plain := range []string{"", "x", strings.Repeat("hello ", 1000), strings.Repeat("0123456789abcdef", 70_000)} {
		known[plain] = true
		f.Add(r.sealBytes(KindDocument, key, []byte(plain), comp))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := testRepo(t, mem.New())
		if err := blob.PutBytes(t.Context(), r.store, key, body); err != nil {
			t.Fatal(err)
		}
		got, err := r.readAll(t.Context(), KindDocument, key)
		if err == nil && !known[string(got)] {
			t.Fatalf("a forged object was read: %d bytes", len(got))
		}
		if err != nil && !strings.Contains(err.Error(), key) {
			t.Fatalf("the error does not name the object: %v", err)
		}
	})
}

// FuzzPayload seals arbitrary payloads and plain lengths with sound tags, as a rotten writer could.
func FuzzPayload(f *testing.F) {
	for _, how := range []Compression{Zstd, S2, NoCompression} {
		comp, err := newCompressor(how, frameSize)
		if err != nil {
			f.Fatal(err)
		}
		for _, n := range []int{0, 1, 100, 5000} {
			plain := bytes.Repeat([]byte("ab"), n)
			f.Add(bytes.Clone(comp.payload(plain)), uint32(len(plain)))
		}
	}
	f.Add([]byte{codecZstd}, uint32(0))
	r := testRepo(f, mem.New())
	f.Fuzz(func(t *testing.T, payload []byte, raw uint32) {
		raw %= 1 << 20
		got, err := r.decompress(nil, payload, int(raw))
		if err == nil && len(got) != int(raw) {
			t.Fatalf("%d bytes, want %d", len(got), raw)
		}
		if cap(got) > int(raw)+len(payload)+1024 {
			t.Fatalf("%d bytes were reserved for %d", cap(got), raw)
		}
		const key = "clusters/c1/reports/r"
		b := r.newObject(KindDocument, key, [32]byte{1}, nil)
		b.append(append(binary.LittleEndian.AppendUint32(nil, raw), payload...), true)
		if err := blob.PutBytes(t.Context(), r.store, key, b.buf); err != nil {
			t.Fatal(err)
		}
		plain, rerr := r.readAll(t.Context(), KindDocument, key)
		if (rerr == nil) != (err == nil) || !bytes.Equal(plain, got) && err == nil || rerr != nil && !IsDamage(rerr) {
			t.Fatalf("readAll: %v, decompress: %v", rerr, err)
		}
	})
}

// FuzzManifestObject seals arbitrary bytes as a manifest with sound tags, reads it, and walks what it names.
func FuzzManifestObject(f *testing.F) {
	const id = "20261123T074501Z-full-1f3a9c"
	good := Manifest{Format: Format, Cluster: "c1", BackupID: id, Table: Table{Files: 1, Pages: []PageRef{{First: "a", Ref: someRef(1)}, {First: "\xff", Ref: someRef(2)}}}}
	for _, change := range []func(m *Manifest){func(*Manifest) {}, func(m *Manifest) { m.BackupID = "x" }, func(m *Manifest) { m.Table.Pages = nil }} {
		m := good
		change(&m)
		plain, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Add([]byte(`{"format":1,"cluster":"c1","backupId":"` + id + `","table":{"pages":[{"first":"","ref":{"stored":4294967295,"raw":4294967295}}]}}`))
	f.Add([]byte(`[]`))
	comp, err := newCompressor(NoCompression, frameSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		ctx := context.Background()
		r := testRepo(t, mem.New())
		key := backupKey("c1", id)
		if err := blob.PutBytes(ctx, r.store, key, r.sealBytes(KindManifest, key, plain, comp)); err != nil {
			t.Fatal(err)
		}
		snap, err := r.OpenBackup(ctx, "c1", id)
		if err != nil {
			if !IsDamage(err) && !strings.Contains(err.Error(), "format") {
				t.Fatalf("OpenBackup: %v", err)
			}
			return
		}
		for _, err := range snap.Entries(ctx) {
			if err != nil && !IsDamage(err) && !errors.Is(err, blob.ErrNotFound) {
				t.Fatalf("Entries: %v", err)
			}
		}
		for _, p := range append(snap.Manifest.Table.Pages, PageRef{First: "zzz"}) {
			if _, ok, _ := snap.Lookup(ctx, p.First); ok {
				t.Fatalf("found %q in a page that is nowhere", p.First)
			}
		}
	})
}

// FuzzTree stores an arbitrary page and an arbitrary node with sound tags and names, and reads every file that they
// make as restores and baselines do.
func FuzzTree(f *testing.F) {
	_ = encodePages(someEntries(), func(_ string, page []byte) error {
		f.Add(page, encodeIndex(1, []child{{someRef(1), 16 << 20}, {someRef(2), 1 << 30}}))
		return nil
	})
	f.Add([]byte{}, (&leaf{chunks: []Chunk{{someRef(1), 1}}}).encode())
	f.Fuzz(func(t *testing.T, page, node []byte) {
		ctx := context.Background()
		r := testRepo(t, mem.New())
		rd := reader{r, "c1"}
		entries, err := decodePage(page)
		if err != nil {
			return
		}
		snap := &Snapshot{Manifest: &Manifest{BackupID: "x"}, rd: rd}
		for i := range entries {
			e := &entries[i]
			if e.root.form == rootNode { // whatever it names is the node
				e.root.ref.ID = r.name(node)
				r.frames.put(e.root.ref.ID, node)
			}
			pieces, err := snap.Pieces(ctx, e)
			if err != nil {
				continue
			}
			var total int64
			for j := range pieces {
				total += pieces[j].Length
				_ = snap.ReadPiece(ctx, &pieces[j], nil, func(int64, []byte) error { return nil })
			}
			if total != e.Size {
				t.Fatalf("%s: pieces of %d bytes, size %d", e.Path, total, e.Size)
			}
			buf := make([]byte, 100)
			if n, err := snap.ReadAt(ctx, e, buf, max(0, e.Size-50)); err == nil || n > 0 && !errors.Is(err, io.EOF) {
				t.Fatalf("%s: read %d bytes that are nowhere: %v", e.Path, n, err)
			}
			if c, err := openCursor(ctx, rd, e); err == nil {
				for at := int64(0); at < 10*8192; at += 8192 {
					if _, err := c.at(ctx, at, 8192); err != nil {
						break
					}
				}
			}
		}
	})
}

// FuzzHeader reads arbitrary bytes as the repository's header.
func FuzzHeader(f *testing.F) {
	h := defaultHeader()
	good, err := json.Marshal(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"chunkSize":8192,"leafSpan":8192,"fanOut":2,"packSize":8192}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHeader(data)
		if err == nil && (h.ChunkSize < 8<<10 || h.LeafSpan < h.ChunkSize || h.FanOut < 2 || h.PackSize < h.ChunkSize || h.Check != "" && h.Check != h.sum()) {
			t.Fatalf("accepted %+v", h)
		}
	})
}
