// Package pgtest gives tests a real PostgreSQL. A server starts in a fraction of a second, because its data directory
// is copied from a template that initdb made once per machine, and it is gone when its test ends, also when the test
// process is killed.
//
//	s := pgtest.New(t, pgtest.Options{})
//	s.Exec(t, "CREATE TABLE t (i int)")
//	cfg, err := dbcore.ParseDSN(s.DSN(""))
//
// As root, servers run as the user postgres, which cannot enter the 0700 directories of t.TempDir and os.MkdirTemp:
// use TempDir and Build of this package for everything that the server reads, writes or executes.
//
// The package finds installed servers as pginstance does, and before that in the colon-separated directories of the
// environment variable LIFEBOAT_TEST_PG_DIRS, in which {N} stands for the major version.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
)

// startTimeout bounds every start and stop. It is generous: tests share small machines.
const startTimeout = 90 * time.Second

// Options say what New makes. The zero value is a plain server of the lowest installed version.
type Options struct {
	// Major is the major version; 0 means the lowest that is installed. A missing one skips the test.
	Major int
	// Checksums turns data checksums on; without it they are off in every version.
	Checksums bool
	// WALSegSizeMB is the size of WAL segments in MiB; 0 means 16.
	WALSegSizeMB int
	// InitArgs are given to initdb after ours, such as "--encoding=LATIN1".
	InitArgs []string
	// Settings go into postgresql.conf after ours (see defaultSettings), so that a backup carries them.
	Settings map[string]string
	// Archive returns the archive_command, and turns archiving on; nil leaves it off. It is called before the first
	// start, when all fields of the Server but Port are set.
	Archive func(*Server) string
	// Tablespaces are names of tablespaces to create, each in a directory of its own (see Server.Tablespaces).
	Tablespaces []string
	// OwnIdentity runs initdb instead of copying the template (about 1 s more). Without it, servers with the same
	// options have the same system identifier, as copies have.
	OwnIdentity bool
	// Stopped leaves the server stopped; Tablespaces must be empty then.
	Stopped bool
}

// Server is a PostgreSQL server of one test.
type Server struct {
	// Dir holds everything of the server, in a directory that the server's user owns.
	Dir string
	// DataDir is the data directory, Dir/data.
	DataDir string
	// SocketDir is the directory of the Unix socket, Dir/s.
	SocketDir string
	// LogFile is the server's log, Dir/postgres.log. Its end is logged when the test fails.
	LogFile string
	// Port is the TCP port on 127.0.0.1. It stays the same over restarts.
	Port int
	// Bin are the programs of the server's version.
	Bin pginstance.Binaries
	// Tablespaces are the directories of the tablespaces, by name.
	Tablespaces map[string]string

	instance *pginstance.Instance
}

// defaultSettings make a server that is quick and can be backed up and streamed from. Without fsync a crash of the
// machine loses it; a crash of the server does not.
var defaultSettings = map[string]string{
	"fsync":           "off",
	"wal_level":       "replica",
	"max_wal_senders": "10",
	"max_connections": "50",
	"shared_buffers":  "32MB",
	"timezone":        "UTC",
}

// New makes a server and starts it. It ends with the test.
func New(t testing.TB, opt Options) *Server {
	t.Helper()
	dir := TempDir(t)
	s := &Server{
		Dir: dir, DataDir: filepath.Join(dir, "data"), SocketDir: filepath.Join(dir, "s"),
		LogFile: filepath.Join(dir, "postgres.log"), Bin: Binaries(t, opt.Major), Tablespaces: map[string]string{},
	}
	for _, name := range opt.Tablespaces {
		s.Tablespaces[name] = filepath.Join(dir, "ts_"+name)
	}
	for _, d := range append([]string{s.SocketDir}, slices.Collect(maps.Values(s.Tablespaces))...) {
		s.mkdir(t, d)
	}
	s.layDataDir(t, opt)
	s.configure(t, opt)
	t.Cleanup(func() { s.cleanUp(t) })
	if opt.Stopped {
		return s
	}
	s.Start(t)
	for _, name := range opt.Tablespaces {
		s.Exec(t, fmt.Sprintf(`CREATE TABLESPACE %q LOCATION '%s'`, name, s.Tablespaces[name]))
	}
	return s
}

func (s *Server) mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	if err := Owner(t).Chown(dir); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// layDataDir makes the data directory, by copy or by initdb.
func (s *Server) layDataDir(t testing.TB, opt Options) {
	t.Helper()
	init := initOptions(s.Bin, opt)
	if opt.OwnIdentity {
		init.DataDir = s.DataDir
		if err := pginstance.InitDB(t.Context(), init); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		return
	}
	if err := copyTemplate(t.Context(), init, s.DataDir); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// configure appends the settings to postgresql.conf.
func (s *Server) configure(t testing.TB, opt Options) {
	t.Helper()
	settings := maps.Clone(defaultSettings)
	maps.Copy(settings, opt.Settings)
	if opt.Archive != nil {
		settings["archive_mode"] = "on"
		settings["archive_command"] = opt.Archive(s)
	}
	var b strings.Builder
	b.WriteString("\n# pgtest\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(settings[name]))
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(b.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatalf("pgtest: configure: %v", err)
	}
}

// cleanUp stops the server, and shows its log if the test failed. The directory goes with TempDir's own cleanup.
func (s *Server) cleanUp(t testing.TB) {
	if t.Failed() {
		if raw, err := os.ReadFile(s.LogFile); err == nil {
			lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
			t.Logf("the end of %s:\n%s", s.LogFile, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}
	if s.instance == nil {
		return
	}
	// The test's context has ended by now.
	if err := s.instance.Stop(context.Background(), pginstance.Immediate); err != nil {
		t.Errorf("pgtest: %v", err)
	}
}

// Start starts a server that was stopped, and waits until it accepts writes.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.start(t, pginstance.Promoted)
}

// StartStandby is Start for a data directory with standby.signal: it waits until the server accepts reads.
func (s *Server) StartStandby(t testing.TB) {
	t.Helper()
	s.start(t, pginstance.Accepting)
}

func (s *Server) start(t testing.TB, until pginstance.Condition) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	in, err := pginstance.Start(ctx, pginstance.Options{
		Binaries: s.Bin, DataDir: s.DataDir, Owner: Owner(t).Name, Port: s.Port, SocketDir: s.SocketDir,
		LogFile: s.LogFile, PollInterval: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.instance, s.Port = in, in.Port()
	if _, err := in.WaitReady(ctx, until); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Stop shuts the server down cleanly (fast).
func (s *Server) Stop(t testing.TB) { s.stop(t, pginstance.Fast) }

// Kill ends the server at once (immediate shutdown): the next Start does crash recovery.
func (s *Server) Kill(t testing.TB) { s.stop(t, pginstance.Immediate) }

func (s *Server) stop(t testing.TB, mode pginstance.Mode) {
	t.Helper()
	if s.instance == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := s.instance.Stop(ctx, mode); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.instance = nil
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// Instance returns the running server; nil while it is stopped.
func (s *Server) Instance() *pginstance.Instance { return s.instance }

// DSN returns the connection string of a database over the Unix socket, as the superuser postgres; "" means the
// database postgres.
func (s *Server) DSN(db string) string { return s.dsn(s.SocketDir, db) }

// TCPDSN is DSN over 127.0.0.1.
func (s *Server) TCPDSN(db string) string { return s.dsn("127.0.0.1", db) + " sslmode=disable" }

// ReplicationDSN is DSN for a physical replication connection.
func (s *Server) ReplicationDSN() string { return s.DSN("") + " replication=true" }

func (s *Server) dsn(host, db string) string {
	if db == "" {
		db = "postgres"
	}
	return fmt.Sprintf("host=%s port=%d user=postgres dbname='%s'", host, s.Port,
		strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(db))
}
