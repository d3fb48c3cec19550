package pginstance

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning says that no server runs in a data directory.
var ErrNotRunning = errors.New("no server is running in the data directory")

// Instance is a server that is, or was, running in one data directory. Its methods may be called concurrently.
type Instance struct {
	dataDir     string
	socketDir   string
	ownSocket   bool // socketDir is private and goes when the server does
	port        int
	superuser   string
	database    string
	poll        time.Duration
	stopTimeout time.Duration
	logger      *slog.Logger

	pid   int
	proc  *os.Process // holds a pidfd: a signal cannot hit another process that got the same id
	child *child      // nil when attached
	log   *logScan
}

// DataDir returns the data directory, absolute and without symbolic links.
func (in *Instance) DataDir() string { return in.dataDir }

// SocketDir returns the directory of the Unix socket; "" if an attached server has none.
func (in *Instance) SocketDir() string { return in.socketDir }

// Port returns the port, which also names the socket.
func (in *Instance) Port() int { return in.port }

// PID returns the postmaster's process id.
func (in *Instance) PID() int { return in.pid }

// LogFile returns the path of the server's log; "" if an attached server does not log to a file.
func (in *Instance) LogFile() string { return in.log.path }

// Ended tells whether the server has ended.
func (in *Instance) Ended() bool {
	if in.child != nil {
		select {
		case <-in.child.done:
			return true
		default:
			return false
		}
	}
	return errors.Is(in.proc.Signal(syscall.Signal(0)), os.ErrProcessDone) || processEnded(in.pid)
}

// ended returns a channel that is closed when the server has ended; nil, which never fires, for an attached one.
func (in *Instance) ended() <-chan struct{} {
	if in.child == nil {
		return nil
	}
	return in.child.done
}

// Reload makes the server read its configuration again (SIGHUP). Settings that Start gave stay.
func (in *Instance) Reload() error {
	if in.Ended() {
		return fmt.Errorf("reload server in %s: %w", in.dataDir, ErrNotRunning)
	}
	return signalGone(in.proc, syscall.SIGHUP)
}

// pidFile is the content of postmaster.pid (miscadmin.h, LOCK_FILE_LINE_*).
type pidFile struct {
	pid       int
	port      int
	socketDir string
	state     string // "starting", "stopping", "ready", "standby"; "" until the sockets are open
}

// readPIDFile reads postmaster.pid. The file grows while the server starts: what is not there yet is left zero.
func readPIDFile(dataDir string) (pidFile, error) {
	raw, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, fmt.Errorf("read postmaster.pid: %w", err)
	}
	lines := strings.Split(string(raw), "\n")
	var f pidFile
	if f.pid, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil {
		return pidFile{}, fmt.Errorf("read postmaster.pid: process id: %w", err)
	}
	if f.pid < 0 {
		f.pid = -f.pid // a stand-alone backend writes its id negated
	}
	if len(lines) > 3 {
		f.port, _ = strconv.Atoi(strings.TrimSpace(lines[3])) // 0 is what a line not yet written means
	}
	if len(lines) > 4 {
		f.socketDir = strings.TrimSpace(lines[4])
	}
	if len(lines) > 7 {
		f.state = strings.TrimSpace(lines[7])
	}
	return f, nil
}

// AttachOptions say how Attach watches a server that it finds. All may be left zero.
type AttachOptions struct {
	// Superuser is the database user that watches the server; "" means "postgres".
	Superuser string
	// Database is the database that the watching user connects to; "" means "postgres".
	Database string
	// PollInterval is the time between two looks of WaitUntil; 0 means 100 ms.
	PollInterval time.Duration
	// StopTimeout is how long Stop waits before it presses harder; 0 means 60 s.
	StopTimeout time.Duration
	// Logger receives what Stop does; nil means none.
	Logger *slog.Logger
}

// Attach finds the server that runs in a data directory, whoever started it, by its postmaster.pid. A file that is
// stale (its process is gone, or is another program, or a server in another directory) is no server: the error then
// wraps ErrNotRunning. It needs the right to inspect the process: to be root, or the server's user.
func Attach(dataDir string, opt AttachOptions) (*Instance, error) {
	dataDir, err := realPath(dataDir)
	if fileGone(err) {
		return nil, fmt.Errorf("attach to server in %s: %w: %w", dataDir, ErrNotRunning, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to server in %s: %w", dataDir, err)
	}
	f, err := findPostmaster(dataDir)
	if err != nil {
		return nil, fmt.Errorf("attach to server in %s: %w", dataDir, err)
	}
	proc, err := os.FindProcess(f.pid)
	if err != nil {
		return nil, fmt.Errorf("attach to server in %s: %w", dataDir, err)
	}
	// Look again: only now, with the process held, can its id not pass to another.
	if again, err := findPostmaster(dataDir); err != nil || again.pid != f.pid {
		_ = proc.Release()
		return nil, fmt.Errorf("attach to server in %s: it ended meanwhile: %w", dataDir, ErrNotRunning)
	}
	in := &Instance{
		dataDir: dataDir, socketDir: f.socketDir, port: f.port, pid: f.pid, proc: proc,
		ownSocket:   f.socketDir == privateSocketName(dataDir),
		superuser:   orDefault(opt.Superuser, "postgres"),
		database:    orDefault(opt.Database, "postgres"),
		poll:        orDefault(opt.PollInterval, defaultPoll),
		stopTimeout: orDefault(opt.StopTimeout, defaultStopTimeout),
		logger:      opt.Logger,
		log:         attachLog(f.pid),
	}
	if in.logger == nil {
		in.logger = slog.New(slog.DiscardHandler)
	}
	return in, nil
}

// findPostmaster returns the content of a data directory's postmaster.pid if the process that it names is a postgres
// that works in this very directory (device and inode, so that mounts and links do not matter).
func findPostmaster(dataDir string) (pidFile, error) {
	f, err := readPIDFile(dataDir)
	if fileGone(err) {
		return pidFile{}, fmt.Errorf("%w: no postmaster.pid", ErrNotRunning)
	}
	if err != nil {
		return pidFile{}, err
	}
	if !isPostgres(f.pid) {
		return pidFile{}, fmt.Errorf("%w: process %d of its postmaster.pid is no running postgres", ErrNotRunning, f.pid)
	}
	dir, err := os.Stat(dataDir)
	if err != nil {
		return pidFile{}, err
	}
	cwd, err := os.Stat(procPath(f.pid, "cwd"))
	if fileGone(err) {
		return pidFile{}, fmt.Errorf("%w: process %d of its postmaster.pid has just ended", ErrNotRunning, f.pid)
	}
	if err != nil {
		return pidFile{}, fmt.Errorf("inspect process %d of its postmaster.pid (run as root, or as the server's user): %w",
			f.pid, err)
	}
	if !os.SameFile(dir, cwd) {
		return pidFile{}, fmt.Errorf("%w: process %d of its postmaster.pid serves another directory", ErrNotRunning, f.pid)
	}
	return f, nil
}

// attachLog finds the log of a running server: the file that its standard error goes to.
func attachLog(pid int) *logScan {
	path, err := os.Readlink(procPath(pid, "fd/2"))
	if err != nil {
		return newLogScan("", 0)
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return newLogScan("", 0) // a pipe, a terminal, /dev/null, or deleted
	}
	return newLogScan(path, max(0, info.Size()-maxAttachLog))
}

// maxAttachLog bounds how far back Attach reads the log for what happened before.
const maxAttachLog = 4 << 20

// realPath returns the absolute path without symbolic links, as the kernel names it. On an error it returns the
// absolute path.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path, fmt.Errorf("resolve %s: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return abs, fmt.Errorf("resolve %s: %w", path, err)
	}
	return real, nil
}
