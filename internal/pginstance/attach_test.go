package pginstance_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// attach attaches to the running server of a cluster, and stops it when the test ends.
func attach(t *testing.T, s *pgtest.Server) *pginstance.Instance {
	t.Helper()
	in, err := pginstance.Attach(s.DataDir, pginstance.AttachOptions{PollInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stopInTheEnd(t, in)
	return in
}

func writePIDFile(t *testing.T, dataDir, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dataDir, "postmaster.pid"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Only a live postgres that works in this very directory is its server.
func TestAttachNotRunning(t *testing.T) {
	s, other := stopped(t, 0), stopped(t, 0)
	running := start(t, options(other))
	check := func(name string) {
		t.Helper()
		if in, err := pginstance.Attach(s.DataDir, pginstance.AttachOptions{}); !errors.Is(err, pginstance.ErrNotRunning) {
			t.Errorf("%s: %v, %v, want ErrNotRunning", name, in, err)
		}
	}
	check("no postmaster.pid")
	writePIDFile(t, s.DataDir, fmt.Sprintf("%d\n%s\n", 1<<22-1, s.DataDir)) // beyond pid_max
	check("a dead process")
	writePIDFile(t, s.DataDir, fmt.Sprintf("%d\n%s\n", os.Getpid(), s.DataDir))
	check("another program")
	shell := exec.Command("sleep", "60") // left in the directory by an administrator
	shell.Dir = s.DataDir
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shell.Process.Kill(); _ = shell.Wait() })
	writePIDFile(t, s.DataDir, fmt.Sprintf("%d\n%s\n", shell.Process.Pid, s.DataDir))
	check("another program that works in the directory")
	writePIDFile(t, s.DataDir, fmt.Sprintf("%d\n%s\n", running.PID(), s.DataDir))
	check("the server of another directory")
	writePIDFile(t, s.DataDir, "-5\n")
	check("a stand-alone backend that is dead")
	if _, err := pginstance.Attach(filepath.Join(s.Dir, "absent"), pginstance.AttachOptions{}); !errors.Is(err, pginstance.ErrNotRunning) {
		t.Errorf("no directory: %v", err)
	}
	writePIDFile(t, s.DataDir, "")
	if _, err := pginstance.Attach(s.DataDir, pginstance.AttachOptions{}); err == nil || errors.Is(err, pginstance.ErrNotRunning) {
		t.Errorf("an empty postmaster.pid, as at the very start of a server: %v, want an error that does not deny it", err)
	}
}

// Attached by a path with a symbolic link: it is the same server, and its end is noticed and explained.
func TestAttachSeesTheEnd(t *testing.T) {
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	link := filepath.Join(s.Dir, "link")
	if err := os.Symlink(s.DataDir, link); err != nil {
		t.Fatal(err)
	}
	attached, err := pginstance.Attach(link, pginstance.AttachOptions{PollInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if attached.PID() != in.PID() || attached.Port() != in.Port() || attached.SocketDir() != in.SocketDir() || attached.DataDir() != s.DataDir {
		t.Errorf("attached to %d, port %d, %s, %s", attached.PID(), attached.Port(), attached.SocketDir(), attached.DataDir())
	}
	if st := attached.Status(t.Context()); st.State != pginstance.StateReady {
		t.Errorf("status %+v", st)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = syscall.Kill(in.PID(), syscall.SIGKILL) })
	never := func(pginstance.Status) (bool, error) { return false, nil }
	st, err := attached.WaitReady(t.Context(), never)
	var exit *pginstance.ExitError
	if !errors.As(err, &exit) || st.State != pginstance.StateExited || exit.Code != -1 || exit.Signal != 0 {
		t.Errorf("attached: %+v, %v", st, err)
	}
	if exit != nil && !strings.Contains(strings.Join(exit.LogTail, "\n"), "database system is ready") {
		t.Errorf("attached: log tail %q", exit.LogTail)
	}
	_, err = in.WaitReady(t.Context(), never)
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("parent: %v, want the signal", err)
	}
}

// Running lists postmasters, not backends; servers whose directory was removed; and nothing outside the root.
func TestRunning(t *testing.T) {
	root := pgtest.TempDir(t)
	one, two := stopped(t, 0), stopped(t, 0)
	a, b := filepath.Join(root, "a"), filepath.Join(root, "deep", "b")
	if err := os.Mkdir(filepath.Dir(b), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{one.DataDir: a, two.DataDir: b} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	opt := options(one)
	opt.DataDir = a
	inA := start(t, opt)
	opt.DataDir = b
	inB := start(t, opt)
	outside := start(t, options(stopped(t, 0)))
	ready(t, inA)
	ready(t, inB)
	want := map[int]pginstance.Process{
		inA.PID(): {PID: inA.PID(), DataDir: a},
		inB.PID(): {PID: inB.PID(), DataDir: b},
	}
	check := func() {
		t.Helper()
		list, err := pginstance.Running(root)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != len(want) {
			t.Errorf("Running = %+v, want %+v", list, want)
		}
		for _, p := range list {
			if want[p.PID] != p {
				t.Errorf("Running lists %+v, want %+v", p, want[p.PID])
			}
		}
	}
	check()
	if list, err := pginstance.Running(a); err != nil || len(list) != 1 {
		t.Errorf("Running of a data directory itself = %v, %v", list, err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	want[inA.PID()] = pginstance.Process{PID: inA.PID(), DataDir: a, Deleted: true}
	want[inB.PID()] = pginstance.Process{PID: inB.PID(), DataDir: b, Deleted: true}
	check()
	if outside.Ended() {
		t.Error("the server outside has ended")
	}
}

// Backends that come and go meanwhile are never taken for servers.
func TestRunningAmongShortLivedBackends(t *testing.T) {
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					in.Status(t.Context())
				}
			}
		})
	}
	for range 1500 {
		if list, err := pginstance.Running(s.DataDir); err != nil || len(list) != 1 || list[0].PID != in.PID() {
			t.Errorf("Running = %v, %v, want process %d alone", list, err, in.PID())
			break
		}
	}
	close(stop)
	clients.Wait()
}
