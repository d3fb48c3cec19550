package pginstance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// cleanEnv is the whole environment of the programs we start. Nothing is inherited: a PGDATA, PGPORT, PGTZ or LC_ALL
// of the calling process would change what they do. Messages are untranslated, so that they can be read by program.
func cleanEnv(binDir string, extra []string) []string {
	return append([]string{
		"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
	}, extra...)
}

// child is a process that this process started and reaps.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child was reaped; cmd.ProcessState is set then
}

// startChild starts cmd. If cmd asks for a parent-death signal, the goroutine that starts it stays locked to its
// thread until the child has ended: the kernel sends the signal when the *thread* that forked ends, not the process,
// and Go ends threads as it likes (prctl(2), PR_SET_PDEATHSIG; golang.org/issue/27505).
func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(c.done)
		if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

// procState returns the state letter of /proc/PID/stat (proc(5)), 0 if there is no such process.
func procState(pid int) byte {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return 0
	}
	// The second field is the name in parentheses and may itself hold spaces and parentheses.
	i := strings.LastIndexByte(string(stat), ')')
	if i < 0 || i+2 >= len(stat) {
		return 0
	}
	return stat[i+2]
}

// processEnded tells whether pid is gone. A zombie counts as gone: it holds nothing any more, and in a container whose
// first process does not reap it would stay for ever.
func processEnded(pid int) bool {
	switch procState(pid) {
	case 0, 'Z', 'X':
		return true
	}
	return false
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// Process is a PostgreSQL process that is running on this host.
type Process struct {
	// PID is the process id.
	PID int
	// DataDir is its data directory, as the kernel names it (symbolic links resolved).
	DataDir string
	// Deleted says that the data directory has been removed under the running process.
	Deleted bool
}

// Running lists the postmasters on this host whose data directory is root or below it, by their working directory,
// which PostgreSQL sets to its data directory: neither a stale nor a missing postmaster.pid deceives it. A backend whose
// postmaster has died is listed too. Processes that we may not inspect (another user's, when not root) are not seen.
// It is for a reaper: one that holds the lock of a directory below root knows that what still runs there is nobody's.
func Running(root string) ([]Process, error) {
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real // a root that is gone may still have servers running in it
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("list servers below %s: %w", root, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list servers below %s: %w", root, err)
	}
	found, parents := map[int]Process{}, map[int]int{}
	var order []int // that of /proc, which is stable
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !isPostgres(pid) {
			continue
		}
		dir, deleted, err := workingDir(pid)
		if err != nil || !within(root, dir) {
			continue
		}
		if parents[pid], err = parentOf(pid); err != nil {
			continue // it has ended meanwhile, as backends do all the time
		}
		found[pid] = Process{PID: pid, DataDir: dir, Deleted: deleted}
		order = append(order, pid)
	}
	var list []Process
	for _, pid := range order {
		if parent, ok := found[parents[pid]]; ok && parent.DataDir == found[pid].DataDir {
			continue // a backend
		}
		list = append(list, found[pid])
	}
	return list, nil
}

// isPostgres tells whether a live process runs the program postgres.
func isPostgres(pid int) bool {
	if processEnded(pid) {
		return false
	}
	if exe, err := os.Readlink(procPath(pid, "exe")); err == nil {
		return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres" // deleted: upgraded under it
	}
	comm, err := os.ReadFile(procPath(pid, "comm"))
	return err == nil && strings.TrimSpace(string(comm)) == "postgres"
}

func workingDir(pid int) (dir string, deleted bool, err error) {
	dir, err = os.Readlink(procPath(pid, "cwd"))
	if err != nil {
		return "", false, fmt.Errorf("read the working directory of process %d: %w", pid, err)
	}
	dir, deleted = strings.CutSuffix(dir, " (deleted)")
	return dir, deleted, nil
}

// parentOf returns the parent's process id; 0 stands for one that is outside our container.
func parentOf(pid int) (int, error) {
	status, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return 0, fmt.Errorf("read the parent of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("read the parent of process %d: no PPid in its status", pid)
}

// within tells whether path is root or below it. Both are absolute and clean.
func within(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// signalGone is Signal, but a process that has ended is no error.
func signalGone(p *os.Process, sig syscall.Signal) error {
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d with %v: %w", p.Pid, sig, err)
	}
	return nil
}
