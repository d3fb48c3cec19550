package devtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeGo stands for Go in the tests of temporal-server.sh: it notes each build,
// begins to write a program, takes a while, and ends with one that says "built".
const fakeGo = `#!/bin/sh
case $1 in
version) echo "${FAKE_GO_VERSION:-go version go1.26.8 linux/amd64}" ;;
build)
	if [ -n "$FAKE_FAIL" ]; then echo "go: cannot reach the proxy" >&2; exit 1; fi
	while [ "$1" != -o ]; do shift; done
	printf '#!/bin/sh\nexit 9\n' >"$2"
	chmod 0755 "$2"
	echo build >>"$FAKE_LOG"
	sleep "${FAKE_SLEEP:-0}"
	printf '#!/bin/sh\necho built\n' >"$2"
	;;
esac
`

// scriptTest runs temporal-server.sh with a Go and a PATH of its own.
type scriptTest struct {
	bin, cache, log string
	env             []string
}

func newScriptTest(t *testing.T) *scriptTest {
	t.Helper()
	s := &scriptTest{bin: t.TempDir(), cache: t.TempDir()}
	s.log = filepath.Join(s.bin, "log")
	s.program(t, "go", fakeGo)
	s.env = append(os.Environ(), "PATH="+s.bin+":/usr/bin:/bin", "XDG_CACHE_HOME="+s.cache, "FAKE_LOG="+s.log)
	return s
}

func (s *scriptTest) program(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.bin, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// run returns what the script printed, and its exit code.
func (s *scriptTest) run(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("../temporal-server.sh", args...)
	cmd.Env = append(s.env[:len(s.env):len(s.env)], env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// builds counts how often Go was asked to build.
func (s *scriptTest) builds(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "build")
}

func TestScriptBuildsOnce(t *testing.T) {
	s := newScriptTest(t)
	var wg sync.WaitGroup
	paths := make([]string, 4)
	for i := range paths {
		wg.Go(func() {
			out, errs, code := s.run(t, []string{"FAKE_SLEEP=1"}, "--own")
			if code != 0 {
				t.Errorf("exit code %d: %s", code, errs)
			}
			paths[i] = out
		})
	}
	wg.Wait()
	if n := s.builds(t); n != 1 {
		t.Errorf("four callers made %d builds, want 1", n)
	}
	for _, p := range paths[1:] {
		if p != paths[0] {
			t.Errorf("callers got %q and %q", paths[0], p)
		}
	}
	path, errs, code := s.run(t, nil, "--own")
	if code != 0 || errs != "" || path != paths[0] {
		t.Errorf("with the program there: %q, exit code %d, stderr %q; want %q, 0 and nothing", path, code, errs, paths[0])
	}
	path = strings.TrimSuffix(path, "\n")
	for p, want := range map[string]os.FileMode{path: 0o755, filepath.Dir(path): 0o755} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o: other users run it", p, got, want)
		}
	}
	if out, err := exec.Command(path).Output(); err != nil || string(out) != "built\n" {
		t.Errorf("the program says %q, %v", out, err)
	}
	if other, _, _ := s.run(t, []string{"FAKE_GO_VERSION=go version go1.27.0 linux/amd64"}, "--own"); other == path+"\n" {
		t.Error("another version of Go gets the same program")
	}
}

func TestScriptBuildFails(t *testing.T) {
	s := newScriptTest(t)
	out, errs, code := s.run(t, []string{"FAKE_FAIL=1"}, "--own")
	if code != 1 || out != "" || !strings.Contains(errs, "go: cannot reach the proxy") {
		t.Errorf("exit code %d, stdout %q, stderr %q; want 1, nothing and Go's message", code, out, errs)
	}
	left, err := filepath.Glob(filepath.Join(s.cache, "lifeboat", "devserver-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
	if out, errs, code := s.run(t, nil, "--own"); code != 0 || out == "" {
		t.Errorf("after a failure: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

// TestScriptKilled: half a program is never taken for a whole one.
func TestScriptKilled(t *testing.T) {
	s := newScriptTest(t)
	cmd := exec.Command("../temporal-server.sh", "--own")
	cmd.Env = append(s.env[:len(s.env):len(s.env)], "FAKE_SLEEP=60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to kill the builder too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, "the build to begin", func() error {
		if s.builds(t) == 0 {
			return errors.New("nothing is built")
		}
		return nil
	})
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	path, errs, code := s.run(t, nil, "--own")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if out, err := exec.Command(strings.TrimSpace(path)).Output(); err != nil || string(out) != "built\n" {
		t.Errorf("the program says %q, %v", out, err)
	}
}

func TestScriptTakesCommandLineTool(t *testing.T) {
	for _, tc := range []struct {
		name, says string
		args       []string
		taken      bool
	}{
		{"newer", "echo 'temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)'", nil, true},
		{"much newer", "echo 'temporal version 3.0.0 (Server 2.1.0, UI 3.0.0)'", nil, true},
		{"older", "echo 'temporal version 1.4.0 (Server 1.28.2, UI 2.39.0)'", nil, false},
		{"old format", "echo 'tctl 1.18'", nil, false},
		{"broken", "exit 3", nil, false},
		{"not wanted", "echo 'temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)'", []string{"--own"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScriptTest(t)
			cli := s.program(t, "temporal", "#!/bin/sh\n"+tc.says+"\n")
			out, errs, code := s.run(t, nil, tc.args...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			if taken := out == cli+"\n"; taken != tc.taken {
				t.Errorf("it prints %q; taken %v, want %v", out, taken, tc.taken)
			}
			if built := s.builds(t) > 0; built == tc.taken {
				t.Errorf("built %v, want %v", built, !tc.taken)
			}
		})
	}
}

func TestScriptRefusesUnknownArgument(t *testing.T) {
	if out, errs, code := newScriptTest(t).run(t, nil, "--bogus"); code != 2 || out != "" || !strings.Contains(errs, "--bogus") {
		t.Errorf("exit code %d, stdout %q, stderr %q; want 2 and a word on --bogus", code, out, errs)
	}
}
