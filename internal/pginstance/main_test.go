package pginstance_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// parentEnv makes the test binary the parent of a server instead of running tests (see startInOtherProcess).
const parentEnv = "PGINSTANCE_TEST_PARENT"

func TestMain(m *testing.M) {
	if spec := os.Getenv(parentEnv); spec != "" {
		if err := beParent(strings.Split(spec, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := pgtest.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// beParent starts a server, prints its process id, and waits to be killed.
func beParent(spec []string) error {
	bin, err := pginstance.FindBinaries(atoi(spec[0]), []string{spec[1]})
	if err != nil {
		return err
	}
	in, err := pginstance.Start(context.Background(), pginstance.Options{
		Binaries: bin, DataDir: spec[2], Detached: spec[3] == "detached",
	})
	if err != nil {
		return err
	}
	fmt.Println(in.PID())
	select {}
}

// startInOtherProcess starts a server from another process, and returns that process and the postmaster's id.
func startInOtherProcess(t *testing.T, s *pgtest.Server, how string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+strings.Join([]string{strconv.Itoa(s.Bin.Major), s.Bin.Dir, s.DataDir, how}, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var pid int
	if _, err := fmt.Fscanln(out, &pid); err != nil {
		t.Fatalf("the other process did not start a server: %v", err)
	}
	return cmd, pid
}

// stopped returns a cluster without a server.
func stopped(t *testing.T, major int) *pgtest.Server {
	t.Helper()
	return pgtest.New(t, pgtest.Options{Major: major, Stopped: true})
}

// options are those for a quick server in the cluster.
func options(s *pgtest.Server) pginstance.Options {
	return pginstance.Options{Binaries: s.Bin, DataDir: s.DataDir, PollInterval: 10 * time.Millisecond}
}

// start starts a server that is stopped when the test ends.
func start(t *testing.T, opt pginstance.Options) *pginstance.Instance {
	t.Helper()
	in, err := pginstance.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	stopInTheEnd(t, in)
	return in
}

func stopInTheEnd(t *testing.T, in *pginstance.Instance) {
	t.Helper()
	t.Cleanup(func() {
		if err := in.Stop(context.Background(), pginstance.Immediate); err != nil {
			t.Error(err)
		}
	})
}

// ready waits until the server accepts writes.
func ready(t *testing.T, in *pginstance.Instance) pginstance.Status {
	t.Helper()
	return waitFor(t, in, pginstance.Promoted)
}

func waitFor(t *testing.T, in *pginstance.Instance, cond pginstance.Condition) pginstance.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := in.WaitReady(ctx, cond)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// stays watches for a while that f is true, where nothing tells that it will not become false.
func stays(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for enough := time.After(300 * time.Millisecond); ; {
		if !f() {
			t.Fatalf("no longer: %s", what)
		}
		select {
		case <-tick.C:
		case <-enough:
			return
		}
	}
}

// alive tells whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// appendConf appends lines to postgresql.conf.
func appendConf(t *testing.T, dataDir string, lines ...string) {
	t.Helper()
	path := filepath.Join(dataDir, "postgresql.conf")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(string(raw)+"\n"+strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
