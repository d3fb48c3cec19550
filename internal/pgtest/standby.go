package pgtest

import (
	"context"
	"os"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
)

// Standby makes a streaming standby of s by pg_basebackup, and starts it. It ends with its test.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	sb := New(t, Options{Major: s.Bin.Major, Stopped: true})
	if err := os.RemoveAll(sb.DataDir); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.Run(t, "pg_basebackup", "-d", s.ReplicationDSN(), "-D", sb.DataDir, "-R", "-X", "stream", "-c", "fast")
	sb.StartStandby(t)
	return sb
}

// StartStandby is Start for a server that stays in recovery: it waits until the server accepts reads.
func (s *Server) StartStandby(t testing.TB) {
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
	if _, err := in.WaitReady(ctx, pginstance.Accepting); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}
