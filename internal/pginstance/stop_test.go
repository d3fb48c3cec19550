package pginstance_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

func controlState(t *testing.T, binDir, dataDir string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, "pg_controldata"), dataDir).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, "Database cluster state:"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no state in %s", out)
	return ""
}

// What each mode leaves in pg_control, with a client connected: smart presses harder after its time.
func TestStopModes(t *testing.T) {
	for _, c := range []struct {
		mode   pginstance.Mode
		client bool
		want   string
	}{
		{pginstance.Smart, false, "shut down"},
		{pginstance.Smart, true, "shut down"},
		{pginstance.Fast, true, "shut down"},
		{pginstance.Immediate, true, "in production"},
	} {
		t.Run(c.mode.String(), func(t *testing.T) {
			s := stopped(t, 0)
			opt := options(s)
			opt.StopTimeout = 300 * time.Millisecond
			if !c.client {
				opt.StopTimeout = 0
			}
			in := start(t, opt)
			ready(t, in)
			if c.client {
				conn := connect(t, in.ConnString("", ""))
				defer func() { _ = conn.Close() }()
			}
			for range 2 { // the second time there is nothing to do
				if err := in.Stop(t.Context(), c.mode); err != nil {
					t.Fatal(err)
				}
			}
			if got := controlState(t, s.Bin.Dir, s.DataDir); got != c.want {
				t.Errorf("pg_control says %q, want %q", got, c.want)
			}
			if !in.Ended() || exists(in.SocketDir()) || exists(s.DataDir+"/postmaster.pid") {
				t.Errorf("after Stop: ended %v, socket directory %v", in.Ended(), exists(in.SocketDir()))
			}
			if st := in.Status(t.Context()); st.State != pginstance.StateExited || st.Exit.FatalLine != "" || len(st.Exit.LogTail) == 0 {
				t.Errorf("status after Stop: %+v, %+v", st, st.Exit)
			}
		})
	}
}

// A cancelled context does not leave a server behind: Stop hurries instead.
func TestStopHurriesWhenCancelled(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"before": 0, "meanwhile": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := stopped(t, 0)
			in := start(t, options(s))
			ready(t, in)
			conn := connect(t, in.ConnString("", "")) // holds up a smart shutdown
			defer func() { _ = conn.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			began := time.Now()
			if err := in.Stop(ctx, pginstance.Smart); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < timeout || took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if got := controlState(t, s.Bin.Dir, s.DataDir); got != "in production" {
				t.Errorf("pg_control says %q, want what an immediate shutdown leaves", got)
			}
			if log := strings.Join(in.Status(t.Context()).Exit.LogTail, "\n"); strings.Contains(log, "fast shutdown") {
				t.Errorf("a fast shutdown was asked for in between:\n%s", log)
			}
		})
	}
}

// A postmaster that reacts to nothing is killed, and its orphaned children are waited for.
func TestStopKills(t *testing.T) {
	pginstance.SetImmediateTimeout(t, 2*time.Second)
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	if err := syscall.Kill(in.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := in.Stop(t.Context(), pginstance.Immediate); err != nil {
		t.Fatal(err)
	}
	if list, err := pginstance.Running(s.DataDir); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	if st := in.Status(t.Context()); st.Exit == nil || st.Exit.Signal != syscall.SIGKILL {
		t.Errorf("status %+v", st)
	}
}

// Children that hang after the death of their postmaster are killed, too.
func TestStopKillsOrphans(t *testing.T) {
	pginstance.SetImmediateTimeout(t, time.Second)
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	orphan := atoi(query(t, in, "", "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
	for pid, sig := range map[int]syscall.Signal{orphan: syscall.SIGSTOP, in.PID(): syscall.SIGKILL} {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Eventually(t, "the orphan is all that is left", func() bool {
		list, err := pginstance.Running(s.DataDir)
		return err == nil && len(list) == 1 && list[0].PID == orphan
	})
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	if alive(orphan) {
		t.Error("the orphan is alive")
	}
}

// Stop of a server that has ended does not harm one that was started there afterwards.
func TestStopSparesTheNextServer(t *testing.T) {
	s := stopped(t, 0)
	first := start(t, options(s))
	ready(t, first)
	if err := first.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	second := start(t, options(s))
	ready(t, second)
	if err := first.Stop(t.Context(), pginstance.Immediate); err == nil || !strings.Contains(err.Error(), itoa(second.PID())) {
		t.Errorf("error %v, want one that names process %d", err, second.PID())
	}
	if second.Ended() || !exists(second.SocketDir()) {
		t.Error("the second server was harmed")
	}
	ready(t, second)
	if err := second.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	appendConf(t, s.DataDir, "work_mem = '9MB'")
	if err := in.Reload(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the new setting holds", func() bool { return query(t, in, "", "SHOW work_mem") == "9MB" })
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	if err := in.Reload(); err == nil {
		t.Error("Reload of a stopped server succeeds")
	}
}
