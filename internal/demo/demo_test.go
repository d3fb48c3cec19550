package demo_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// programs builds the two programs side by side, as `make build` does.
func programs(t *testing.T) string {
	t.Helper()
	dir := pgtest.TempDir(t)
	for name, pkg := range map[string]string{"lifeboat": "lifeboat/cmd/starter", "lifeboat-worker": "lifeboat/cmd/worker"} {
		data, err := os.ReadFile(pgtest.Build(t, pkg))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func devServer(t *testing.T) string {
	t.Helper()
	path := os.Getenv("TEMPORAL_DEV_SERVER")
	if path == "" {
		t.Skip("TEMPORAL_DEV_SERVER is not set: `make test` sets it")
	}
	return path
}

// runDemo runs the program as a user and returns its output and whether it exited 0.
func runDemo(t *testing.T, dir string, uid int, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args = append([]string{"demo", "--temporal-server", devServer(t), "--rows", "20000"}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "lifeboat"), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir}
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// leftovers are folders and processes of demos.
func leftovers(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/tmp/lifeboat-demo-*")
	if err != nil {
		t.Fatal(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if exe, err := os.Readlink(p); err == nil && strings.HasPrefix(exe, "/tmp/lifeboat-demo-") {
			found = append(found, p+" -> "+exe)
		}
	}
	return found
}

// nobody is an ordinary user that exists everywhere; a test that is not run by root is itself one.
const nobody = 65534

func TestDemo_PassesTwiceAndLeavesNothing(t *testing.T) {
	dir := programs(t)
	before := leftovers(t)
	users := map[string]int{"this user": 0}
	if os.Geteuid() == 0 {
		users["an ordinary user"] = nobody
	}
	for name, uid := range users {
		for _, run := range []string{"first", "second"} {
			t.Run(name+" "+run, func(t *testing.T) {
				out, err := runDemo(t, dir, uid)
				if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "PASS") {
					t.Errorf("demo: %v\n%s", err, out)
				}
				for _, want := range []string{"the row before is there", "the row after is not", "RTO ", "RPO ", "report clusters/demo/reports/"} {
					if !strings.Contains(out, want) {
						t.Errorf("the report does not tell of %q:\n%s", want, out)
					}
				}
			})
		}
	}
	if after := leftovers(t); len(after) > len(before) {
		t.Errorf("left behind: %v", after)
	}
}

func TestDemo_KilledWorker_AnotherGoesOn(t *testing.T) {
	out, err := runDemo(t, programs(t), 0, "--kill", "--rows", "200000")
	if err != nil || !strings.Contains(out, "killed worker 1 with -9 while it laid files (finished: false)") {
		t.Errorf("demo: %v\n%s", err, out)
	}
}

func TestDemo_FailsWhenRecoveryIsSpoilt(t *testing.T) {
	dir := programs(t)
	for sabotage, want := range map[string]string{
		"no-wal":       "cannot be reached",
		"wrong-target": "the row after is not               1",
		"wrong-row":    "the row before is there            0",
	} {
		t.Run(sabotage, func(t *testing.T) {
			out, err := runDemo(t, dir, 0, "--sabotage", sabotage)
			if err == nil || !strings.Contains(out, "\nFAIL\n") || !strings.Contains(out, want) {
				t.Errorf("demo: %v; want FAIL and %q\n%s", err, want, out)
			}
		})
	}
}
