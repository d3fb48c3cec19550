package basebackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// TestTakeLocal_TheSessionIsLost: with the session that holds backup mode goes the attempt (R6), at once while it reads
// and at the latest before it stops. Nothing is visible, and the next attempt is a new backup.
func TestTakeLocal_TheSessionIsLost(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.ballast(t, 1)
	for _, c := range []struct {
		name  string
		every time.Duration
	}{{"seen while files are read", 50 * time.Millisecond}, {"seen before the stop", time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			defer basebackup.SetPingEvery(basebackup.SetPingEvery(c.every))
			g, second := newGate(), newGate()
			b.store.Add(g.at("/data/"), second.at("/data/"))
			opts := b.localOptions(t)
			opts.CheckpointEvery = time.Hour // each attempt stores all
			ended := b.background(t, opts)
			g.wait(t)
			second.wait(t)
			const pinned = "from pg_stat_activity where usename = 'reader' and state = 'idle'"
			if n := b.SQL(t, "select count(*) "+pinned); n != "1" {
				t.Fatalf("%s sessions may be the one that holds backup mode", n)
			}
			b.Exec(t, "select pg_terminate_backend(pid) "+pinned)
			if c.every == time.Hour {
				close(g.open)
				close(second.open)
			}
			err := <-ended // in the first case, although the store does not answer
			if err == nil || !strings.Contains(err.Error(), "backup mode is lost") {
				t.Errorf("the attempt ended with %v", err)
			}
			if manifests, _ := b.visible(t); len(manifests) != 0 {
				t.Errorf("there are %d backups", len(manifests))
			}
		})
	}
	m, err := b.take(t, b.localOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	if manifests, intents := b.visible(t); len(manifests) != 1 || len(intents) != 0 || manifests[0].BackupID != m.BackupID {
		t.Errorf("in the end there are %d backups and %d intents, want 1 and none", len(manifests), len(intents))
	}
	if _, err := os.Lstat(filepath.Join(b.DataDir, "backup_label")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a backup_label in the live directory (%v)", err)
	}
}

// takeChild takes a backup from a directory, slowly.
func takeChild(dsn, repoDir, dataDir string) error {
	files, err := openStore(repoDir)
	if err != nil {
		return err
	}
	store := fault.New(files, fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/data/"), Count: fault.Forever, Do: fault.Delay(time.Second)})
	r, err := repo.Open(context.Background(), store)
	if err != nil {
		return err
	}
	opts, err := childOptions(dsn)
	if err != nil {
		return err
	}
	opts.Repo, opts.DataDirectory, opts.CheckpointEvery, opts.WorkflowID = r, dataDir, 30*time.Millisecond, "w1"
	opts.Workers = 1 // one file after the other
	_, err = basebackup.Take(context.Background(), opts)
	return err
}

// TestTakeLocal_Killed: a process that dies by kill -9 in the middle leaves the server out of backup mode, and nothing
// visible; the next attempt stores nothing again of what a checkpoint of the dead one has.
func TestTakeLocal_Killed(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.ballast(t, 2)
	opts := b.localOptions(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDSN+"="+strings.Replace(b.DSN(""), "user=postgres", "user=reader", 1),
		childRepo+"="+b.repoDir, childDir+"="+b.DataDir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.Logf("the child said: %s", stderr.String()) })
	pgtest.Eventually(t, "a checkpoint of the backup", func() bool {
		intents, err := b.repo.Intents(t.Context(), "c1")
		if err != nil || len(intents) != 1 {
			return false
		}
		base, err := b.repo.ResumeBaseline(t.Context(), "c1", intents[0].BackupID)
		if err != nil {
			return false
		}
		e, ok, err := base.Lookup(t.Context(), "ballast0")
		return err == nil && ok && e.Size > 0
	})
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Fatal("the backup was over before it was killed")
	}
	pgtest.Eventually(t, "the end of the session", func() bool {
		return b.SQL(t, "select count(*) from pg_stat_activity where usename = 'reader'") == "0"
	})
	if manifests, intents := b.visible(t); len(manifests) != 0 || len(intents) != 1 {
		t.Errorf("after the kill there are %d backups and %d intents; %s", len(manifests), len(intents), stderr.String())
	}
	m, err := b.take(t, opts)
	if err != nil {
		t.Fatal(err)
	}
	if m.ChangedBytes > m.SourceBytes-(50<<20) {
		t.Errorf("the next attempt stored %d of %d bytes, although 50 MiB were in a checkpoint", m.ChangedBytes, m.SourceBytes)
	}
	if manifests, intents := b.visible(t); len(manifests) != 1 || len(intents) != 0 {
		t.Errorf("in the end there are %d backups and %d intents", len(manifests), len(intents))
	}
}

// TestTakeLocal_WrongDirectory: what is not the server's own directory is refused, the less it is alike the earlier.
func TestTakeLocal_WrongDirectory(t *testing.T) {
	defer basebackup.SetPatience(basebackup.SetPatience(300 * time.Millisecond))
	archive := func(*pgtest.Server) string { return "/bin/true" }
	s := pgtest.New(t, pgtest.Options{Archive: archive})
	clone := pgtest.New(t, pgtest.Options{}) // of the same system identifier
	other := pgtest.New(t, pgtest.Options{OwnIdentity: true, Stopped: true})
	twin := filepath.Join(pgtest.TempDir(t), "twin")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", s.DataDir, twin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if a, b := s.SQL(t, "select system_identifier from pg_control_system()"), clone.SQL(t, "select system_identifier from pg_control_system()"); a != b {
		t.Fatalf("the clone has system identifier %s, the server %s", b, a)
	}
	for _, c := range []struct {
		name, dir, want string
		foreign         bool
		intents         int
	}{
		// First: the checkpoint of any other's attempt would tell the copy from the server before the backup begins.
		{"a copy of the server", twin, "it is a copy, a standby or another clone", true, 1},
		{"another server's", other.DataDir, "it is of system identifier", true, 0},
		{"a clone's", clone.DataDir, "it is a copy, a standby or another clone", true, -1},
		{"no data directory", filepath.Dir(twin), "there is none on this host", false, 0},
		{"nothing at all", "/nonexistent/data", "there is none on this host", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := repo.OpenOrCreate(t.Context(), mem.New())
			if err != nil {
				t.Fatal(err)
			}
			_, err = basebackup.Take(t.Context(), basebackup.Options{
				Repo: r, Cluster: "c1", Server: config(t, s.DSN("")), DataDirectory: c.dir, WorkflowID: "w",
			})
			var wrong *basebackup.DirectoryError
			if !errors.As(err, &wrong) || wrong.Foreign != c.foreign || !strings.Contains(err.Error(), c.want) || wrong.Hint == "" {
				t.Fatalf("error is %v", err)
			}
			if c.foreign && !strings.Contains(err.Error(), "which is "+s.DataDir) {
				t.Errorf("the error does not tell the right directory: %v", err)
			}
			if manifests, err := r.Manifests(t.Context(), "c1"); err != nil || len(manifests) != 0 {
				t.Errorf("there are backups %v, %v", manifests, err)
			}
			if intents, err := r.Intents(t.Context(), "c1"); err != nil || c.intents >= 0 && len(intents) != c.intents {
				t.Errorf("there are %d intents, %v", len(intents), err)
			}
		})
	}
}

// A pg_control that is read while it is written is read again (R6), for a while.
func TestReadControl_Torn(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{Stopped: true})
	path := filepath.Join(s.DataDir, "global/pg_control")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := bytes.Clone(whole)
	torn[40]++
	write := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Error(err)
		}
	}
	write(torn)
	timer := time.AfterFunc(200*time.Millisecond, func() { write(whole) })
	defer timer.Stop()
	if err := basebackup.ReadControl(t.Context(), s.DataDir); err != nil {
		t.Errorf("a file that was whole a moment later: %v", err)
	}
	defer basebackup.SetPatience(basebackup.SetPatience(200 * time.Millisecond))
	write(torn)
	if err := basebackup.ReadControl(t.Context(), s.DataDir); !errors.Is(err, pg.ErrControlCRC) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestTakeLocal_Privileges: the role lacks the functions, the process the right to read. Both are told with the remedy.
func TestTakeLocal_Privileges(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	opts := b.localOptions(t)
	b.Exec(t, "revoke execute on function pg_backup_stop(boolean) from reader")
	var unsupported *basebackup.UnsupportedError
	if _, err := b.take(t, opts); !errors.As(err, &unsupported) || !strings.Contains(err.Error(), basebackup.BackupGrant("reader")) {
		t.Errorf("without the grant: %v", err)
	}
	b.Exec(t, basebackup.BackupGrant("reader"))
	if _, err := b.take(t, opts); err != nil {
		t.Errorf("with the grant that the error named: %v", err)
	}

	nobody, err := user.Lookup("nobody")
	if err != nil || os.Getuid() != 0 {
		t.Skipf("a process of a user who may not read the directory needs root and the user nobody: %v", err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	file := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s port=%d user=reader dbname=postgres\", data_directory: %q}}\n",
		b.repoDir, b.SocketDir, b.Port, b.DataDir)
	if err := errors.Join(os.WriteFile(file, []byte(yaml), 0o644), os.Chmod(b.SocketDir, 0o755), os.Chmod(b.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), pgtest.Build(t, "lifeboat/cmd/starter"), "backup", "c1", "--local", "--config", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "may not read it") || !strings.Contains(string(out), "run Lifeboat as the server's own user") {
		t.Errorf("as %s: %v\n%s", nobody.Username, err, out)
	}
	if manifests, _ := b.visible(t); len(manifests) != 1 {
		t.Errorf("there are %d backups", len(manifests))
	}
}
