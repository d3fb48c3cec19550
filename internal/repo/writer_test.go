package repo_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

func writeBackup(t *testing.T, r *repo.Repository, files map[string][]byte, opts repo.WriterOptions) (*repo.Manifest, repo.Stats) {
	t.Helper()
	ctx := context.Background()
	opts.Cluster = "c1"
	if opts.BackupID == "" {
		opts.BackupID = repo.NewBackupID(time.Now(), repo.Full)
	}
	w, err := r.NewWriter(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for path, data := range files {
		fw, err := w.File(ctx, repo.Entry{Path: path, Mode: 0o600, ModTime: time.Unix(1, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fw.ReadFrom(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if err := fw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	table, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m := &repo.Manifest{Cluster: "c1", BackupID: opts.BackupID, Type: repo.Full, Table: table}
	if err := r.PutManifest(ctx, m); err != nil {
		t.Fatal(err)
	}
	return m, w.Stats()
}

func TestWriter_RoundTripsFilesOfAllSizes(t *testing.T) {
	ctx := t.Context()
	r, err := repo.OpenOrCreate(ctx, mem.New())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for i, n := range []int{0, 1, 8191, 8192, 131071, 131072, 131073, 16 << 20, 16<<20 + 1, 40 << 20} {
		files["base/1/"+string(rune('a'+i))] = pattern(uint64(i), n)
	}
	m, stats := writeBackup(t, r, files, repo.WriterOptions{})
	t.Logf("%+v", stats)
	snap, err := r.OpenBackup(ctx, "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for e, err := range snap.Entries(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		want := files[e.Path]
		seen++
		got := make([]byte, e.Size)
		pieces, err := snap.Pieces(ctx, &e)
		if err != nil {
			t.Fatal(err)
		}
		for i := range pieces {
			err := snap.ReadPiece(ctx, &pieces[i], nil, func(off int64, b []byte) error { copy(got[off:], b); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: restored bytes differ", e.Path)
		}
		if len(want) > 20000 {
			page := make([]byte, 8192)
			off := int64(len(want)-10000) / 8192 * 8192
			n, err := snap.ReadAt(ctx, &e, page, off)
			if err != nil && err != io.EOF || !bytes.Equal(page[:n], want[off:off+int64(n)]) {
				t.Errorf("%s: page at %d: %d bytes, %v", e.Path, off, n, err)
			}
		}
	}
	if seen != len(files) {
		t.Errorf("%d entries, want %d", seen, len(files))
	}
	_, again := writeBackup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{snap}, ParentPages: m.Table.Pages})
	if again.NewChunks != 0 || again.StoredBytes != 0 {
		t.Errorf("unchanged backup stored %d chunks, %d bytes", again.NewChunks, again.StoredBytes)
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
		fw, _ := w.File(b.Context(), repo.Entry{Path: "x"})
		if _, err := fw.ReadFrom(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		_ = fw.Close()
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(w.Stats().SourceBytes)/float64(w.Stats().StoredBytes), "ratio")
	}
}
