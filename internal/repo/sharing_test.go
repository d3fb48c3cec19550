package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// newFrames counts the frames in the packs that came between two looks at a store, by kind.
func newFrames(t *testing.T, store blob.Store, before map[string][]byte) (chunks, nodes int) {
	t.Helper()
	r, err := openDoc(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for key := range objects(t, store, "clusters/c1/") {
		if _, old := before[key]; old {
			continue
		}
		var n int
		switch {
		case strings.HasPrefix(key, "clusters/c1/data/"):
			n, err = r.pack(key, docData)
			chunks += n
		case strings.HasPrefix(key, "clusters/c1/tree/"):
			n, err = r.pack(key, docTree)
			nodes += n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return chunks, nodes
}

// TestSharing_UnchangedBackupStoresNothing repeats a backup with the first as its parent: only the manifest is new.
func TestSharing_UnchangedBackupStoresNothing(t *testing.T) {
	eachHeader(t, func(t *testing.T, r *repo.Repository, store *mem.Store, unit int) {
		files := map[string][]byte{"empty": nil, "byte": {1}, "chunk": random(1, unit), "leaf": random(2, r.Header().LeafSpan), "tree": random(3, 3*r.Header().LeafSpan+7)}
		if unit < 100_000 {
			files["levels"] = random(4, 41*r.Header().LeafSpan)
		}
		for i := range 500 {
			files[fmt.Sprintf("base/5/%d", i)] = random(uint64(i), i)
		}
		first, _ := backup(t, r, files, repo.WriterOptions{})
		before := objects(t, store, "")
		second, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{first}, ParentPages: first.Manifest.Table.Pages})
		if stats.NewChunks != 0 || stats.StoredBytes != 0 || stats.ChangedBytes != 0 {
			t.Errorf("statistics %+v: something was stored", stats)
		}
		after := objects(t, store, "")
		if len(after) != len(before)+1 || !slices.Equal(first.Manifest.Table.Pages, second.Manifest.Table.Pages) {
			t.Errorf("%d objects became %d, want one more: the manifest", len(before), len(after))
		}
		expect(t, second, files)
	})
}

// TestSharing_OneChangedPage changes 8 KiB of a large file: one chunk, its leaf, the index node and the page of the
// file table are new, and nothing else.
func TestSharing_OneChangedPage(t *testing.T) {
	size := 64 << 20
	if raceFactor() > 1 {
		size = 24 << 20 // still three leaves
	}
	r, store := newRepo(t)
	files := map[string][]byte{"base/1/1": pattern(1, size), "base/1/2": pattern(2, 1<<20)}
	first, _ := backup(t, r, files, repo.WriterOptions{})
	before, old := objects(t, store, ""), maps.Clone(files)
	files["base/1/1"] = bytes.Clone(files["base/1/1"])
	copy(files["base/1/1"][20<<20:], pattern(99, 8<<10))
	second, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{first}, ParentPages: first.Manifest.Table.Pages})
	if chunks, nodes := newFrames(t, store, before); chunks != 1 || nodes != 3 {
		t.Errorf("%d chunks and %d nodes are new, want 1 and 3: leaf, index node, page", chunks, nodes)
	}
	if stats.NewChunks != 1 || stats.ChangedBytes != 128<<10 {
		t.Errorf("statistics %+v", stats)
	}
	expect(t, second, files)
	expect(t, first, old)
}

// TestSharing_OneChangedPageInADeepTree does the same in a tree of many levels: one node a level is new.
func TestSharing_OneChangedPageInADeepTree(t *testing.T) {
	store := mem.New()
	r := newSmall(t, store)
	files := map[string][]byte{"f": random(1, 64*16<<10)} // 64 leaves: 6 levels of index nodes
	first, _ := backup(t, r, files, repo.WriterOptions{})
	before := objects(t, store, "")
	files["f"][500_000] ^= 1
	second, _ := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{first}})
	if chunks, nodes := newFrames(t, store, before); chunks != 1 || nodes != 1+6+1 {
		t.Errorf("%d chunks and %d nodes are new, want 1 and 8: leaf, 6 index nodes, page", chunks, nodes)
	}
	expect(t, second, files)
}

// TestSharing_GrownAndShrunk checks that the unchanged part of a file is shared when its length changes.
func TestSharing_GrownAndShrunk(t *testing.T) {
	r := newSmall(t, mem.New())
	data := random(1, 20*16<<10)
	first, _ := backup(t, r, map[string][]byte{"f": data}, repo.WriterOptions{})
	for _, tt := range []struct {
		name string
		data []byte
		most int64 // new chunks
	}{
		{"grown by a chunk", append(bytes.Clone(data), random(2, 8<<10)...), 1},
		{"grown by a byte", append(bytes.Clone(data), 1), 1},
		{"shrunk by a chunk", data[:len(data)-8<<10], 0},
		{"shrunk by a byte", data[:len(data)-1], 1},
		{"shrunk to nothing", nil, 0},
		{"shrunk to one chunk", data[:8<<10], 0},
		{"moved by a chunk", data[8<<10:], 39},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string][]byte{"f": tt.data}
			snap, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{first}})
			if stats.NewChunks > tt.most {
				t.Errorf("%d chunks are new, want at most %d", stats.NewChunks, tt.most)
			}
			expect(t, snap, files)
		})
	}
}

// TestSharing_SecondBaseline checks that later baselines are asked for what the first does not know.
func TestSharing_SecondBaseline(t *testing.T) {
	r, _ := newRepo(t)
	a, b := map[string][]byte{"a": random(1, 1<<20)}, map[string][]byte{"b": random(2, 1<<20)}
	first, _ := backup(t, r, a, repo.WriterOptions{})
	second, _ := backup(t, r, b, repo.WriterOptions{})
	both := maps.Clone(a)
	maps.Copy(both, b)
	snap, stats := backup(t, r, both, repo.WriterOptions{Baselines: []repo.Baseline{first, second}})
	if stats.NewChunks != 0 {
		t.Errorf("%d chunks are new", stats.NewChunks)
	}
	expect(t, snap, both)
}

// TestSharing_BaselineIsRotten takes backups whose parent's tree is damaged or gone: they must store anew what they
// cannot share, and must not name what cannot be read.
func TestSharing_BaselineIsRotten(t *testing.T) {
	store := mem.New()
	files := map[string][]byte{"f": random(1, 200_000), "g": random(2, 100)}
	parent, _ := backup(t, newSmall(t, store), files, repo.WriterOptions{})
	trees := objects(t, store, "clusters/c1/tree/")
	if len(trees) != 1 {
		t.Fatalf("%d tree packs, want 1", len(trees))
	}
	for key, sound := range trees {
		for at := -1; at < len(sound); at += 97 {
			_ = store.Delete(t.Context(), key)
			if at >= 0 {
				body := bytes.Clone(sound)
				body[at] ^= 1
				if err := blob.PutBytes(t.Context(), store, key, body); err != nil {
					t.Fatal(err)
				}
			}
			// A fresh repository has nothing in its cache.
			r, err := repo.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			base, err := r.OpenBackup(t.Context(), "c1", parent.Manifest.BackupID)
			if err != nil {
				t.Fatal(err)
			}
			snap, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{base}})
			if at < 0 && stats.NewChunks != stats.Chunks {
				t.Errorf("without the parent's tree %d of %d chunks are new", stats.NewChunks, stats.Chunks)
			}
			fresh, err := repo.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if snap, err = fresh.OpenBackup(t.Context(), "c1", snap.Manifest.BackupID); err != nil {
				t.Fatal(err)
			}
			expect(t, snap, files)
			if t.Failed() {
				t.Fatalf("with byte %d of the parent's tree flipped", at)
			}
		}
	}
}

// TestSharing_StoreFailsForTheBaseline checks that an error that is not damage ends the backup: it may pass.
func TestSharing_StoreFailsForTheBaseline(t *testing.T) {
	inner := mem.New()
	files := map[string][]byte{"f": random(1, 500_000)}
	parent, _ := backup(t, newSmall(t, inner), files, repo.WriterOptions{})
	for nth := 1; nth < 5; nth++ {
		store := fault.New(inner, fault.Rule{Op: fault.Get, Key: fault.Contains("/tree/"), Nth: nth, Do: fault.Fail(nil)})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		base, err := r.OpenBackup(t.Context(), "c1", parent.Manifest.BackupID)
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, r, repo.WriterOptions{Baselines: []repo.Baseline{base}})
		if err := writeFile(t.Context(), w, "f", files["f"]); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("request %d failed: %v", nth, err)
		}
		w.Close()
		if unused := store.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
	}
}

// TestSharing_NewFileChangesFewPages adds one file at many places among others: the pages of the file table that change
// are one, where the file comes to stand, and few more where it makes a page too long or ends one.
func TestSharing_NewFileChangesFewPages(t *testing.T) {
	r, _ := newRepo(t)
	files := map[string][]byte{}
	for i := range 5000 {
		files[fmt.Sprintf("base/16384/%d", 16384+3*i)] = []byte{byte(i), byte(i >> 8)}
	}
	first, _ := backup(t, r, files, repo.WriterOptions{})
	known := map[repo.ID]bool{}
	for _, p := range first.Manifest.Table.Pages {
		known[p.Ref.ID] = true
	}
	histogram, tries := map[int]int{}, 40
	if raceFactor() > 1 {
		tries = 10
	}
	for i := range tries {
		more := maps.Clone(files)
		more[fmt.Sprintf("base/16384/%d_fsm", 16384+331*i)] = []byte("new")
		id := repo.NewBackupID(time.Now(), repo.Full)
		w := newWriter(t, r, repo.WriterOptions{BackupID: id, Baselines: []repo.Baseline{first}, ParentPages: first.Manifest.Table.Pages})
		writeFiles(t, w, more)
		table, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		fresh := 0
		for _, p := range table.Pages {
			if !known[p.Ref.ID] {
				fresh++
			}
		}
		histogram[fresh]++
	}
	t.Logf("pages that changed, of %d: %v", len(first.Manifest.Table.Pages), histogram)
	if histogram[1] < tries*3/4 || histogram[1]+histogram[2] != tries {
		t.Errorf("pages that changed: %v, want 1, seldom 2", histogram)
	}
}
