package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pgtest"
)

// checkFetch runs the real program, as PostgreSQL does: what counts is how the process ends.
func (p *protected) checkFetch(t *testing.T) {
	last := p.SQL(t, "select last_archived_wal from pg_stat_archiver")
	first, _ := filepath.Glob(p.repo + "/clusters/orders/wal/segments/*/*")
	if len(first) < 3 {
		t.Fatalf("%d segments in the repository", len(first))
	}
	dest := filepath.Join(pgtest.TempDir(t), "RECOVERYXLOG")
	base := []string{"--repository", "file://" + p.repo}
	tests := map[string]struct {
		args []string
		code int
	}{
		"there":              {[]string{"wal-fetch", last, dest, "--cluster", "orders"}, 0},
		"beyond the end":     {[]string{"wal-fetch", "0000000100000000000000FF", dest, "--cluster", "orders"}, 1},
		"no such history":    {[]string{"wal-fetch", "00000002.history", dest, "--cluster", "orders"}, 1},
		"not a WAL file":     {[]string{"wal-fetch", "../../etc/passwd", dest, "--cluster", "orders"}, 126},
		"unknown cluster":    {[]string{"wal-fetch", last, dest, "--cluster", "nosuch"}, 126},
		"cannot be written":  {[]string{"wal-fetch", last, "/proc/nosuch/dest", "--cluster", "orders"}, 126},
		"the flag is not":    {[]string{"wal-fetch", last, dest, "--cluster", "orders", "--bogus"}, 126},
		"an argument is not": {[]string{"wal-fetch", last, "--cluster", "orders"}, 126},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(p.program, append(base, append(tt.args, "--patience", "300ms")...)...).CombinedOutput()
			if code := exitOf(err); code != tt.code {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, out)
			}
			if tt.code == 0 {
				want, err := os.ReadFile(filepath.Join(p.DataDir, "pg_wal", last))
				got, gerr := os.ReadFile(dest)
				if err == nil && (gerr != nil || string(got) != string(want)) {
					t.Errorf("fetched other bytes than the server's (%v)", gerr)
				}
			}
		})
	}
	t.Run("terminated", func(t *testing.T) {
		t.Parallel()
		// A segment that the recovery needs and that is missing is waited for; a server that shuts down ends that.
		cmd := exec.Command(p.program, append(base, "wal-fetch", "0000000100000000000000FF", dest+"2", "--cluster", "orders",
			"--need", "0000000100000000000000FF..0000000100000000000000FF")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(time.Second):
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := exitOf(<-done); code != 143 {
			t.Errorf("exit code %d, want 143", code)
		}
	})
}

func exitOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
