package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/pginstance"
)

// Everything of one test process lies in one directory, /tmp/lbt-*, whose file "lock" the process holds locked. If it
// is killed, the kernel drops the lock, and the next process that uses the package sweeps the directory away. The names
// are short and in /tmp whatever TMPDIR says, because of the 107 bytes of a socket's address.
const dirPattern = "lbt-"

var tmp struct {
	sync.Mutex
	dir   string // "" if there is none at present
	lock  *os.File
	users int // tests that have a directory in it
	keep  bool
	next  int
	swept bool
}

// TempDir returns a new empty directory, short, below /tmp, that the server's user owns and that everybody can enter.
// It is removed when the test ends.
func TempDir(t testing.TB) string {
	t.Helper()
	tmp.Lock()
	defer tmp.Unlock()
	if err := openProcessDir(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	tmp.next++
	dir := filepath.Join(tmp.dir, strconv.Itoa(tmp.next))
	if err := mkdirOpen(dir); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	if err := Owner(t).Chown(dir); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	tmp.users++
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
		tmp.Lock()
		defer tmp.Unlock()
		if tmp.users--; tmp.users == 0 && !tmp.keep {
			closeProcessDir()
		}
	})
	return dir
}

// Main runs the tests of a package, removes what Build made for them (without it the next test process does), and fails
// if a goroutine is left when all tests have passed.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	tmp.Lock()
	defer tmp.Unlock()
	closeProcessDir()
	return code
}

// mkdirOpen makes a directory that everybody can enter, whatever the umask.
func mkdirOpen(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// openProcessDir makes the directory of this process if there is none. The caller holds tmp.
func openProcessDir() error {
	if tmp.dir != "" {
		return nil
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	// Under this lock no other process takes the new directory, not locked yet, for a dead one's.
	unlock, err := lockFile(filepath.Join(cache, "sweep.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if !tmp.swept {
		sweep()
		tmp.swept = true
	}
	dir, err := os.MkdirTemp("/tmp", dirPattern)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	tmp.dir, tmp.lock = dir, lock
	return nil
}

// closeProcessDir removes the directory of this process. The caller holds tmp.
func closeProcessDir() {
	if tmp.dir == "" {
		return
	}
	_ = os.RemoveAll(tmp.dir) // what stays is swept by the next process
	_ = tmp.lock.Close()
	tmp.dir, tmp.lock, tmp.keep = "", nil, false
}

// sweep removes what killed test processes left: servers that were started detached, and directories.
func sweep() {
	dirs, _ := filepath.Glob("/tmp/" + dirPattern + "*") // the pattern is well-formed
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !ours(info) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			stopAll(dir)
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}

// stopAll ends the servers that work below dir.
func stopAll(dir string) {
	poll(10*time.Second, func() bool {
		list, err := pginstance.Running(dir)
		for _, p := range list {
			_ = syscall.Kill(p.PID, syscall.SIGQUIT) // again and again: it may come too early in a start
		}
		return err != nil || len(list) == 0
	})
}

func ours(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// cacheDir returns the directory of what outlives a test process: the templates. It is of this machine and user.
func cacheDir() (string, error) {
	dir := fmt.Sprintf("/tmp/lifeboat-pgtest-%d", os.Geteuid())
	if err := mkdirOpen(dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || !ours(info) || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a directory of ours alone: remove it", dir)
	}
	return dir, nil
}

// lockFile takes an exclusive lock, waiting for it, and returns the function that drops it.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
