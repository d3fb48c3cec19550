package pgtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var built struct {
	sync.Mutex
	paths map[string]string // by package and arguments
}

// Build builds a command of this module, such as "lifeboat/cmd/starter", and returns the path of the program, which the
// server's user can execute: for archive_command and restore_command. Each is built once per test process. args go to
// "go build", such as "-race". The programs are removed by Main, or else by the next test process.
func Build(t testing.TB, pkg string, args ...string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	key := strings.Join(append([]string{pkg}, args...), "\x00")
	if path, ok := built.paths[key]; ok {
		return path
	}
	dir, err := programDir()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", path}, args...), pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pgtest: go build %s: %v\n%s", pkg, err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	if built.paths == nil {
		built.paths = map[string]string{}
	}
	built.paths[key] = path
	return path
}

// programDir makes a directory for one program, which stays until the process ends.
func programDir() (string, error) {
	tmp.Lock()
	defer tmp.Unlock()
	if err := openProcessDir(); err != nil {
		return "", err
	}
	tmp.keep = true
	tmp.next++
	dir := filepath.Join(tmp.dir, "bin"+strconv.Itoa(tmp.next))
	return dir, mkdirOpen(dir)
}
