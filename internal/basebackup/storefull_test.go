package basebackup_test

import (
	"errors"
	"syscall"
	"testing"

	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// TestTake_StoreFull lets the store have no space left for one kind of object after another: in the write, of which
// nothing is seen then, and after it, in sync or close, when the object may be there all the same. (That the store itself
// leaves nothing half done at each of its system calls is tested in blob/fs.) In the first case the backup fails and says
// why, and no half of it can be seen; in the second it may also succeed, since the store vouches for what it finds when
// the write is repeated (R14). Once there is space the next backup is taken, and all that is visible is whole.
func TestTake_StoreFull(t *testing.T) {
	b := newBench(t, pgtest.Options{Checksums: true})
	b.fill(t, 1)
	for _, key := range []string{"/leases/", "/intents/", "/data/", "/tree/", "/backups/"} {
		for when, do := range map[string]func(error) fault.Action{"in write": fault.Fail, "in sync or close": fault.FailAfter} {
			t.Run(key[1:len(key)-1]+" "+when, func(t *testing.T) {
				b.fails(t, fault.Rule{Op: fault.Writes, Key: fault.Contains(key), Count: fault.Forever, Do: do(syscall.ENOSPC)},
					when != "in write")
			})
		}
	}
	if _, err := b.take(t, b.options(t)); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	manifests, _ := b.visible(t)
	if len(manifests) == 0 {
		t.Error("no backup is visible")
	}
	clean, err := repo.Open(t.Context(), b.files)
	if err != nil {
		t.Fatal(err)
	}
	reports, err := verify.All(t.Context(), verify.BackupOptions{Repo: clean, Cluster: "c1", Level: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(reports) != len(manifests) {
		t.Errorf("%d reports of %d backups", len(reports), len(manifests))
	}
	for i := range reports {
		if got := reports[i].Outcome(); got != verify.Passed {
			t.Errorf("backup %s is %v: %v", reports[i].BackupID, got, reports[i].Problems)
		}
	}
}

// fails takes a backup while a rule holds. maybe: it may also succeed.
func (b *bench) fails(t *testing.T, rule fault.Rule, maybe bool) {
	before, _ := b.visible(t)
	full := fault.New(b.files, rule)
	r, err := repo.Open(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	opts := b.options(t)
	opts.Repo = r // and one workflow, whose next attempt takes the lease over
	_, err = b.take(t, opts)
	if unused := full.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
	after, _ := b.visible(t)
	switch {
	case err == nil && maybe && len(after) == len(before)+1:
	case err == nil:
		t.Errorf("a backup was taken without space; %d are visible, %d were", len(after), len(before))
	case !errors.Is(err, syscall.ENOSPC):
		t.Errorf("it does not say what is wrong: %v", err)
	case len(after) != len(before):
		t.Errorf("%d backups are visible, %d were", len(after), len(before))
	}
	t.Log(err)
}
