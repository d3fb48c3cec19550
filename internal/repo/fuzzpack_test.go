package repo

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
)

// allocated tells how many bytes f allocates, all that runs meanwhile included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// fuzzPack is a sound pack of the frames; change, if it is not nil, gets its index before that is sealed.
func fuzzPack(r *Repository, how Compression, change func([]byte) []byte, frames ...[]byte) (key string, body []byte, err error) {
	comp, err := newCompressor(how, frameSize)
	if err != nil {
		return "", nil, err
	}
	id := PackID{1, 2, 3}
	key = packKey("c1", KindData, id)
	b := r.newObject(KindData, key, id, nil)
	var index []byte
	for _, plain := range frames {
		_, offset, stored := b.append(comp.payload(plain), false)
		name := r.name(plain)
		index = append(index, name[:]...)
		for _, n := range []uint32{offset, stored, uint32(len(plain))} {
			index = binary.LittleEndian.AppendUint32(index, n)
		}
	}
	if change != nil {
		index = change(index)
	}
	b.append(append([]byte{codecNone}, index...), true)
	return key, b.buf, nil
}

// FuzzPack reads hostile bytes as a pack: as they are, with one byte of a sound pack changed, and with an index and a
// frame that a rotten writer has sealed with sound tags.
func FuzzPack(f *testing.F) {
	r := testRepo(f, mem.New())
	for _, how := range []Compression{Zstd, S2, NoCompression} {
		_, body, err := fuzzPack(r, how, nil, []byte("hello"), bytes.Repeat([]byte("page "), 2000), nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, []byte("content"), []byte{}, uint32(70))
	}
	for at := range packIndexEntry { // each part of the index is wrong alone
		f.Add([]byte{}, []byte("content"), append(make([]byte, at), 1), uint32(0))
	}
	f.Add([]byte{}, bytes.Repeat([]byte{1, 2}, 500), bytes.Repeat([]byte{0xff}, packIndexEntry), uint32(0))
	f.Fuzz(func(t *testing.T, body, frame, index []byte, at uint32) {
		r := testRepo(t, mem.New())
		check := func(key string, body []byte) (plain int64, err error) {
			if err := blob.PutBytes(t.Context(), r.store, key, body); err != nil {
				t.Fatal(err)
			}
			got := allocated(func() { plain, err = r.CheckObject(t.Context(), key) })
			if got > uint64(16<<20+maxFrame+64*len(body)) {
				t.Fatalf("%d bytes were allocated for a pack of %d", got, len(body))
			}
			if err != nil && (!IsDamage(err) || !strings.Contains(err.Error(), key)) {
				t.Fatalf("the error is no damage of the object: %v", err)
			}
			return plain, err
		}
		key, sound, err := fuzzPack(r, S2, nil, frame, index)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := check(key, sound); err != nil || plain != int64(len(frame)+len(index)) {
			t.Fatalf("a sound pack: %d bytes, %v", plain, err)
		}
		sound[int(at)%len(sound)] ^= 1 << (at % 8)
		if _, err := check(key, sound); err == nil {
			t.Fatalf("a pack with byte %d changed passes", int(at)%len(sound))
		}
		_, _ = check(key, body)
		_, planted, err := fuzzPack(r, NoCompression, func(good []byte) []byte { return xor(good, index) }, frame)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := check(key, planted); err == nil && (len(bytes.Trim(index, "\x00")) > 0 || len(index) > packIndexEntry) {
			t.Fatalf("a pack passes whose index is off by %x", index)
		}
	})
}

// xor changes a by b, and is as long as the longer one.
func xor(a, b []byte) []byte {
	out := make([]byte, max(len(a), len(b)))
	copy(out, a)
	for i := range b {
		out[i] ^= b[i]
	}
	return out
}

// FuzzWALObject seals hostile heads and pieces as a WAL object with sound tags, and reads it in every way there is.
func FuzzWALObject(f *testing.F) {
	const name = "000000010000000000000001"
	r := testRepo(f, mem.New())
	content := []byte("not really WAL")
	h := WALHeader{Name: name, SystemID: 7, SegmentSize: 16 << 20, Length: int64(len(content)), Content: r.name(content), Facts: json.RawMessage(`{"a":1}`)}
	for _, change := range []func(*WALHeader){
		func(*WALHeader) {}, func(h *WALHeader) { h.Name = "x" }, func(h *WALHeader) { h.Length = 1 << 62 }, func(h *WALHeader) { h.Length = -1 },
	} {
		h := h
		change(&h)
		head, err := json.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(head, content)
	}
	f.Add([]byte(`{"name":"`+name+`","length":9223372036854775807,"segmentSize":4294967295}`), []byte{})
	comp, err := newCompressor(S2, frameSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, head, data []byte) {
		r := testRepo(t, mem.New())
		key := walKey("c1", name)
		body := r.sealWAL(key, head, data, comp)
		if err := blob.PutBytes(t.Context(), r.store, key, body); err != nil {
			t.Fatal(err)
		}
		var plain []byte
		var err error
		got := allocated(func() {
			var w *WALReader
			if w, err = r.OpenWAL(t.Context(), "c1", name); err != nil {
				return
			}
			plain, err = io.ReadAll(w)
			_ = w.Close()
		})
		if got > uint64(16<<20+64*len(head)+64*len(data)) {
			t.Fatalf("%d bytes were allocated for a head of %d and a body of %d", got, len(head), len(data))
		}
		_, cerr := r.CheckObject(t.Context(), key)
		if (cerr == nil) != (err == nil) || err != nil && (!IsDamage(err) || !IsDamage(cerr)) {
			t.Fatalf("read: %v, check: %v", err, cerr)
		}
		if err != nil {
			return
		}
		w, err := r.WALHeader(t.Context(), "c1", name)
		if err != nil || !bytes.Equal(plain, data) || w.Name != name || w.Length != int64(len(data)) || w.Content != r.name(data) {
			t.Fatalf("accepted %+v with %d bytes of %d, %v", w, len(plain), len(data), err)
		}
	})
}

// FuzzRun reads hostile bytes as the checkpoint of an attempt that died, and looks up all that it names.
func FuzzRun(f *testing.F) {
	var run []byte
	for _, e := range someEntries() { // a page for each
		_ = encodePages([]Entry{e}, func(_ string, page []byte) error {
			run = append(binary.AppendUvarint(run, uint64(len(page))), page...)
			f.Add(bytes.Clone(run))
			return nil
		})
	}
	f.Add(binary.AppendUvarint(nil, 1<<63))
	f.Fuzz(func(t *testing.T, plain []byte) {
		b := &runBaseline{seed: maphash.MakeSeed(), index: map[uint64]int32{}}
		var err error
		if got := allocated(func() { err = b.add(plain) }); got > uint64(1<<20+500*len(plain)) {
			t.Fatalf("%d bytes were allocated for a checkpoint of %d", got, len(plain))
		}
		if err != nil {
			return
		}
		for n, page := range b.pages {
			entries, err := decodePage(page)
			if err != nil {
				t.Fatalf("page %d was taken in: %v", n, err)
			}
			for i := range entries {
				e, ok, err := b.Lookup(t.Context(), entries[i].Path)
				if last := b.index[maphash.String(b.seed, entries[i].Path)]; err != nil || !ok || int(last) == n && !reflect.DeepEqual(e, entries[i]) {
					t.Fatalf("%s of page %d: %+v, %t, %v", entries[i].Path, n, e, ok, err)
				}
			}
		}
	})
}
