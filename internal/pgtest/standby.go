package pgtest

import (
	"context"
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
