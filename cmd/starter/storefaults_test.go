package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pgtest"
)

// mountStore mounts a small file system for a repository; only root can.
func mountStore(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := filepath.Join(pgtest.TempDir(t), "mnt")
	mkdir(t, filepath.Dir(dir), "mnt")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	mkdir(t, dir, "other") // what a repository is first archived beside: see openToArchive
	if err := pgtest.Owner(t).Chown(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fillUp leaves so many bytes free.
func fillUp(t *testing.T, dir string, free int64) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "other", "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for _, piece := range []int64{1 << 20, 4 << 10} {
		for err = nil; err == nil; {
			var n int
			n, err = f.Write(make([]byte, piece))
			size += int64(n)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(max(0, size-free)); err != nil {
		t.Fatal(err)
	}
	return filler
}

// noise makes rows that do not compress, of about so many MiB.
func (p *protected) noise(t *testing.T, table string, mib int) {
	t.Helper()
	p.Exec(t, fmt.Sprintf(`create table %s as select g, string_agg(md5(g::text || i::text || random()::text), '') as filler
		from generate_series(1, %d) g, generate_series(1, 32) i group by g`, table, mib*1024))
}

// failingSegment waits until the archiver fails at a segment, and returns it.
func (p *protected) failingSegment(t *testing.T) (segment string) {
	t.Helper()
	pgtest.Eventually(t, "the archiver fails", func() bool {
		segment = p.SQL(t, "select last_failed_wal from pg_stat_archiver where last_failed_time > coalesce(last_archived_time, '-infinity')")
		return segment != ""
	})
	return segment
}

func (p *protected) archived(segment string) bool {
	found, _ := filepath.Glob(p.repo + "/clusters/orders/wal/segments/*/" + segment)
	return len(found) == 1
}

func (p *protected) call(args ...string) call {
	return call{program: p.program, env: []string{"LIFEBOAT_CONFIG=" + p.env["LIFEBOAT_CONFIG"]}, args: args}
}

// verified runs `verify all`, which goes to level 2.
func (p *protected) verifiedAll(t *testing.T, backups int) {
	t.Helper()
	res, list, findings := p.call("verify", "orders", "all", "--local", "--json").run(t).must(t, 0).verified(t)
	if res["verdict"] != "PASS" || res["level"] != 2.0 || len(list) != backups || len(findings) > 0 {
		t.Errorf("verify all, of %d backups: %v", backups, res)
	}
}

// TestFault_StoreFull: nothing is acknowledged that is not stored, no half of anything can be seen, the message names the
// folder, and once there is space all arrives.
func TestFault_StoreFull(t *testing.T) {
	mnt := mountStore(t, "128m")
	p := protectIn(t, filepath.Join(mnt, "repo"), 0)
	p.call("backup", "orders", "--local").run(t).must(t, 0)

	// wal-push, as the archiver runs it.
	filler := fillUp(t, mnt, 0)
	p.noise(t, "a", 4)
	p.Exec(t, "select pg_switch_wal()")
	segment := p.failingSegment(t)
	if p.archived(segment) {
		t.Errorf("segment %s is in the repository, though its archiving failed", segment)
	}
	for _, name := range []string{segment, "archive_status/" + segment + ".ready"} {
		if _, err := os.Stat(filepath.Join(p.DataDir, "pg_wal", name)); err != nil {
			t.Errorf("the server does not keep what was not archived: %v", err)
		}
	}
	log, err := os.ReadFile(p.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the server's log", string(log), "no space left on device", p.repo, "hint: free space")
	refusal{call: p.call("wal-push", "--cluster", "orders", filepath.Join(p.DataDir, "pg_wal", segment)), exit: 1, code: "NoSpace", says: p.repo, hint: "free space"}.
		check(t, digests(t, p.repo))

	// A backup: at its first object, and when the first pack of its data is full.
	refusal{call: p.call("backup", "orders", "--local"), exit: 1, code: "NoSpace", says: p.repo, hint: "free space"}.check(t, digests(t, p.repo))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	filler = fillUp(t, mnt, 2<<20)
	p.noise(t, "b", 48)
	refusal{call: p.call("backup", "orders", "--local"), exit: 1, code: "NoSpace", says: p.repo, hint: "free space"}.
		check(t, digests(t, p.repo+"/clusters/orders/backups", p.repo+"/.tmp"))
	// What is there can be read all the same.
	p.call("restore", "orders", "--target-dir", filepath.Join(p.Dir, "r"), "--to-immediate", "--local").run(t).must(t, 0)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	last := p.SQL(t, "select pg_walfile_name(pg_switch_wal())") // wakes the archiver
	pgtest.Eventually(t, "all WAL in the repository", func() bool { return p.archived(segment) && p.archived(last) })
	p.call("backup", "orders", "--local").run(t).must(t, 0)
	p.verifiedAll(t, 2)
	if left, _ := filepath.Glob(p.repo + "/.tmp/*"); len(left) > 0 {
		t.Errorf("unfinished writes are left: %v", left)
	}
}

// nobodyInGroup runs a process as a user that can read a repository, by the group of its owner, and not write to it.
func nobodyInGroup(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	owner := pgtest.Owner(t).SysProcAttr()
	if os.Getuid() != 0 || owner == nil || owner.Credential == nil {
		t.Skip("needs root to act as another user")
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{owner.Credential.Gid}}}
}

// TestFault_StoreReadOnly: what only reads goes on, as another user and on a file system that is mounted read-only; what
// writes fails at once and says what to do.
func TestFault_StoreReadOnly(t *testing.T) {
	mnt := mountStore(t, "48m")
	p := protectIn(t, filepath.Join(mnt, "repo"), 0)
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	p.call("backup", "orders", "--local").run(t).must(t, 0)
	p.archive(t)

	t.Run("as another user", func(t *testing.T) {
		as := nobodyInGroup(t)
		// PostgreSQL's umask keeps others out of what archive_command makes; an administrator lets the group read.
		if out, err := exec.CommandContext(t.Context(), "chmod", "-R", "g+rX", p.repo).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.readOnly(t, as, "give user id 65534 access")
	})
	t.Run("read-only mount", func(t *testing.T) {
		if err := unix.Mount("", mnt, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Skipf("cannot remount: %v", err)
		}
		p.Exec(t, "select pg_logical_emit_message(true, 'test', 'more')")
		p.Exec(t, "select pg_switch_wal()")
		segment := p.failingSegment(t)
		p.readOnly(t, pgtest.Owner(t).SysProcAttr(), "mount the file system for writing")
		if err := unix.Mount("", mnt, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		p.Exec(t, "select pg_logical_emit_message(true, 'test', 'and more')")
		last := p.SQL(t, "select pg_walfile_name(pg_switch_wal())")
		pgtest.Eventually(t, "all WAL in the repository", func() bool { return p.archived(segment) && p.archived(last) })
		p.verifiedAll(t, 1)
	})
}

// readOnly checks every command on a repository that may only be read.
func (p *protected) readOnly(t *testing.T, as *syscall.SysProcAttr, remedy string) {
	dir := pgtest.TempDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	from := func(args ...string) call {
		return call{program: p.program, as: as, args: append([]string{"--repository", "file://" + p.repo}, args...)}
	}
	segment := p.SQL(t, "select last_archived_wal from pg_stat_archiver")
	for _, c := range []call{
		from("backups", "orders", "--json"),
		from("show", "orders", "latest"),
		from("wal-status", "orders"),
		from("wal-fetch", segment, filepath.Join(dir, "RECOVERYXLOG"), "--cluster", "orders"),
		from("verify", "orders", "all", "--local", "--json"),
		from("restore", "orders", "--target-dir", filepath.Join(dir, "r"), "--local"),
	} {
		if got := c.run(t); got.code != 0 {
			t.Errorf("%s: exit code %d: %s", strings.Join(c.args[2:4], " "), got.code, got.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "r/global/pg_control")); err != nil {
		t.Errorf("the restore laid nothing: %v", err)
	}
	wal := filepath.Join(dir, segment)
	from("wal-fetch", segment, wal, "--cluster", "orders").run(t).must(t, 0)
	backup := p.call("backup", "orders", "--local")
	backup.as = as
	before := digests(t, p.repo)
	refusal{call: backup, exit: 1, code: "NoAccess", says: p.repo, hint: remedy}.check(t, before)
	// A segment that is not there yet: one that is there needs no write.
	absent := p.SQL(t, "select pg_walfile_name(pg_current_wal_lsn())")
	n, err := strconv.ParseUint(absent[16:], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	history := filepath.Join(dir, fmt.Sprintf("%08X.history", n+2))
	if err := os.WriteFile(history, []byte("1\t0/3000000\tno recovery target specified\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refusal{call: from("wal-push", history, "--cluster", "orders"), exit: 1, code: "NoAccess", says: p.repo, hint: remedy}.check(t, before)
}
