package pginstance_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// On every version: a started server is where it should be, with the defaults.
func TestStart(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		s := stopped(t, major)
		opt := options(s)
		opt.Settings = map[string]string{"cluster_name": `two words='"\`, "custom.setting": "x"}
		in := start(t, opt)
		st := ready(t, in)
		if st.State != pginstance.StateReady || st.Timeline != 1 || st.WriteLSN == 0 || st.Err != nil || st.Exit != nil {
			t.Errorf("Status = %+v", st)
		}
		for setting, want := range map[string]string{
			"data_directory": s.DataDir, "listen_addresses": "127.0.0.1", "port": itoa(in.Port()),
			"cluster_name": `two words='"\`, "custom.setting": "x",
		} {
			if got := query(t, in, "", "SHOW "+setting); got != want {
				t.Errorf("%s = %q, want %q", setting, got, want)
			}
		}
		if in.SocketDir() != pginstance.PrivateSocketName(s.DataDir) {
			t.Errorf("socket directory %s", in.SocketDir())
		}
		info, err := os.Stat(in.SocketDir())
		if err != nil || info.Mode().Perm() != 0o700 || int(info.Sys().(*syscall.Stat_t).Uid) != pgtest.Owner(t).UID {
			t.Errorf("socket directory: %v, %v", info, err)
		}
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", in.Port()))
		if err != nil {
			t.Error(err)
		} else {
			_ = conn.Close()
		}
	})
}

// R1, R2: a configuration that still points at the cluster that it came from has no effect on it.
func TestStartIgnoresWhereTheConfigurationCameFrom(t *testing.T) {
	live, s := stopped(t, 0), stopped(t, 0)
	livePID := filepath.Join(live.Dir, "live.pid")
	appendConf(t, s.DataDir,
		"data_directory = '"+live.DataDir+"'", "external_pid_file = '"+livePID+"'", "port = 1", "listen_addresses = '*'",
		"unix_socket_directories = '"+live.Dir+"'", "logging_collector = on", "log_directory = '"+live.Dir+"'",
		"log_min_messages = panic", "log_line_prefix = ''", "log_destination = 'csvlog'")
	before := listDir(t, live.Dir, live.DataDir)
	in := start(t, options(s))
	ready(t, in)
	if got := query(t, in, "", "SHOW data_directory"); got != s.DataDir {
		t.Errorf("data_directory = %s, want %s", got, s.DataDir)
	}
	if after := listDir(t, live.Dir, live.DataDir); !slices.Equal(before, after) {
		t.Errorf("the live cluster was touched:\nbefore %v\nafter  %v", before, after)
	}
	raw, err := os.ReadFile(in.LogFile())
	if err != nil || !strings.Contains(string(raw), "database system is ready") {
		t.Errorf("the log is not where we read it: %v\n%s", err, raw)
	}
}

func listDir(t *testing.T, dirs ...string) []string {
	t.Helper()
	var names []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names
}

// Nothing of our environment reaches the server but what Options.Env names.
func TestStartEnvironment(t *testing.T) {
	s := stopped(t, 0)
	for _, name := range []string{"PGDATA", "PGPORT", "PGTZ", "PGHOST", "LC_ALL", "SECRET_TOKEN", "PGTARGETSESSIONATTRS"} {
		t.Setenv(name, "read-write")
	}
	opt := options(s)
	opt.Env = []string{"RESTORE_HELP=1"}
	in := start(t, opt)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", in.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for v := range strings.SplitSeq(string(raw), "\x00") {
		if name, _, _ := strings.Cut(v, "="); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if want := []string{"LANG", "LC_ALL", "PATH", "RESTORE_HELP", "TZ"}; !slices.Equal(names, want) {
		t.Errorf("environment %v, want %v", names, want)
	}
	t.Setenv("PGHOST", "/nowhere") // nor does it lead the watcher astray
	ready(t, in)
}

func TestStartRefuses(t *testing.T) {
	s := stopped(t, 0)
	for name, c := range map[string]struct {
		change func(*pginstance.Options)
		want   string
	}{
		"forced setting":   {func(o *pginstance.Options) { o.Settings = map[string]string{"PORT": "1"} }, "setting PORT"},
		"no setting":       {func(o *pginstance.Options) { o.Settings = map[string]string{"a=b": "1"} }, "no name of a setting"},
		"zero byte":        {func(o *pginstance.Options) { o.Settings = map[string]string{"work_mem": "1\x00"} }, "zero byte"},
		"other version":    {func(o *pginstance.Options) { o.Binaries.Major++ }, "use those of"},
		"no cluster":       {func(o *pginstance.Options) { o.DataDir = s.Dir }, "not a data directory"},
		"no directory":     {func(o *pginstance.Options) { o.DataDir = "/nowhere" }, "/nowhere"},
		"long socket path": {func(o *pginstance.Options) { o.SocketDir = "/tmp/" + strings.Repeat("x", 86) }, "at most 90"},
		"socket list":      {func(o *pginstance.Options) { o.SocketDir = "/tmp/a,b" }, "comma"},
		"no log directory": {func(o *pginstance.Options) { o.LogFile = "/nowhere/log" }, "/nowhere/log"},
		"no program":       {func(o *pginstance.Options) { o.Binaries.Dir = "/nowhere" }, "/nowhere/postgres"},
	} {
		opt := options(s)
		c.change(&opt)
		in, err := pginstance.Start(t.Context(), opt)
		if err == nil {
			stopInTheEnd(t, in)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	if exists(pginstance.PrivateSocketName(s.DataDir)) {
		t.Error("a failed start leaves its socket directory")
	}
}

// A server that cannot start ends Start, with what it said.
func TestStartFatal(t *testing.T) {
	s := stopped(t, 0)
	opt := options(s)
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{
			"a wrong value", func() { opt.Settings = map[string]string{"max_connections": "many"} },
			`FATAL:  invalid value for parameter "max_connections": "many"`,
		},
		{"wrong permissions", func() {
			opt.Settings = nil
			if err := os.Chmod(s.DataDir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, `FATAL:  data directory "` + s.DataDir + `" has invalid permissions`},
		{
			"a wrong configuration file", func() { appendConf(t, s.DataDir, "nonsense = 1") },
			`FATAL:  configuration file "` + s.DataDir + `/postgresql.conf" contains errors`,
		},
	} {
		c.do()
		_, err := pginstance.Start(t.Context(), opt)
		var exit *pginstance.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%s: error %v, want an ExitError", c.name, err)
		}
		if exit.FatalLine != c.want || exit.Code != 1 || len(exit.LogTail) == 0 {
			t.Errorf("%s: %+v, want FatalLine %q", c.name, exit, c.want)
		}
	}
}

// If somebody takes the port between its choice and its use, another is tried; a port that was asked for is not
// exchanged.
func TestStartPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().(*net.TCPAddr).Port
	s, calls := stopped(t, 0), 0
	pginstance.SetPickPort(t, func() (int, error) {
		if calls++; calls <= 2 {
			return taken, nil
		}
		return pginstance.FreePort()
	})
	in := start(t, options(s))
	if calls != 3 || in.Port() == taken {
		t.Errorf("port %d after %d choices", in.Port(), calls)
	}
	ready(t, in)
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}

	opt := options(s)
	opt.Port = taken
	_, err = pginstance.Start(t.Context(), opt)
	var exit *pginstance.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.FatalLine, "could not create any TCP/IP sockets") {
		t.Errorf("a port that was asked for: %v", err)
	}
	calls = -100
	if _, err = pginstance.Start(t.Context(), options(s)); !errors.As(err, &exit) || calls != -95 {
		t.Errorf("every port taken: %v after %d choices, want an ExitError after 5", err, calls+100)
	}
}

func TestStartSocketOnly(t *testing.T) {
	s := stopped(t, 0)
	opt := options(s)
	opt.SocketOnly = true
	in := start(t, opt)
	ready(t, in)
	if got := query(t, in, "", "SHOW listen_addresses"); got != "" {
		t.Errorf("listen_addresses = %q", got)
	}
}

func TestStartTwice(t *testing.T) {
	s := stopped(t, 0)
	start(t, options(s))
	if _, err := pginstance.Start(t.Context(), options(s)); !errors.Is(err, pginstance.ErrRunning) {
		t.Errorf("error %v, want ErrRunning", err)
	}
}

// A start that is given up leaves no server.
func TestStartCancelled(t *testing.T) {
	s := stopped(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opt := options(s)
	opt.SocketDir = s.SocketDir // a private one is removed, and no server starts without
	if _, err := pginstance.Start(ctx, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	stays(t, "no server runs there", func() bool {
		list, err := pginstance.Running(s.Dir)
		return err == nil && len(list) == 0
	})
	if _, err := pginstance.Start(ctx, options(s)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if exists(pginstance.PrivateSocketName(s.DataDir)) {
		t.Error("its socket directory is left")
	}
}

// Somebody else's directory under the name that can be guessed is not used.
func TestPrivateSocketDirTaken(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a directory of another user")
	}
	s := stopped(t, 0)
	name := pginstance.PrivateSocketName(s.DataDir)
	if err := os.Mkdir(name, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(name) })
	in := start(t, options(s))
	ready(t, in)
	if in.SocketDir() == name {
		t.Errorf("the server uses %s, which is not its own", name)
	}
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	if exists(in.SocketDir()) || !exists(name) {
		t.Errorf("after Stop: own %v, other's %v", exists(in.SocketDir()), exists(name))
	}
}

// The log may lie in a directory of the server's user: a link laid there does not lead root elsewhere.
func TestLogFileIsNoLink(t *testing.T) {
	s := stopped(t, 0)
	victim, link := filepath.Join(t.TempDir(), "victim"), filepath.Join(s.Dir, "log")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	opt := options(s)
	opt.LogFile = link
	if in, err := pginstance.Start(t.Context(), opt); !errors.Is(err, syscall.ELOOP) {
		if err == nil {
			stopInTheEnd(t, in)
		}
		t.Errorf("error %v, want ELOOP", err)
	}
	if exists(victim) {
		t.Error("the link was followed")
	}
}

func TestConnStringQuotes(t *testing.T) {
	s := stopped(t, 0)
	dir := filepath.Join(s.Dir, `so'ck \et`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(dir); err != nil {
		t.Fatal(err)
	}
	opt := options(s)
	opt.SocketDir = dir
	in := start(t, opt)
	ready(t, in)
	if !exists(filepath.Join(dir, "postgres.log")) {
		t.Error("no log in the socket directory")
	}
	if got := query(t, in, "", `SELECT current_user::text`); got != "postgres" {
		t.Errorf("user %s", got)
	}
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	if !exists(dir) {
		t.Error("Stop removed a socket directory that the caller gave")
	}
}
