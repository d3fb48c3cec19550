package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/pginstance"
)

// Standby makes a streaming standby of a running server, by pg_basebackup, and returns when it answers. Settings are written
// behind those that it inherits. Promote makes it a primary; Start works as soon as that has been done, StartStandby before.
func (s *Server) Standby(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	dir := TempDir(t)
	b := &Server{
		Dir: dir, DataDir: filepath.Join(dir, "data"), SocketDir: filepath.Join(dir, "s"),
		LogFile: filepath.Join(dir, "postgres.log"), Bin: s.Bin, Tablespaces: map[string]string{},
	}
	b.mkdir(t, b.SocketDir)
	s.Run(t, "pg_basebackup", "-d", s.ReplicationDSN(), "-D", b.DataDir, "-R", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest")
	b.configure(t, Options{Settings: settings})
	t.Cleanup(func() { b.cleanUp(t) })
	b.StartStandby(t)
	return b
}

// StartStandby starts a server that was stopped, and waits until it answers queries, be it in recovery.
func (s *Server) StartStandby(t testing.TB) {
	t.Helper()
	s.start(t, pginstance.Accepting)
}

// Promote makes a standby a primary, and waits until it accepts writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "SELECT pg_promote(wait => false)")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if _, err := s.instance.WaitReady(ctx, pginstance.Promoted); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Follow starts a stopped server as a standby of another one, whose history must contain its own.
func (s *Server) Follow(t testing.TB, primary *Server) {
	t.Helper()
	s.mark(t, "standby.signal", fmt.Sprintf("\nprimary_conninfo = 'host=%s port=%d user=postgres'\n", primary.SocketDir, primary.Port))
	s.StartStandby(t)
}

// Independent starts a stopped standby as a primary of its own on the same timeline, which nobody should do to a cluster that
// he likes.
func (s *Server) Independent(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.DataDir, "standby.signal")); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.Start(t)
}

// mark makes an empty file in the data directory, and appends to the settings that ALTER SYSTEM has made.
func (s *Server) mark(t testing.TB, name, settings string) {
	t.Helper()
	path := filepath.Join(s.DataDir, name)
	err := os.WriteFile(path, nil, 0o600)
	if err == nil {
		err = Owner(t).Chown(path)
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(filepath.Join(s.DataDir, "postgresql.auto.conf"), os.O_WRONLY|os.O_APPEND, 0)
	}
	if err == nil {
		_, err = f.WriteString(settings)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}
