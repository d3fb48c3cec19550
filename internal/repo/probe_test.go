package repo_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/repo"
)

// brokenStore is a real store that breaks one promise.
type brokenStore struct {
	blob.Store
	replaces, forgets, keeps bool
	reads                    error
}

func (b brokenStore) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if b.replaces {
		return b.Put(ctx, key, body, size)
	}
	return b.Store.PutIfAbsent(ctx, key, body, size)
}

func (b brokenStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if b.reads != nil {
		return nil, b.reads
	}
	return b.Store.Get(ctx, key, offset, length)
}

func (b brokenStore) List(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if b.keeps {
			yield(blob.Info{Key: prefix}, nil)
			return
		}
		for info, err := range b.Store.List(ctx, prefix, after) {
			if b.forgets || !yield(info, err) {
				return
			}
		}
	}
}

// TestProbe: each promise of a store that backups depend on is tried (R12, R14), and nothing stays behind.
func TestProbe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := fs.Open(dir, fs.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	empty := func() bool {
		for _, err := range store.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			return false
		}
		return true
	}
	for says, b := range map[string]brokenStore{
		"":                        {Store: store},
		"created twice":           {Store: store, replaces: true},
		"does not list":           {Store: store, forgets: true},
		"lists what was just":     {Store: store, keeps: true},
		"broken disk":             {Store: store, reads: errors.New("broken disk")},
		"read from file://" + dir: {Store: store, reads: context.Canceled},
	} {
		err := repo.ProbeStore(t.Context(), b)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
		if !empty() {
			t.Errorf("%q: the probe left something in %s", says, dir)
		}
	}
}

// TestProbe_RemovesWhatKilledOnesLeft, and nothing else.
func TestProbe_RemovesWhatKilledOnesLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := fs.Open(dir, fs.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"probe-old", "probe-young", "other"} {
		if err := blob.PutBytesIfAbsent(t.Context(), store, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"probe-old", "other"} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"probe-old": false, "probe-young": true, "other": true} {
		if _, err := store.Stat(t.Context(), key); (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
	}
}
