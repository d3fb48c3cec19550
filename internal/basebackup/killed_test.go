package basebackup_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// TestTake_TheNextAttemptStoresNothingAgain cuts an attempt off in the middle of the stream. The next one is a new
// backup (R6), and stores again nothing of what a checkpoint of the dead one has.
func TestTake_TheNextAttemptStoresNothingAgain(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.fill(t, 30)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.store.Add(
		// Slow enough for checkpoints in between. The first one that records a good part is the last one.
		fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/data/"), Count: fault.Forever, Do: fault.Delay(100 * time.Millisecond)},
		fault.Rule{Op: fault.Put, Key: fault.Contains("/run-"), Count: fault.Forever, Do: fault.After(func(ctx context.Context, _ fault.Call) error {
			if b.checkpointed(ctx, t) > 2<<20 {
				cancel()
			}
			return nil
		})},
	)
	opts := b.options(t)
	opts.CheckpointEvery = 30 * time.Millisecond
	if _, err := basebackup.Take(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("the cancelled attempt ended with %v", err)
	}
	if unused := b.store.Unused(); len(unused) > 0 {
		t.Fatalf("faults that did not happen: %v", unused)
	}
	manifests, intents := b.visible(t)
	if len(manifests) != 0 || len(intents) != 1 {
		t.Fatalf("after the cancelled attempt there are %d backups and %d intents", len(manifests), len(intents))
	}
	base, err := b.repo.ResumeBaseline(t.Context(), "c1", intents[0].BackupID)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.take(t, b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.BackupID == intents[0].BackupID || m.StartedAt.Before(intents[0].StartedAt) {
		t.Errorf("the second attempt has the id %s of the first", m.BackupID)
	}
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	var kept int64
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		old, ok, err := base.Lookup(t.Context(), e.Path)
		if err != nil {
			t.Fatal(err)
		}
		if ok && old.Size == e.Size && old.CRC == e.CRC {
			kept += e.Size
		}
	}
	t.Logf("%d of %d bytes were in a checkpoint; the second attempt stored %d", kept, m.SourceBytes, m.ChangedBytes)
	if kept < 1<<20 {
		t.Errorf("only %d bytes were in a checkpoint: nothing was proved", kept)
	}
	if m.ChangedBytes > m.SourceBytes-kept {
		t.Errorf("the second attempt stored %d bytes of %d, although %d were in a checkpoint", m.ChangedBytes, m.SourceBytes, kept)
	}
	if manifests, intents = b.visible(t); len(manifests) != 1 || len(intents) != 0 {
		t.Errorf("there are %d backups and %d intents, want 1 and none", len(manifests), len(intents))
	}
}

// checkpointed counts the bytes of the server's files that the checkpoints of the only intent have.
func (b *bench) checkpointed(ctx context.Context, t *testing.T) (bytes int64) {
	intents, err := b.repo.Intents(ctx, "c1")
	if err != nil || len(intents) != 1 {
		t.Errorf("intents: %v, %v", intents, err)
		return 0
	}
	base, err := b.repo.ResumeBaseline(ctx, "c1", intents[0].BackupID)
	if err != nil {
		t.Error(err)
		return 0
	}
	files, err := filepath.Glob(b.DataDir + "/base/*/*")
	if err != nil {
		t.Error(err)
	}
	for _, path := range files {
		e, ok, err := base.Lookup(ctx, strings.TrimPrefix(path, b.DataDir+"/"))
		if err != nil {
			t.Error(err)
		}
		if ok {
			bytes += e.Size
		}
	}
	return bytes
}

// TestTake_OneAtATime: another workflow is turned away while a backup runs, the next attempt of the same one takes over,
// and the attempt that lost the lease ends without a manifest (R12).
func TestTake_OneAtATime(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.fill(t, 2)
	g := newGate()
	b.store.Add(g.at("/data/"))
	first := b.background(t, b.options(t))
	g.wait(t)

	other := b.options(t)
	other.WorkflowID = "w2"
	var busy *repo.BusyError
	if _, err := b.take(t, other); !errors.As(err, &busy) || busy.Owner != "w1" {
		t.Errorf("another workflow: %v", err)
	}
	if _, intents := b.visible(t); len(intents) != 1 {
		t.Errorf("the one that was turned away left %d intents", len(intents)-1)
	}
	m, err := b.take(t, b.options(t))
	if err != nil {
		t.Fatalf("the next attempt of the same workflow: %v", err)
	}
	close(g.open)
	if err := <-first; !errors.Is(err, repo.ErrLeaseLost) {
		t.Errorf("the first attempt ended with %v", err)
	}
	manifests, _ := b.visible(t)
	if len(manifests) != 1 || manifests[0].BackupID != m.BackupID {
		t.Errorf("there are %d backups, want the second attempt's", len(manifests))
	}
	if _, err := b.take(t, other); err != nil {
		t.Errorf("another workflow, afterwards: %v", err)
	}
}

// TestTake_EndsWhenTheLeaseIsLost: also while a store does not answer, the work ends soon after somebody took the lease,
// or after it could not be renewed in time.
func TestTake_EndsWhenTheLeaseIsLost(t *testing.T) {
	defer basebackup.SetLeaseTTL(basebackup.SetLeaseTTL(800 * time.Millisecond))
	b := newBench(t, pgtest.Options{})
	b.fill(t, 2)
	lost := func(t *testing.T, ended <-chan error) {
		t.Helper()
		select {
		case err := <-ended:
			if !errors.Is(err, repo.ErrLeaseLost) {
				t.Errorf("the attempt ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the attempt goes on")
		}
		if manifests, _ := b.visible(t); len(manifests) != 0 {
			t.Errorf("there are %d backups", len(manifests))
		}
	}
	t.Run("taken", func(t *testing.T) {
		g := newGate()
		b.store.Add(g.at("/data/"))
		ended := b.background(t, b.options(t))
		g.wait(t)
		clean, err := repo.Open(t.Context(), b.files)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clean.AcquireLease(t.Context(), "c1", "backup", "w1", "elsewhere", time.Second); err != nil {
			t.Fatal(err)
		}
		lost(t, ended)
	})
	for _, c := range []struct {
		name  string
		do    fault.Action
		count int // of renewals until the time is over; the release afterwards shall not wait
	}{{"failing", fault.Fail(nil), 6}, {"silent", fault.Hang(), 2}} {
		t.Run("not renewed, the store is "+c.name, func(t *testing.T) {
			g := newGate()
			b.store.Add(g.at("/data/"))
			ended := b.background(t, b.options(t))
			g.wait(t)
			b.store.Add(fault.Rule{Op: fault.Put, Key: fault.Contains("/leases/"), Count: c.count, Do: c.do})
			lost(t, ended)
		})
	}
}

// TestTake_NothingIsVisibleWhenTheStoreFails lets writes fail at random places: an error, never a backup. In the end the
// store is sound, and so is the next attempt.
func TestTake_NothingIsVisibleWhenTheStoreFails(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.ballast(t, 1) // three packs of data or more
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	opts := b.options(t)
	opts.CheckpointEvery = time.Hour // each attempt stores all
	for _, part := range []string{"/data/", "/tree/", "/backups/", "/intent", "/leases/", "/data/"} {
		nth := 1
		if part == "/data/" {
			nth += rng.IntN(3)
		}
		b.store = fault.New(b.files, fault.Rule{
			Op: fault.PutIfAbsent, Key: fault.Contains(part), Nth: nth, Count: fault.Forever, Do: fault.Fail(nil),
		})
		var err error
		if opts.Repo, err = repo.Open(t.Context(), b.store); err != nil {
			t.Fatal(err)
		}
		_, err = b.take(t, opts)
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("failing %s from the %d. on: %v", part, nth, err)
		}
		if manifests, _ := b.visible(t); len(manifests) != 0 {
			t.Fatalf("failing %s from the %d. on: there is a backup", part, nth)
		}
	}
	opts.Repo = b.repo
	if _, err := b.take(t, opts); err != nil {
		t.Fatal(err)
	}
	if manifests, intents := b.visible(t); len(manifests) != 1 || len(intents) != 0 {
		t.Errorf("in the end there are %d backups and %d intents, want 1 and none", len(manifests), len(intents))
	}
}

// A manifest whose reply was lost is there, once, and the backup has succeeded (R14).
func TestTake_LostReplyOfTheManifest(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.store.Add(fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/backups/"), Do: fault.FailAfter(nil)},
		// An intent that cannot be dropped does not spoil a finished backup.
		fault.Rule{Op: fault.Delete, Key: fault.Contains("/intents/"), Do: fault.Fail(nil)})
	m, err := b.take(t, b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if unused := b.store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
	if manifests, _ := b.visible(t); len(manifests) != 1 || manifests[0].BackupID != m.BackupID {
		t.Errorf("there are %d backups", len(manifests))
	}
}

// TestTake_TheServerDies in the middle of the stream.
func TestTake_TheServerDies(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.ballast(t, 4)
	// Two packs are held, so that the stream is not read to its end.
	g, second := newGate(), newGate()
	b.store.Add(g.at("/data/"), second.at("/data/"))
	ended := b.background(t, b.options(t))
	g.wait(t)
	second.wait(t)
	b.Kill(t)
	close(g.open)
	close(second.open)
	err := <-ended
	if err == nil || strings.Contains(err.Error(), "WAL segment") {
		t.Errorf("the backup of a server that died ended with %v", err)
	}
	if manifests, intents := b.visible(t); len(manifests) != 0 || len(intents) != 1 {
		t.Errorf("there are %d backups and %d intents, want none and one", len(manifests), len(intents))
	}
	b.Start(t)
	if _, err := b.take(t, b.options(t)); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}
