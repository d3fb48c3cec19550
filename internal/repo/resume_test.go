package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

func manyFiles(n int) map[string][]byte {
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("base/5/%04d", i)] = random(uint64(i), 500+i*37)
	}
	files["base/6/large"] = random(1, 300_000)
	return files
}

// TestResume_StoresNothingAgain kills a writer after a checkpoint: the next one stores only what the checkpoint lacks.
func TestResume_StoresNothingAgain(t *testing.T) {
	eachHeader(t, func(t *testing.T, r *repo.Repository, store *mem.Store, _ int) {
		dead := repo.NewBackupID(time.Now(), repo.Full)
		if err := r.PutIntent(t.Context(), "c1", repo.Intent{BackupID: dead, Host: "h"}); err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, r, repo.WriterOptions{BackupID: dead, CheckpointEvery: time.Hour})
		recorded := manyFiles(200)
		writeFiles(t, w, recorded)
		repo.Checkpoint(t, w)
		more := map[string][]byte{"base/7/later": random(7, 1000), "base/7/lost": random(8, 2000)}
		writeFiles(t, w, map[string][]byte{"base/7/later": more["base/7/later"]})
		repo.Checkpoint(t, w)
		repo.Checkpoint(t, w) // nothing new: no object
		writeFiles(t, w, map[string][]byte{"base/7/lost": more["base/7/lost"]})
		w.Close()
		if runs := objects(t, store, "clusters/c1/intents/"+dead+"/run-"); len(runs) != 2 {
			t.Errorf("%d checkpoints, want 2", len(runs))
		}
		before := objects(t, store, "")

		base, err := r.ResumeBaseline(t.Context(), "c1", dead)
		if err != nil {
			t.Fatal(err)
		}
		files := maps.Clone(recorded)
		maps.Copy(files, more)
		snap, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{base}})
		if stats.NewChunks != 1 || stats.ChangedBytes != 2000 {
			t.Errorf("%d chunks of %d bytes stored again, want only base/7/lost: %+v", stats.NewChunks, stats.ChangedBytes, stats)
		}
		// The nodes are shared too: only pages of the table are new.
		chunks, nodes := newFrames(t, store, before)
		if pages := len(snap.Manifest.Table.Pages); chunks != 1 || nodes != pages {
			t.Errorf("%d chunks and %d nodes are new, want 1 and the %d pages", chunks, nodes, pages)
		}
		expect(t, snap, files)

		if err := r.DropIntent(t.Context(), "c1", dead); err != nil {
			t.Fatal(err)
		}
		if left := objects(t, store, "clusters/c1/intents/"); len(left) != 0 {
			t.Errorf("%d objects of the intent are left", len(left))
		}
		expect(t, snap, files) // what the checkpoints named is still there
	})
}

// TestResume_ChecksContent checks that a file which changed since the checkpoint is not taken from it (R6).
func TestResume_ChecksContent(t *testing.T) {
	r := newSmall(t, mem.New())
	dead := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: dead, CheckpointEvery: time.Hour})
	files := manyFiles(5)
	writeFiles(t, w, files)
	repo.Checkpoint(t, w)
	w.Close()
	base, err := r.ResumeBaseline(t.Context(), "c1", dead)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range files {
		data[len(data)/2] ^= 1
	}
	snap, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{base}})
	if stats.NewChunks != 6 {
		t.Errorf("%d new chunks, want one a file", stats.NewChunks)
	}
	expect(t, snap, files)
}

// TestResume_CheckpointsByTime lets the writer make its checkpoints itself while it is writing.
func TestResume_CheckpointsByTime(t *testing.T) {
	store := mem.New()
	r := newSmall(t, store)
	dead := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: dead, CheckpointEvery: time.Millisecond})
	files := map[string][]byte{}
	for i := 0; len(objects(t, store, "clusters/c1/intents/"+dead+"/run-")) < 3; i++ {
		path := fmt.Sprintf("f%06d", i)
		files[path] = random(uint64(i), 9000)
		writeFiles(t, w, map[string][]byte{path: files[path]})
	}
	w.Close()
	base, err := r.ResumeBaseline(t.Context(), "c1", dead)
	if err != nil {
		t.Fatal(err)
	}
	snap, stats := backup(t, r, files, repo.WriterOptions{Baselines: []repo.Baseline{base}})
	if stats.NewChunks == stats.Chunks {
		t.Error("the checkpoints saved nothing")
	}
	expect(t, snap, files)
}

// TestResume_CheckpointNamesOnlyDurableFrames fails uploads at every place. Whatever checkpoints there are then, all
// that they name must be readable.
func TestResume_CheckpointNamesOnlyDurableFrames(t *testing.T) {
	named := 0
	for nth := 1; nth <= 20; nth++ {
		for _, part := range []string{"/data/", "/tree/", "/run-"} {
			inner := mem.New()
			store := fault.New(inner, fault.Rule{Op: fault.Writes, Key: fault.Contains(part), Nth: nth, Count: fault.Forever, Do: fault.Fail(nil)})
			r := newSmall(t, store)
			dead := repo.NewBackupID(time.Now(), repo.Full)
			w := newWriter(t, r, repo.WriterOptions{BackupID: dead, CheckpointEvery: 200 * time.Microsecond, Uploads: 3})
			for i := range 60 {
				if writeFile(t.Context(), w, fmt.Sprintf("f%d", i), random(uint64(i), 10_000+i)) != nil {
					break
				}
			}
			w.Close()

			entries, err := mustOpenDoc(t, inner).runEntries(dead)
			if err != nil {
				t.Fatal(err)
			}
			d := mustOpenDoc(t, inner)
			for _, e := range entries {
				got, err := d.file("c1", e)
				if err != nil {
					t.Fatalf("uploads of %s fail from number %d on: %s is in a checkpoint: %v", part, nth, e.path, err)
				}
				i, err := strconv.Atoi(e.path[1:])
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, random(uint64(i), 10_000+i)) {
					t.Fatalf("%s has other bytes", e.path)
				}
			}
			named += len(entries)
		}
	}
	if named == 0 {
		t.Error("no checkpoint was ever written: the test tried nothing")
	}
	t.Logf("%d entries in checkpoints, all readable", named)
}

func mustOpenDoc(t *testing.T, store blob.Store) *docReader {
	t.Helper()
	d, err := openDoc(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// runEntries lists the entries of all checkpoints of an attempt.
func (r *docReader) runEntries(id string) (entries []docEntry, err error) {
	for info, err := range r.store.List(r.ctx, "clusters/c1/intents/"+id+"/run-", "") {
		if err != nil {
			return nil, err
		}
		more, err := r.run(info.Key)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	return entries, nil
}

// TestResume_FailedCheckpointCostsNothing checks that a checkpoint that could not be stored does not end the backup,
// and that its entries stand in the next one.
func TestResume_FailedCheckpointCostsNothing(t *testing.T) {
	inner := mem.New()
	store := fault.New(inner, fault.Rule{Op: fault.Put, Key: fault.Contains("/run-"), Count: 2, Do: fault.Fail(nil)})
	r := newSmall(t, store)
	id := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: id, CheckpointEvery: time.Millisecond})
	files := manyFiles(10)
	writeFiles(t, w, files)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		entries, err := mustOpenDoc(t, inner).runEntries(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == len(files) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d entries in checkpoints, want %d", len(entries), len(files))
		}
	}
	publish(t, r, w, id)
	if unused := store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
}

// TestResume_DamagedCheckpointSavesLess flips every byte of a checkpoint: the baseline must load, without its entries.
func TestResume_DamagedCheckpointSavesLess(t *testing.T) {
	store := mem.New()
	r := newSmall(t, store)
	dead := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: dead, CheckpointEvery: time.Hour})
	writeFiles(t, w, map[string][]byte{"a": random(1, 10)})
	repo.Checkpoint(t, w)
	writeFiles(t, w, map[string][]byte{"b": random(2, 10)})
	repo.Checkpoint(t, w)
	w.Close()
	key := "clusters/c1/intents/" + dead + "/run-000000"
	sound := objects(t, store, key)[key]
	for at := range sound {
		body := bytes.Clone(sound)
		body[at] ^= 0x10
		if err := blob.PutBytes(t.Context(), store, key, body); err != nil {
			t.Fatal(err)
		}
		base, err := r.ResumeBaseline(t.Context(), "c1", dead)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		_, hasA, _ := base.Lookup(t.Context(), "a")
		_, hasB, _ := base.Lookup(t.Context(), "b")
		if hasA || !hasB {
			t.Fatalf("byte %d flipped: entries a %v, b %v; want only b", at, hasA, hasB)
		}
	}
	failing := fault.New(store, fault.Rule{Op: fault.Get, Key: fault.Exactly(key), Do: fault.Fail(nil)},
		fault.Rule{Op: fault.List, Do: fault.Fail(nil)})
	r2, err := repo.Open(t.Context(), failing)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an error that may pass is not a lack of checkpoints
		if _, err := r2.ResumeBaseline(t.Context(), "c1", dead); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("ResumeBaseline: %v", err)
		}
	}
}

func TestIntents(t *testing.T) {
	r, store := newRepo(t)
	if got, err := r.Intents(t.Context(), "c1"); len(got) != 0 || err != nil {
		t.Errorf("Intents of nobody: %v, %v", got, err)
	}
	var want []repo.Intent
	for i := range 3 {
		at := time.Unix(int64(1_700_000_000+i), 0).UTC()
		in := repo.Intent{BackupID: repo.NewBackupID(at, repo.Full), Type: "full", WorkflowID: "w", Host: "h", StartedAt: at, Epoch: int64(i)}
		if err := r.PutIntent(t.Context(), "c1", in); err != nil {
			t.Fatal(err)
		}
		want = append(want, in)
	}
	got, err := r.Intents(t.Context(), "c1")
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Intents: %v, %v; want %v", got, err, want)
	}
	if err := r.PutIntent(t.Context(), "c1", want[0]); !errors.Is(err, blob.ErrExists) {
		t.Errorf("the same intent again: %v", err)
	}
	if err := r.PutIntent(t.Context(), "c1", repo.Intent{BackupID: "../x"}); err == nil || strings.Contains(err.Error(), "object key") {
		t.Errorf("an impossible id: %v", err)
	}
	if err := r.DropIntent(t.Context(), "c1", want[1].BackupID); err != nil {
		t.Fatal(err)
	}
	if left := objects(t, store, "clusters/c1/intents/"); len(left) != 2 {
		t.Errorf("%d intents are left, want 2", len(left))
	}
}

// TestIntents_DamagedIsListed is R12: a backup whose intent rotted is one that may be being written. Others are not hidden
// by it.
func TestIntents_DamagedIsListed(t *testing.T) {
	r, store := newRepo(t)
	var ids []string
	for i := range 3 {
		at := time.Unix(int64(1_700_000_000+i), 0).UTC()
		ids = append(ids, repo.NewBackupID(at, repo.Full))
		if err := r.PutIntent(t.Context(), "c1", repo.Intent{BackupID: ids[i], WorkflowID: "w"}); err != nil {
			t.Fatal(err)
		}
	}
	key := "clusters/c1/intents/" + ids[1] + "/intent"
	body := objects(t, store, key)[key]
	body[len(body)/2] ^= 1
	if err := blob.PutBytes(t.Context(), store, key, body); err != nil {
		t.Fatal(err)
	}
	got, err := r.Intents(t.Context(), "c1")
	if err != nil || len(got) != 3 {
		t.Fatalf("Intents: %v, %v", got, err)
	}
	for i, in := range got {
		if in.BackupID != ids[i] || (in.Damage != nil) != (i == 1) {
			t.Errorf("intent %d is %+v", i, in)
		}
	}
	if !repo.IsDamage(got[1].Damage) || !strings.Contains(got[1].Damage.Error(), key) {
		t.Errorf("damage is %v", got[1].Damage)
	}
}

// TestPutIntent_LostReply announces a backup whose first reply is lost.
func TestPutIntent_LostReply(t *testing.T) {
	inner := mem.New()
	newSmall(t, inner)
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Do: fault.FailAfter(nil)})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutIntent(t.Context(), "c1", repo.Intent{BackupID: repo.NewBackupID(time.Now(), repo.Full)}); err != nil {
		t.Errorf("PutIntent: %v", err)
	}
	if unused := store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
}
