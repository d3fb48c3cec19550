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
