package pgtest

import (
	"os"
	"testing"
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
