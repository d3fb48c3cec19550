package pginstance_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// R21: a bound server dies with its process, also by SIGKILL.
func TestBoundServerDiesWithItsParent(t *testing.T) {
	s := stopped(t, 0)
	parent, pid := startInOtherProcess(t, s, "bound")
	in := attach(t, s)
	ready(t, in)
	if in.PID() != pid {
		t.Fatalf("attached to %d, want %d", in.PID(), pid)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the server is gone after its parent was killed", func() bool { return !alive(pid) })
	pgtest.Eventually(t, "and so are all its processes", func() bool {
		list, err := pginstance.Running(s.DataDir)
		return err == nil && len(list) == 0
	})
	again := start(t, options(s)) // what it leaves does not hinder the next one
	ready(t, again)
}

// R21: a detached server stays, and the next process finds it, knows what it does, and can stop it.
func TestDetachedServerOutlivesItsParent(t *testing.T) {
	s := stopped(t, 0)
	parent, pid := startInOtherProcess(t, s, "detached")
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	stays(t, "the server is alive without its parent", func() bool { return alive(pid) })
	in := attach(t, s)
	if in.PID() != pid || in.SocketDir() != pginstance.PrivateSocketName(s.DataDir) || in.LogFile() != in.SocketDir()+"/postgres.log" {
		t.Errorf("attached to %d (want %d), socket in %s, log in %s", in.PID(), pid, in.SocketDir(), in.LogFile())
	}
	ready(t, in)
	if sid := sessionOf(t, pid); sid != pid {
		t.Errorf("session %d, want one of its own, %d", sid, pid)
	}
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || exists(in.SocketDir()) {
		t.Errorf("after Stop: alive %v, socket directory %v", alive(pid), exists(in.SocketDir()))
	}
}

func sessionOf(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return atoi(strings.Fields(rest)[3])
}

// The signal at the parent's death goes by threads: a thread that ends must not take the server along.
func TestServerOutlivesTheThreadOfItsStarter(t *testing.T) {
	s := stopped(t, 0)
	type result struct {
		in  *pginstance.Instance
		err error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		in, err := pginstance.Start(t.Context(), options(s))
		results <- result{in, err}
	}()
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	stopInTheEnd(t, r.in)
	stays(t, "the server is alive without the thread that called Start", func() bool { return !r.in.Ended() })
	ready(t, r.in)
}
