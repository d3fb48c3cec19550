package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// takeBackup writes some files and publishes them, as an engine would: it gives up at the first error.
func takeBackup(ctx context.Context, r *repo.Repository, id string, opts repo.WriterOptions) error {
	opts.Cluster, opts.BackupID = "c1", id
	w, err := r.NewWriter(ctx, opts)
	if err != nil {
		return err
	}
	defer w.Close()
	for i := range 12 {
		if err := writeFile(ctx, w, fmt.Sprintf("f%02d", i), random(uint64(i), 40_000)); err != nil {
			return err
		}
	}
	table, err := w.Finish()
	if err != nil {
		return err
	}
	return r.PutManifest(ctx, &repo.Manifest{Cluster: "c1", BackupID: id, Type: repo.Full, Table: table})
}

// TestFaults_FailingStore lets all writes fail from the Nth on. The backup must end with that error, leave no manifest
// and no goroutine.
func TestFaults_FailingStore(t *testing.T) {
	id := repo.NewBackupID(time.Now(), repo.Full)
	for nth := 1; ; nth++ {
		inner := mem.New()
		newSmall(t, inner)
		store := fault.New(inner, fault.Rule{Op: fault.Writes, Nth: nth, Count: fault.Forever, Do: fault.Fail(nil)})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		err = takeBackup(t.Context(), r, id, repo.WriterOptions{Uploads: 1 + nth%3})
		if err := goleak.Find(); err != nil {
			t.Fatalf("write %d and all after it failed: %v", nth, err)
		}
		manifests := objects(t, inner, "clusters/c1/backups/")
		if len(store.Unused()) > 0 { // there were fewer writes than that
			if err != nil || len(manifests) != 1 || nth < 8 {
				t.Fatalf("after %d writes: %v, %d manifests", nth-1, err, len(manifests))
			}
			t.Logf("a backup of %d writes failed at each of them", nth-1)
			return
		}
		if !errors.Is(err, fault.ErrInjected) || len(manifests) != 0 {
			t.Fatalf("write %d and all after it failed: %v, %d manifests", nth, err, len(manifests))
		}
		if !strings.Contains(err.Error(), "clusters/c1/") || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("the error does not name the object, or has several lines: %v", err)
		}
	}
}

// TestFaults_LostReply loses the reply of each write in turn, or fails it once: the backup succeeds (R14).
func TestFaults_LostReply(t *testing.T) {
	id := repo.NewBackupID(time.Now(), repo.Full)
	for _, do := range []fault.Action{fault.FailAfter(nil), fault.Fail(nil)} {
		for nth := 1; ; nth++ {
			inner := mem.New()
			newSmall(t, inner)
			store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Nth: nth, Do: do})
			r, err := repo.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if err := takeBackup(t.Context(), r, id, repo.WriterOptions{}); err != nil {
				t.Fatalf("write %d: %v", nth, err)
			}
			snap, err := r.OpenBackup(t.Context(), "c1", id)
			if err != nil {
				t.Fatal(err)
			}
			if files, err := contents(t.Context(), snap); err != nil || len(files) != 12 {
				t.Fatalf("write %d: %d files, %v", nth, len(files), err)
			}
			if len(store.Unused()) > 0 {
				break
			}
		}
	}
}

// TestFaults_PackNameTaken lets another object stand under a pack's name, as no writer ever does: it is an error.
func TestFaults_PackNameTaken(t *testing.T) {
	inner := mem.New()
	newSmall(t, inner)
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/data/"), Do: fault.Before(func(ctx context.Context, c fault.Call) error {
		return blob.PutBytes(ctx, inner, c.Key, []byte("something else"))
	})})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := takeBackup(t.Context(), r, repo.NewBackupID(time.Now(), repo.Full), repo.WriterOptions{}); !errors.Is(err, blob.ErrExists) {
		t.Errorf("takeBackup: %v", err)
	}
}

// TestFaults_Cancelled cancels the context before, during and at the end of a backup, also while the store hangs.
func TestFaults_Cancelled(t *testing.T) {
	cause := errors.New("told to stop")
	for _, op := range []struct {
		name string
		rule fault.Rule
	}{
		{"first pack", fault.Rule{Op: fault.PutIfAbsent, Do: fault.Hang()}},
		{"third pack", fault.Rule{Op: fault.PutIfAbsent, Nth: 3, Do: fault.Hang()}},
		{"tree", fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/tree/"), Do: fault.Hang()}},
		{"checkpoint", fault.Rule{Op: fault.Put, Key: fault.Contains("/run-"), Do: fault.Hang()}},
		{"manifest", fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/backups/"), Do: fault.Hang()}},
	} {
		t.Run(op.name, func(t *testing.T) {
			inner := mem.New()
			newSmall(t, inner)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			op.rule.Do = hangThen(func() { cancel(cause) })
			store := fault.New(inner, op.rule)
			r, err := repo.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			opts := repo.WriterOptions{}
			if op.name == "checkpoint" {
				opts.CheckpointEvery = time.Microsecond
				opts.Inspect = func(string, int64, []byte) { <-time.After(time.Millisecond) }
			}
			err = takeBackup(ctx, r, repo.NewBackupID(time.Now(), repo.Full), opts)
			if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
				t.Errorf("takeBackup: %v", err)
			}
			if n := len(objects(t, inner, "clusters/c1/backups/")); n != 0 {
				t.Errorf("%d manifests", n)
			}
			if unused := store.Unused(); len(unused) > 0 {
				t.Errorf("faults that did not happen: %v", unused)
			}
			if err := goleak.Find(); err != nil {
				t.Error(err)
			}
		})
	}
	r, _ := newRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := takeBackup(ctx, r, repo.NewBackupID(time.Now(), repo.Full), repo.WriterOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
}

// hangThen calls f and then waits for the end of the call's context.
func hangThen(f func()) fault.Action {
	return fault.Before(func(ctx context.Context, _ fault.Call) error {
		f()
		<-ctx.Done()
		return ctx.Err()
	})
}

// TestFaults_StalledStore checks that a store which takes nothing stops the reading of the source: memory is bounded by
// the buffers and packs, not by what could be read meanwhile.
func TestFaults_StalledStore(t *testing.T) {
	inner := mem.New()
	newSmall(t, inner)
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Count: fault.Forever, Do: fault.Hang()})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := r.NewWriter(ctx, repo.WriterOptions{Cluster: "c1", BackupID: repo.NewBackupID(time.Now(), repo.Full), Workers: 2, Uploads: 2})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- writeFile(ctx, w, "f", random(1, 10<<20)) }()
	for read := int64(-1); read != w.Stats().SourceBytes; <-time.After(200 * time.Millisecond) {
		read = w.Stats().SourceBytes
	}
	// 16 buffers of 8 KiB, 2 packs on their way, one waiting and one open, each of 64 KiB and a little more.
	if read := w.Stats().SourceBytes; read < 3*64<<10 || read > 16*8<<10+4*80<<10 {
		t.Errorf("%d bytes were read although nothing can be stored", read)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("writeFile: %v", err)
	}
	w.Close()
}
