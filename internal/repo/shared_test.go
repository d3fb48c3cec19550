package repo_test

import (
	"strings"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// lose deletes a pack, or cuts it off behind its head.
func lose(t *testing.T, store blob.Store, key string, body []byte, cut bool) {
	t.Helper()
	if err := store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if !cut {
		return
	}
	if err := blob.PutBytes(t.Context(), store, key, body[:65]); err != nil {
		t.Fatal(err)
	}
}

// TestShared_LostPackIsStoredAgain is R11: a backup never names a pack of its parent that is not there, or too short. What
// it held is stored anew, although the trees that name it can be read, and also if they are in memory.
func TestShared_LostPackIsStoredAgain(t *testing.T) {
	for _, cut := range []bool{false, true} {
		store := mem.New()
		r := newSmall(t, store)
		files := map[string][]byte{"f": random(1, 300_000), "g": random(2, 100), "h": random(3, 9000)}
		parent, _ := backup(t, r, files, repo.WriterOptions{})
		packs := objects(t, store, "clusters/c1/data/")
		for key, body := range objects(t, store, "clusters/c1/tree/") {
			packs[key] = body
		}
		if len(packs) < 5 {
			t.Fatalf("only %d packs", len(packs))
		}
		for key, body := range packs {
			lose(t, store, key, body, cut)
			child, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{parent}, ParentPages: parent.Manifest.Table.Pages})
			uses, err := child.Packs(t.Context(), func(err error) error { return err })
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range uses {
				if err := r.CheckSize(t.Context(), "c1", u); err != nil {
					t.Errorf("without %s (cut: %v) a backup was published: %v", key, cut, err)
				}
			}
			if strings.Contains(key, "/data/") && (stats.NewChunks == 0 || stats.NewChunks == stats.Chunks) {
				t.Errorf("without %s: %d of %d chunks are new, want those of one pack", key, stats.NewChunks, stats.Chunks)
			}
			fresh, err := repo.Open(t.Context(), store) // nothing in its cache
			if err != nil {
				t.Fatal(err)
			}
			if child, err = fresh.OpenBackup(t.Context(), "c1", child.Manifest.BackupID); err != nil {
				t.Fatal(err)
			}
			expect(t, child, files)
			if err := blob.PutBytes(t.Context(), store, key, body); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestShared_PackThatGoesMeanwhile: a pack that was there when the backup began, and is not when it ends, fails it by
// name. The next attempt stores anew what was in it.
func TestShared_PackThatGoesMeanwhile(t *testing.T) {
	for _, kind := range []string{"data/", "tree/"} {
		for _, cut := range []bool{false, true} {
			store := mem.New()
			r := newSmall(t, store)
			files := map[string][]byte{"f": random(1, 300_000)}
			parent, _ := backup(t, r, files, repo.WriterOptions{})
			opts := repo.WriterOptions{Baselines: []repo.Baseline{parent}, ParentPages: parent.Manifest.Table.Pages}
			w := newWriter(t, r, opts)
			writeFiles(t, w, files)
			var lost string
			before := objects(t, store, "clusters/c1/"+kind)
			for key := range before {
				lost = max(lost, key) // the last of the list
			}
			lose(t, store, lost, before[lost], cut)
			_, err := w.Finish()
			name := lost[strings.LastIndexByte(lost, '/')+1:]
			if err == nil || repo.IsDamage(err) || !strings.Contains(err.Error(), kind+name[:2]+"/"+name[:16]) {
				t.Errorf("%s gone (cut: %v): %v", lost, cut, err)
			}
			child, _ := backup(t, r, files, opts)
			expect(t, child, files)
		}
	}
}

func TestShared_ForeignNamesArePassedOver(t *testing.T) {
	store := mem.New()
	r := newSmall(t, store)
	files := map[string][]byte{"f": random(1, 50_000)}
	parent, _ := backup(t, r, files, repo.WriterOptions{})
	for _, key := range []string{"clusters/c1/data/zz/README", "clusters/c1/tree/00/x"} {
		if err := blob.PutBytes(t.Context(), store, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	_, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{parent}, ParentPages: parent.Manifest.Table.Pages})
	if stats.NewChunks != 0 || stats.StoredBytes != 0 {
		t.Errorf("statistics %+v", stats)
	}
}
