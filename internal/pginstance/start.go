package pginstance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning says that a server is running in the data directory already. Attach finds it.
var ErrRunning = errors.New("a server is running in the data directory")

// Options say how Start runs a server. Binaries and DataDir are required.
type Options struct {
	// Binaries is the installation to run; its major version must be the data directory's.
	Binaries Binaries
	// DataDir is the data directory, owned by the owner, mode 0700 or 0750.
	DataDir string
	// Owner is the operating-system user to run as, when this process is root; "" means DefaultOwner.
	Owner string
	// Port is the TCP port, and names the socket; 0 means any free port (5432 with SocketOnly).
	Port int
	// SocketDir is the directory of the Unix socket, at most 90 bytes long. "" means a private one of the owner's,
	// /tmp/lifeboat-<hash of DataDir>, which Stop removes.
	SocketDir string
	// ListenAddresses are the addresses to listen on; "" means 127.0.0.1 (R2).
	ListenAddresses string
	// SocketOnly turns TCP off; ListenAddresses is ignored.
	SocketOnly bool
	// Settings are PostgreSQL settings, which beat every configuration file. They are visible in the list of
	// processes: no secrets. Those that Start itself needs are refused (see forcedSettings).
	Settings map[string]string
	// Env is added to the clean environment, as "NAME=value": what a restore_command needs.
	Env []string
	// LogFile receives the server's log, appended; "" means postgres.log in the private socket directory, or in
	// SocketDir if that is given.
	LogFile string
	// Detached starts a server that outlives this process; without it, it dies with this process, by SIGQUIT.
	Detached bool
	// Superuser is the database user that watches the server; "" means "postgres".
	Superuser string
	// Database is the database that the watching user connects to; "" means "postgres".
	Database string
	// PollInterval is the time between two looks of WaitUntil; 0 means 100 ms.
	PollInterval time.Duration
	// StopTimeout is how long Stop waits before it presses harder; 0 means 60 s.
	StopTimeout time.Duration
	// Logger receives what Start and Stop do; nil means none.
	Logger *slog.Logger
}

// maxSocketDir leaves room for "/.s.PGSQL.65535.lock" in the 107 bytes of a socket address (unix(7)).
const maxSocketDir = 90

// portTries is how often Start picks another port when someone took the picked one before the server did.
const portTries = 5

// pickPort is FreePort, but for the tests.
var pickPort = FreePort

// Start starts a server and returns when it has taken its ports and begins recovery or crash recovery: it does not
// accept connections yet (see WaitUntil). The context bounds Start, not the server's life. If the server ends instead,
// the error is an *ExitError; if one is running in DataDir already, it wraps ErrRunning. After any error nothing runs.
//
// Each server costs one goroutine, and a bound one also a thread, until it has ended. Call Stop or Destroy in the end,
// also when the server has ended by itself.
func Start(ctx context.Context, opt Options) (*Instance, error) {
	in, err := start(ctx, opt)
	if err != nil {
		return nil, fmt.Errorf("start server in %s: %w", opt.DataDir, err)
	}
	in.logger.Info("server started", "dataDir", in.dataDir, "pid", in.pid, "port", in.port, "detached", opt.Detached,
		"version", opt.Binaries.Version)
	return in, nil
}

func start(ctx context.Context, opt Options) (*Instance, error) {
	owner, err := prepare(&opt)
	if err != nil {
		return nil, err
	}
	ownSocket := opt.SocketDir == ""
	if ownSocket {
		if opt.SocketDir, err = privateSocketDir(opt.DataDir, owner); err != nil {
			return nil, err
		}
	}
	opt.LogFile = orDefault(opt.LogFile, filepath.Join(opt.SocketDir, "postgres.log"))
	in, err := launchOnPort(ctx, opt, owner)
	if err != nil {
		if ownSocket {
			err = errors.Join(err, removeSocketDir(opt.SocketDir))
		}
		return nil, err
	}
	in.ownSocket = ownSocket
	return in, nil
}

// launchOnPort picks a port if none is asked for, and another if somebody was faster.
func launchOnPort(ctx context.Context, opt Options, owner Owner) (*Instance, error) {
	if opt.Port != 0 {
		return launch(ctx, opt, owner)
	}
	for try := 1; ; try++ {
		var err error
		if opt.Port, err = choosePort(opt); err != nil {
			return nil, err
		}
		in, err := launch(ctx, opt, owner)
		if exit := (*ExitError)(nil); err == nil || try == portTries || !errors.As(err, &exit) || !exit.portTaken() {
			return in, err
		}
		opt.Logger.Info("port was taken meanwhile, trying another", "port", opt.Port)
	}
}

// prepare fills in defaults and refuses what cannot work.
func prepare(opt *Options) (Owner, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	opt.Superuser = orDefault(opt.Superuser, "postgres")
	opt.Database = orDefault(opt.Database, "postgres")
	opt.PollInterval = orDefault(opt.PollInterval, defaultPoll)
	opt.StopTimeout = orDefault(opt.StopTimeout, defaultStopTimeout)
	if err := checkSettings(opt.Settings); err != nil {
		return Owner{}, err
	}
	owner, err := LookupOwner(opt.Owner)
	if err != nil {
		return Owner{}, err
	}
	if opt.DataDir, err = realPath(opt.DataDir); err != nil {
		return Owner{}, err
	}
	if err := checkMajor(opt.DataDir, opt.Binaries); err != nil {
		return Owner{}, err
	}
	if f, err := findPostmaster(opt.DataDir); err == nil {
		return Owner{}, fmt.Errorf("%w: process %d", ErrRunning, f.pid)
	} else if !errors.Is(err, ErrNotRunning) {
		return Owner{}, err
	}
	return owner, checkSocketDir(opt)
}

// checkSocketDir refuses what unix_socket_directories, a list, or a socket's address cannot hold.
func checkSocketDir(opt *Options) (err error) {
	if opt.SocketDir == "" {
		return nil
	}
	if opt.SocketDir, err = filepath.Abs(opt.SocketDir); err != nil {
		return err
	}
	if len(opt.SocketDir) > maxSocketDir {
		return fmt.Errorf("socket directory %s is %d bytes long, and the address of a socket in it may have 107: "+
			"name one of at most %d", opt.SocketDir, len(opt.SocketDir), maxSocketDir)
	}
	if strings.ContainsAny(opt.SocketDir, ",\"\n") {
		return fmt.Errorf("socket directory %q holds a comma, a double quote or a line break: name one without", opt.SocketDir)
	}
	return nil
}

// checkMajor refuses a data directory of another major version before postgres does, with a word on what to do.
func checkMajor(dataDir string, b Binaries) error {
	raw, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("not a data directory: %w", err)
	}
	if got := strings.TrimSpace(string(raw)); got != strconv.Itoa(b.Major) {
		return fmt.Errorf("the data directory is PostgreSQL %s's, the programs in %s are %d's: use those of %s",
			got, b.Dir, b.Major, got)
	}
	return nil
}

func choosePort(opt Options) (int, error) {
	if opt.SocketOnly {
		return 5432, nil // names the socket only, in a directory of its own
	}
	return pickPort()
}

// launch starts postgres once and waits until it runs or has ended.
func launch(ctx context.Context, opt Options, owner Owner) (*Instance, error) {
	logFile, offset, err := openLog(opt.LogFile, owner)
	if err != nil {
		return nil, err
	}
	defer func() { _ = logFile.Close() }() // the child has its own
	cmd := exec.Command(opt.Binaries.Path("postgres"), serverArgs(opt)...)
	cmd.Dir = "/"
	cmd.Env = cleanEnv(opt.Binaries.Dir, opt.Env)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = owner.SysProcAttr()
	if opt.Detached {
		cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true // a new session is a new group, too
	} else {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	}
	c, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	in := &Instance{
		dataDir: opt.DataDir, socketDir: opt.SocketDir, port: opt.Port, superuser: opt.Superuser, database: opt.Database,
		poll: opt.PollInterval, stopTimeout: opt.StopTimeout, logger: opt.Logger, pid: cmd.Process.Pid, proc: cmd.Process, child: c,
		log: newLogScan(opt.LogFile, offset),
	}
	if err := in.waitLaunched(ctx); err != nil {
		return nil, err
	}
	return in, nil
}

// waitLaunched waits until the postmaster has written its state to postmaster.pid, which it does after it has opened
// its sockets and before it starts the startup process (PostmasterMain in postmaster.c).
func (in *Instance) waitLaunched(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ctx.Err() != nil {
			in.kill()
			return context.Cause(ctx)
		}
		if f, err := readPIDFile(in.dataDir); err == nil && f.pid == in.pid && f.state != "" {
			return nil
		}
		select {
		case <-in.child.done:
			return in.exitError()
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// forcedSettings are what Start sets and what no caller may set: where the server is and how it logs. The restored
// configuration must not have a say in them: it may name the files of the cluster that it was copied from.
func forcedSettings(opt Options) map[string]string {
	listen := orDefault(opt.ListenAddresses, "127.0.0.1")
	if opt.SocketOnly {
		listen = ""
	}
	return map[string]string{
		"port":                    strconv.Itoa(opt.Port),
		"listen_addresses":        listen,
		"unix_socket_directories": opt.SocketDir,
		// Debian's configuration points both at the live server's. An empty name for the second is not "none" but an
		// error in the log, so it lies beside the socket and its lock file, and goes as they do.
		"data_directory":    opt.DataDir,
		"external_pid_file": filepath.Join(opt.SocketDir, ".s.PGSQL."+strconv.Itoa(opt.Port)+".pid"),
		// The log is read by program: one place, one format, no translation, nothing left out.
		"logging_collector":   "off",
		"log_destination":     "stderr",
		"log_line_prefix":     "%m [%p] ",
		"log_min_messages":    "warning",
		"log_error_verbosity": "default",
		"log_timezone":        "UTC",
		"lc_messages":         "C",
	}
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$`)

func checkSettings(settings map[string]string) error {
	forced := forcedSettings(Options{})
	for name, value := range settings {
		if !settingName.MatchString(name) {
			return fmt.Errorf("%q is no name of a setting", name)
		}
		if _, ok := forced[strings.ToLower(name)]; ok {
			return fmt.Errorf("setting %s is decided by the options of Start, not by its settings", name)
		}
		if strings.ContainsRune(value, 0) {
			return fmt.Errorf("the value of setting %s holds a zero byte", name)
		}
	}
	return nil
}

// serverArgs returns the arguments of postgres, in a fixed order.
func serverArgs(opt Options) []string {
	args := []string{"-D", opt.DataDir}
	for _, settings := range []map[string]string{forcedSettings(opt), opt.Settings} {
		names := make([]string, 0, len(settings))
		for name := range settings {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			args = append(args, "-c", name+"="+settings[name])
		}
	}
	return args
}

// openLog opens the server's log for appending and returns its present length. A symbolic link is refused: the
// directory may be the server's, and root must not be led elsewhere by it.
func openLog(path string, owner Owner) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open the server's log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && owner.change && info.Mode().IsRegular() {
		err = f.Chown(owner.UID, owner.GID)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("open the server's log: %w", err)
	}
	return f, info.Size(), nil
}

// fileGone is errors.Is(err, fs.ErrNotExist), and also a path whose parent is no directory.
func fileGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
