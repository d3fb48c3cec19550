package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// What could not be looked at is neither a pass nor a failure of the backup.
func TestTrouble(t *testing.T) {
	b := newBench(t, pgtest.Options{Checksums: true})
	m := b.backup(t)
	b.archive(t)
	run := func(t *testing.T, level int, change func(*verify.BackupOptions), rules ...fault.Rule) (verify.BackupReport, error) {
		t.Helper()
		store, err := fs.Open(b.dir, fs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		faulty := fault.New(store)
		opts := b.options(t, level)
		if opts.Repo, err = repo.Open(t.Context(), faulty); err != nil {
			t.Fatal(err)
		}
		faulty.Add(rules...)
		opts.BackupID = m.BackupID
		if change != nil {
			change(&opts)
		}
		report, err := verify.Backup(t.Context(), opts)
		if unused := faulty.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
		return report, err
	}
	t.Run("OneObjectCannotBeRead", func(t *testing.T) {
		for level, key := range map[int]string{1: b.objects(t, "data/")[0], 2: repo.WALKey(cluster, b.SQL(t, "select pg_walfile_name($1::text::pg_lsn)", m.StartLSN.String()))} {
			r, err := run(t, 2, nil, fault.Rule{Op: fault.GetRead, Key: fault.Exactly(key), Count: fault.Forever, Do: fault.Fail(nil)})
			if err != nil || r.Outcome() != verify.Unable || r.Levels[level] != verify.Unable || r.Level() != level-1 || r.Problems[0].Object != key {
				t.Errorf("%v, %s", err, text(r))
			}
		}
	})
	t.Run("TheStoreIsDown", func(t *testing.T) {
		_, err := run(t, 2, nil, fault.Rule{Op: fault.List, Count: fault.Forever, Do: fault.Fail(nil)})
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("NoPostgreSQLOfThatMajor", func(t *testing.T) {
		r := b.verify(t, m, 3)
		if r.Outcome() != verify.Passed {
			t.Fatal(text(r))
		}
		r, err := run(t, 5, func(o *verify.BackupOptions) { o.Owner = "nobody-of-that-name" })
		if os.Geteuid() != 0 {
			t.Skip("only root chooses the owner")
		}
		if err != nil || r.Outcome() != verify.Unable || r.Level() != 3 || r.Levels[4] != verify.Unable || r.Levels[5] != verify.Unable ||
			!strings.Contains(r.Problems[0].Text, "could not run") {
			t.Errorf("%v, %s", err, text(r))
		}
	})
	t.Run("NoRestoreCommand", func(t *testing.T) {
		r, err := run(t, 5, func(o *verify.BackupOptions) { o.Fetch = []string{"/bin/false"} })
		if err != nil || r.Outcome() == verify.Passed || r.Level() != 4 {
			t.Errorf("a server without WAL: %v, %s", err, text(r))
		}
		nothingLeft(t, b.work)
	})
	t.Run("UnknownBackup", func(t *testing.T) {
		_, err := run(t, 0, func(o *verify.BackupOptions) { o.BackupID = "20200101T000000Z-full-000000" })
		if !errors.Is(err, repo.ErrNoBackup) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("WhatADeadVerificationLeftIsRemoved", func(t *testing.T) { b.testLeftover(t, m) })
}

// testLeftover makes a place whose lock nobody holds, one that somebody holds, and one that is none of ours.
func (b *bench) testLeftover(t *testing.T, m *repo.Manifest) {
	for _, name := range []string{"verify-dead", "verify-alive", "verify-foreign"} {
		dir := filepath.Join(b.work, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.work, "verify-dead.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(b.work, "verify-alive.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if r := b.verify(t, m, 4); r.Outcome() != verify.Passed {
		t.Error(text(r))
	}
	for name, want := range map[string]bool{"verify-dead": false, "verify-dead.lock": false, "verify-alive": true, "verify-alive.lock": true, "verify-foreign": true} {
		if _, err := os.Stat(filepath.Join(b.work, name)); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", name, err == nil, want)
		}
		_ = os.RemoveAll(filepath.Join(b.work, name))
	}
	_ = lock.Close()
	nothingLeft(t, b.work)
}

func nothingLeft(t *testing.T, work string) {
	t.Helper()
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the work directory: %v, %v", left, err)
	}
}
