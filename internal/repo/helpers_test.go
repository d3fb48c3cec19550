package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// raceFactor divides sizes of tests that only move many bytes, under the race detector and with -short.
func raceFactor() int {
	if raceEnabled || testing.Short() {
		return 8
	}
	return 1
}

// pattern makes n reproducible bytes that compress about 3 times: 5 random ones of 16.
func pattern(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, n+16)
	for i := 0; i < n; i += 16 {
		binary.LittleEndian.PutUint64(out[i:], rng.Uint64()&(1<<40-1))
	}
	return out[:n:n]
}

// random makes n reproducible bytes that do not compress.
func random(seed uint64, n int) []byte {
	out := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

func keysOf[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

func newRepo(t testing.TB) (*repo.Repository, *mem.Store) {
	t.Helper()
	store := mem.New()
	r, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return r, store
}

func newWriter(t testing.TB, r *repo.Repository, opts repo.WriterOptions) *repo.Writer {
	t.Helper()
	if opts.Cluster == "" {
		opts.Cluster = "c1"
	}
	if opts.BackupID == "" {
		opts.BackupID = repo.NewBackupID(time.Now(), repo.Full)
	}
	w, err := r.NewWriter(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// writeFile stores one file, and returns the first error.
func writeFile(ctx context.Context, w *repo.Writer, path string, data []byte) error {
	fw, err := w.File(ctx, repo.Entry{Path: path, Mode: 0o600, ModTime: time.Unix(1_600_000_000, 0)})
	if err != nil {
		return err
	}
	if _, err := fw.ReadFrom(bytes.NewReader(data)); err != nil {
		return err
	}
	return fw.Close()
}

func writeFiles(t testing.TB, w *repo.Writer, files map[string][]byte) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(t.Context(), w, path, files[path]); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}

// publish finishes w and makes its backup visible.
func publish(t testing.TB, r *repo.Repository, w *repo.Writer, id string) *repo.Manifest {
	t.Helper()
	table, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m := &repo.Manifest{Cluster: "c1", BackupID: id, Type: repo.Full, Table: table}
	if err := r.PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// backup stores files as one visible backup of c1 and opens it.
func backup(t testing.TB, r *repo.Repository, files map[string][]byte, opts repo.WriterOptions) (*repo.Snapshot, repo.Stats) {
	t.Helper()
	opts.BackupID = repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, opts)
	writeFiles(t, w, files)
	m := publish(t, r, w, opts.BackupID)
	snap, err := r.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	return snap, w.Stats()
}

// content reads a whole file by its pieces.
func content(ctx context.Context, snap *repo.Snapshot, e *repo.Entry) ([]byte, error) {
	got := make([]byte, e.Size)
	pieces, err := snap.Pieces(ctx, e)
	if err != nil {
		return nil, err
	}
	for i := range pieces {
		err := snap.ReadPiece(ctx, &pieces[i], nil, func(off int64, b []byte) error { copy(got[off:], b); return nil })
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

// contents reads a whole backup.
func contents(ctx context.Context, snap *repo.Snapshot) (map[string][]byte, error) {
	files := map[string][]byte{}
	for e, err := range snap.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if e.Type == repo.TypeFile {
			if files[e.Path], err = content(ctx, snap, &e); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// expect fails unless a backup holds exactly files.
func expect(t testing.TB, snap *repo.Snapshot, files map[string][]byte) {
	t.Helper()
	got, err := contents(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(got, files, bytes.Equal) {
		t.Errorf("the backup holds %d files, want %d, or their bytes differ", len(got), len(files))
	}
}

// objects returns the bodies of all objects whose keys begin with prefix.
func objects(t testing.TB, store blob.Store, prefix string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for info, err := range store.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		body, err := blob.ReadAll(t.Context(), store, info.Key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		out[info.Key] = body
	}
	return out
}

// smallHeader has sizes that give trees of many levels, several chunks a leaf and several packs for little data.
func smallHeader() repo.Header {
	h := repo.Header{Format: repo.Format, ChunkSize: 8 << 10, LeafSpan: 16 << 10, FanOut: 2, PackSize: 64 << 10}
	for i := range h.ID {
		h.ID[i], h.NamingKey[i] = byte(i), byte(0x80+i)
	}
	return h
}

// newSmall creates a repository of smallHeader in store.
func newSmall(t testing.TB, store blob.Store) *repo.Repository {
	t.Helper()
	return create(t, store, smallHeader())
}

// openWith creates a repository with the sizes of h.
func openWith(t testing.TB, h repo.Header) *repo.Repository {
	t.Helper()
	return create(t, mem.New(), h)
}

func create(t testing.TB, store blob.Store, h repo.Header) *repo.Repository {
	t.Helper()
	data, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := blob.PutBytesIfAbsent(t.Context(), store, "lifeboat.json", data); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
