package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// eachHeader runs a test with the default sizes and with small ones, which give trees of many levels. unit is the
// length of a chunk.
func eachHeader(t *testing.T, test func(t *testing.T, r *repo.Repository, store *mem.Store, unit int)) {
	t.Run("default sizes", func(t *testing.T) {
		r, store := newRepo(t)
		test(t, r, store, r.Header().ChunkSize)
	})
	t.Run("small sizes", func(t *testing.T) {
		store := mem.New()
		r := newSmall(t, store)
		test(t, r, store, r.Header().ChunkSize)
	})
}

func TestWriter_RoundTripsFilesOfAllSizes(t *testing.T) {
	eachHeader(t, func(t *testing.T, r *repo.Repository, _ *mem.Store, unit int) {
		leaf := r.Header().LeafSpan
		sizes := []int{0, 1, 8191, 8192, unit - 1, unit, unit + 1, 2*unit - 1, leaf - 1, leaf, leaf + 1, 2*leaf + 5*unit/2}
		if unit < 100_000 {
			sizes = append(sizes, 4*leaf, 4*leaf+1, 9*leaf, 33*leaf-7)
		}
		files := map[string][]byte{}
		for i, n := range sizes {
			files[fmt.Sprintf("base/1/%02d-%d", i, n)] = pattern(uint64(i), n)
		}
		snap, stats := backup(t, r, files, repo.WriterOptions{})
		expect(t, snap, files)
		var plain int64
		for _, data := range files {
			plain += int64(len(data))
		}
		if stats.SourceBytes != plain || stats.Files != int64(len(files)) || stats.ChangedBytes != plain {
			t.Errorf("statistics %+v, want %d bytes in %d files", stats, plain, len(files))
		}
	})
}

// TestSnapshot_ReadAt reads random ranges of files of every shape and compares them with what was written.
func TestSnapshot_ReadAt(t *testing.T) {
	eachHeader(t, func(t *testing.T, r *repo.Repository, _ *mem.Store, unit int) {
		leaf := r.Header().LeafSpan
		files := map[string][]byte{"empty": nil, "byte": {1}, "chunk": pattern(1, unit), "leaf": pattern(2, leaf/2+3), "tree": pattern(3, leaf+unit+5)}
		snap, _ := backup(t, r, files, repo.WriterOptions{})
		rng := rand.New(rand.NewPCG(1, 2))
		for path, data := range files {
			e, ok, err := snap.Lookup(t.Context(), path)
			if err != nil || !ok {
				t.Fatalf("%s: %v, %v", path, ok, err)
			}
			for range 20 {
				offset, n := rng.IntN(len(data)+2), rng.IntN(3*unit)
				dst := make([]byte, n)
				got, err := snap.ReadAt(t.Context(), &e, dst, int64(offset))
				want := data[min(offset, len(data)):min(offset+n, len(data))]
				if !bytes.Equal(dst[:got], want) || (got < n || offset >= len(data)) != errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("%s of %d bytes: ReadAt(%d, %d) gives %d bytes, %v", path, len(data), offset, n, got, err)
				}
			}
			if _, err := snap.ReadAt(t.Context(), &e, make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("ReadAt at -1: %v", err)
			}
			whole, err := snap.ReadFile(t.Context(), path, int64(len(data)))
			if err != nil || !bytes.Equal(whole, data) {
				t.Errorf("ReadFile %s: %d bytes, %v", path, len(whole), err)
			}
		}
		if _, err := snap.ReadFile(t.Context(), "chunk", int64(unit)-1); err == nil {
			t.Error("ReadFile gave more than it was allowed")
		}
		if _, err := snap.ReadFile(t.Context(), "missing", 1); err == nil {
			t.Error("ReadFile found a file that is not there")
		}
	})
}

// TestSnapshot_ReadPieceKeeps checks that what the target has already is neither read nor written.
func TestSnapshot_ReadPieceKeeps(t *testing.T) {
	r := newSmall(t, mem.New())
	data := random(1, 100_000)
	snap, _ := backup(t, r, map[string][]byte{"f": data}, repo.WriterOptions{})
	e, _, err := snap.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	target := bytes.Clone(data)
	target[20_000] ^= 1
	pieces, err := snap.Pieces(t.Context(), &e)
	if err != nil {
		t.Fatal(err)
	}
	var wrote []int64
	for i := range pieces {
		err := snap.ReadPiece(t.Context(), &pieces[i],
			func(off int64, c repo.Chunk) (bool, error) {
				return snap.HasContent(c, target[off:off+int64(c.Raw)]), nil
			},
			func(off int64, plain []byte) error {
				wrote = append(wrote, off)
				copy(target[off:], plain)
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(wrote) != 1 || wrote[0] != 2*8192 || !bytes.Equal(target, data) {
		t.Errorf("wrote at %v, want only the chunk at 16384", wrote)
	}
	stop := errors.New("stop")
	for _, call := range []error{
		snap.ReadPiece(t.Context(), &pieces[0], func(int64, repo.Chunk) (bool, error) { return false, stop }, nil),
		snap.ReadPiece(t.Context(), &pieces[0], nil, func(int64, []byte) error { return stop }),
	} {
		if !errors.Is(call, stop) {
			t.Errorf("ReadPiece returned %v, want the callback's error", call)
		}
	}
}

func TestWriter_StoresEqualChunksOnce(t *testing.T) {
	r, _ := newRepo(t)
	one := pattern(1, 128<<10)
	files := map[string][]byte{"a": bytes.Repeat(one, 5), "b": one, "c": append(bytes.Clone(one), 1)}
	snap, stats := backup(t, r, files, repo.WriterOptions{Workers: 1})
	if stats.NewChunks != 2 || stats.Chunks != 8 {
		t.Errorf("%d of %d chunks stored, want 2 of 8", stats.NewChunks, stats.Chunks)
	}
	expect(t, snap, files)
}

// TestWriter_FilesInParallel writes many files at once, more than there are buffers.
func TestWriter_FilesInParallel(t *testing.T) {
	r := newSmall(t, mem.New())
	files := map[string][]byte{}
	for i := range 100 {
		files[fmt.Sprintf("f%d", i)] = pattern(uint64(i), i*1111)
	}
	var seen sync.Map // path and offset
	id := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: id, Workers: 2, Inspect: func(path string, offset int64, plain []byte) {
		if _, twice := seen.LoadOrStore(fmt.Sprint(path, offset), true); twice || !bytes.Equal(plain, files[path][offset:offset+int64(len(plain))]) {
			t.Errorf("Inspect: %s at %d: twice %v, or other bytes", path, offset, twice)
		}
	}})
	var wg sync.WaitGroup
	for path, data := range files {
		wg.Go(func() {
			if err := writeFile(t.Context(), w, path, data); err != nil {
				t.Error(err)
			}
			_ = w.Stats()
		})
	}
	wg.Wait()
	m := publish(t, r, w, id)
	snap, err := r.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, snap, files)
}

// TestFileWriter_ContentInPieces stores files by several calls of ReadFrom, which end chunks early, with leaves of one
// and of several chunks.
func TestFileWriter_ContentInPieces(t *testing.T) {
	for _, leaf := range []int{8 << 10, 16 << 10, 20 << 10} {
		t.Run(fmt.Sprint(leaf), func(t *testing.T) {
			h := smallHeader()
			h.LeafSpan = leaf
			r := openWith(t, h)
			files := map[string][]byte{}
			id := repo.NewBackupID(time.Now(), repo.Full)
			w := newWriter(t, r, repo.WriterOptions{BackupID: id})
			for i, pieces := range [][]int{{10}, {10, 20}, {8192, 1}, {1, 8192}, {5000, 5000, 5000}, {0, 7, 0}, {30_000, 30_000}} {
				path := fmt.Sprint("f", i)
				fw, err := w.File(t.Context(), repo.Entry{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				for j, n := range pieces {
					piece := random(uint64(i*10+j), n)
					files[path] = append(files[path], piece...)
					if got, err := fw.ReadFrom(bytes.NewReader(piece)); got != int64(n) || err != nil {
						t.Fatalf("ReadFrom: %d, %v", got, err)
					}
				}
				if err := fw.Close(); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, r, w, id)
			snap, err := r.OpenBackup(t.Context(), "c1", id)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, snap, files)
		})
	}
}

func TestWriter_RefusesWhatNoRestoreMayLay(t *testing.T) {
	r, _ := newRepo(t)
	w := newWriter(t, r, repo.WriterOptions{})
	for _, path := range []string{"", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\x00b", strings.Repeat("a", 4097)} {
		if _, err := w.File(t.Context(), repo.Entry{Path: path}); err == nil {
			t.Errorf("File accepted the path %.20q", path)
		}
		if err := w.Add(repo.Entry{Path: path, Type: repo.TypeDir}); err == nil {
			t.Errorf("Add accepted the path %.20q", path)
		}
	}
	if err := w.Add(repo.Entry{Path: "x", Type: repo.TypeFile}); err == nil {
		t.Error("Add accepted a file")
	}
	if err := w.Add(repo.Entry{Path: "x", Type: repo.TypeSymlink, Link: strings.Repeat("a", 4097)}); err == nil {
		t.Error("Add accepted a link target that no file system takes")
	}
	for _, opts := range []repo.WriterOptions{{}, {Cluster: "c1"}, {Cluster: "../c", BackupID: repo.NewBackupID(time.Now(), repo.Full)}, {Cluster: "c1", BackupID: "x"}} {
		if w, err := r.NewWriter(t.Context(), opts); err == nil {
			w.Close()
			t.Errorf("NewWriter accepted %+v", opts)
		}
	}
}

func TestWriter_FinishRefusesWhatIsNotWhole(t *testing.T) {
	r, store := newRepo(t)
	w := newWriter(t, r, repo.WriterOptions{})
	if _, err := w.File(t.Context(), repo.Entry{Path: "open"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil || !strings.Contains(err.Error(), "1 files were begun and not closed") {
		t.Errorf("Finish with an open file: %v", err)
	}

	w = newWriter(t, r, repo.WriterOptions{})
	writeFiles(t, w, map[string][]byte{"twice": {1}})
	writeFiles(t, w, map[string][]byte{"twice": {2}})
	if _, err := w.Finish(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("Finish with a path that stands in it twice: %v", err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("a second Finish succeeded")
	}
	if n := len(objects(t, store, "clusters/c1/backups/")); n != 0 {
		t.Errorf("%d manifests", n)
	}
}

func TestFileWriter_Close(t *testing.T) {
	r, _ := newRepo(t)
	id := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: id})
	fw, err := w.File(t.Context(), repo.Entry{Path: "f"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second does nothing
		if err := fw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fw.ReadFrom(strings.NewReader("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadFrom after Close: %v", err)
	}
	if m := publish(t, r, w, id); m.Table.Files != 1 {
		t.Errorf("%d files", m.Table.Files)
	}
}

func TestFileWriter_SourceFails(t *testing.T) {
	r, _ := newRepo(t)
	w := newWriter(t, r, repo.WriterOptions{})
	fw, err := w.File(t.Context(), repo.Entry{Path: "base/1/2"})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("input/output error")
	_, err = fw.ReadFrom(io.MultiReader(bytes.NewReader(pattern(1, 300_000)), &failing{broken}))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "base/1/2") {
		t.Errorf("ReadFrom: %v", err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("Finish succeeded although a file is not whole")
	}
}

// failing is a reader that always fails.
type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestSnapshot_EntriesAndLookup checks the order of the table and how entries are found, whatever their types.
func TestSnapshot_EntriesAndLookup(t *testing.T) {
	r, _ := newRepo(t)
	id := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: id})
	want := map[string]repo.Entry{}
	add := func(e repo.Entry) {
		want[e.Path] = e
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 { // several pages; some paths are no UTF-8, which JSON could not hold
		add(repo.Entry{Path: fmt.Sprintf("base/%d/\xf6%d", i%7, i), Type: repo.TypeDir, Mode: 0o700, ModTime: time.Unix(int64(i)-1500, 0).UTC()})
	}
	add(repo.Entry{Path: "a link", Type: repo.TypeSymlink, Mode: 0o777, Link: "/elsewhere/\xff", ModTime: time.Unix(1, 0).UTC()})
	m := publish(t, r, w, id)
	if len(m.Table.Pages) < 5 {
		t.Fatalf("%d pages: too few for this test", len(m.Table.Pages))
	}
	snap, err := r.OpenBackup(t.Context(), "c1", id)
	if err != nil {
		t.Fatal(err)
	}
	last, n := "", 0
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Path <= last || e != want[e.Path] {
			t.Fatalf("entry %+v after %q, want %+v", e, last, want[e.Path])
		}
		last = e.Path
		n++
		if got, ok, err := snap.Lookup(t.Context(), e.Path); !ok || err != nil || got != e {
			t.Fatalf("Lookup %q: %+v, %v, %v", e.Path, got, ok, err)
		}
	}
	if n != len(want) {
		t.Errorf("%d entries, want %d", n, len(want))
	}
	for _, path := range []string{"", "\x00", "a", "base", "base/1/", "base/1/\xf61", "zzz", last + "\x00", last[:len(last)-1]} {
		if _, there := want[path]; there {
			continue
		}
		if e, ok, err := snap.Lookup(t.Context(), path); ok || err != nil {
			t.Errorf("Lookup %q: %+v, %v, %v", path, e, ok, err)
		}
	}
	for _, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break // stopping early must be possible
	}
	empty := newWriter(t, r, repo.WriterOptions{})
	if table, err := empty.Finish(); err != nil || table.Files != 0 || len(table.Pages) != 0 {
		t.Errorf("an empty backup: %+v, %v", table, err)
	}
}

func BenchmarkWriter(b *testing.B) {
	r, err := repo.OpenOrCreate(b.Context(), mem.New())
	if err != nil {
		b.Fatal(err)
	}
	data := pattern(7, 256<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		w, err := r.NewWriter(b.Context(), repo.WriterOptions{Cluster: "c1", BackupID: repo.NewBackupID(time.Now(), repo.Full)})
		if err != nil {
			b.Fatal(err)
		}
		if err := writeFile(b.Context(), w, "x", data); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(w.Stats().SourceBytes)/float64(w.Stats().StoredBytes), "ratio")
	}
}
