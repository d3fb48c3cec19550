package verify

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// planted is a ladder over a repository with one backup of one file and one history file.
func planted(t *testing.T, store blob.Store) (*ladder, []repo.PackUse) {
	t.Helper()
	r, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	id := repo.NewBackupID(time.Now(), repo.Full)
	w, err := r.NewWriter(t.Context(), repo.WriterOptions{Cluster: "c1", BackupID: id})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := w.File(t.Context(), repo.Entry{Path: "base/1/2", Mode: 0o600})
	if err == nil {
		_, err = f.ReadFrom(strings.NewReader(strings.Repeat("page", 50_000)))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	table, err := w.Finish()
	if err == nil {
		err = r.PutManifest(t.Context(), &repo.Manifest{Cluster: "c1", BackupID: id, Type: repo.Full, Table: table})
	}
	if err == nil {
		_, err = r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: "00000002.history"}, []byte("1\t0/3000000\tx\n"), repo.Zstd)
	}
	if err != nil {
		t.Fatal(err)
	}
	snap, err := r.OpenBackup(t.Context(), "c1", id)
	if err != nil {
		t.Fatal(err)
	}
	uses, err := snap.Packs(t.Context(), func(err error) error { return err })
	if err != nil || len(uses) != 2 {
		t.Fatalf("%d packs, %v", len(uses), err)
	}
	l := &ladder{
		BackupOptions: BackupOptions{Repo: r, Cluster: "c1", Logger: slog.New(slog.DiscardHandler), Seed: 1},
		bad:           map[string][]Problem{}, subjects: []*subject{{BackupReport: BackupReport{BackupID: id}, snap: snap}},
	}
	return l, uses
}

// Invariant 8: whatever bit is planted, in whatever object, the checks find it.
func TestSelfTest_FindsWhatItPlants(t *testing.T) {
	l, uses := planted(t, mem.New())
	history := &scanned{name: "00000002.history"}
	for l.Seed = range 300 {
		if err := errors.Join(l.proveLoss(t.Context(), uses), l.proveContent(t.Context(), uses), l.proveWAL(t.Context(), history)); err != nil {
			t.Fatal(err)
		}
		if r := l.subjects[0]; len(r.Problems) > 0 {
			t.Fatalf("seed %d: %+v", l.Seed, r.Problems)
		}
	}
}

// A check that looks at nothing passes everything: it is found out, and nothing that it passed counts.
func TestSelfTest_ABlindCheckIsNoPass(t *testing.T) {
	l, uses := planted(t, mem.New())
	key := uses[0].Key("c1")
	spoiled, err := l.Repo.Planted(t.Context(), key, 99)
	blindCheck := func(context.Context, *ladder) error { return nil }
	if err := l.prove(t.Context(), 1, key, spoiled, err, blindCheck); err != nil {
		t.Fatal(err)
	}
	s := l.subjects[0]
	for level := range 2 {
		s.passed(level)
	}
	if s.Outcome() != Unable || s.Level() != 0 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Text, "did not find a planted corruption") {
		t.Errorf("%s, level %d: %+v", s.Outcome(), s.Level(), s.Problems)
	}
}

// A check that takes every fault for one of the store says nothing of what it was shown, either.
func TestSelfTest_UnableIsNotFound(t *testing.T) {
	l, uses := planted(t, mem.New())
	key := uses[0].Key("c1")
	spoiled, err := l.Repo.Planted(t.Context(), key, 99)
	err = l.prove(t.Context(), 1, key, spoiled, err, func(_ context.Context, p *ladder) error {
		return p.note(Problem{Level: 1, Outcome: Unable, Object: key, Text: "the store is slow"})
	})
	if s := l.subjects[0]; err != nil || s.Outcome() != Unable || !strings.Contains(s.Problems[0].Text, "could not be tried") {
		t.Errorf("%v, %+v", err, s.Problems)
	}
}

// A store that fails between the check and its trial proves nothing about the check.
func TestSelfTest_StoreFailsMeanwhile(t *testing.T) {
	store := fault.New(mem.New())
	l, uses := planted(t, store)
	store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains("/"), Count: fault.Forever, Do: fault.Fail(nil)})
	if err := l.proveContent(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
	if s := l.subjects[0]; s.Outcome() != Unable || !strings.Contains(s.Problems[0].Text, "could not be tried") {
		t.Errorf("%+v", s.Problems)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.proveContent(ctx, uses); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSelfTest_Pages(t *testing.T) {
	l := &ladder{BackupOptions: BackupOptions{Logger: slog.New(slog.DiscardHandler)}}
	s := &subject{snap: &repo.Snapshot{Manifest: &repo.Manifest{StartLSN: 0x5000028, StopLSN: 0x6000100}}}
	for l.Seed = range 2000 {
		l.provePage(s, &soundPage{page(0x5000000, true), "base/1/2", 7})
	}
	if len(s.Problems) > 0 {
		t.Errorf("%+v", s.Problems)
	}
	l.provePage(s, &soundPage{page(0x5000028, true), "base/1/2", 7}) // one that checkPage leaves to replay, as a blind check would
	if s.Levels[3] != Unable || len(s.Problems) != 1 || s.Problems[0].Block != -1 {
		t.Errorf("a blind check: %q, %+v", s.Levels, s.Problems)
	}
	if compared(page(0x5000028, true), 0x5000028, 0x6000100) || compared(make([]byte, pg.BlockSize), 1, 2) || !compared(page(1, true), 2, 3) {
		t.Error("which pages are compared")
	}
}
