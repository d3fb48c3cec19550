package dbcore_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// TestBaseBackupSkip: archives need not be read, or not to their end.
func TestBaseBackupSkip(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	s, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true, Manifest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("before Next: %d, %v", n, err)
	}
	if _, err := rc.Show(t.Context(), "port"); err == nil {
		t.Error("a command ran beside the backup")
	}
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s, 100_000); err != nil {
		t.Fatal(err)
	}
	archive, err := s.Next(t.Context())
	if err != nil || !archive.Manifest {
		t.Fatalf("got %+v, %v", archive, err)
	}
	head := make([]byte, 20)
	if _, err := io.ReadFull(s, head); err != nil || !strings.HasPrefix(string(head), "{ \"PostgreSQL") {
		t.Errorf("manifest begins %q, %v", head, err)
	}
	for range 2 {
		if _, err := s.Next(t.Context()); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	if n, err := s.Read(head); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if _, err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(t.Context()); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("second Finish: %v", err)
	}
	if err := s.Close(); err != nil || rc.Closed() {
		t.Errorf("Close after Finish: %v, closed %t", err, rc.Closed())
	}
}

func TestBaseBackupRefused(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	for name, opts := range map[string]dbcore.BaseBackupOptions{
		"rate": {MaxRateKB: 5}, "label": {Label: "a\x00b"}, "algorithm without manifest": {ManifestChecksums: "SHA256"},
	} {
		if _, err := rc.BaseBackup(t.Context(), opts); err == nil || rc.Closed() {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := rc.BaseBackup(canceled(t), dbcore.BaseBackupOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{Manifest: true, ManifestChecksums: "MD5"})
	if dbcore.SQLState(err) != "42601" || !rc.Closed() {
		t.Errorf("unknown algorithm: got %v (%s), closed %t", err, dbcore.SQLState(err), rc.Closed())
	}
	if _, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{}); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// slow starts a backup that takes minutes, and reads its beginning.
func slow(t *testing.T, ctx context.Context, cfg dbcore.Config, idle time.Duration) (*dbcore.ReplicationConn, *dbcore.BaseBackupStream) {
	t.Helper()
	rc := connectReplication(t, cfg)
	s, err := rc.BaseBackup(ctx, dbcore.BaseBackupOptions{FastCheckpoint: true, MaxRateKB: 256, IdleTimeout: idle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s, 50_000); err != nil {
		t.Fatal(err)
	}
	return rc, s
}

// gone waits until the server has no such walsender any more.
func gone(t *testing.T, db *dbcore.DB, pid uint32) {
	t.Helper()
	eventually(t, "the walsender has ended", func() bool {
		return one[int](t, db, "select count(*) from pg_stat_activity where pid = $1", pid) == 0
	})
}

// TestBaseBackupEnds: whatever ends a stream early ends it soon, says so, closes the connection, and leaves nothing
// behind on the server.
func TestBaseBackupEnds(t *testing.T) {
	db := openDB(t, socketConfig())
	cause := errors.New("my cause")
	for _, c := range []struct {
		name  string
		tcp   bool
		end   func(t *testing.T, cancel context.CancelCauseFunc, s *dbcore.BaseBackupStream, pid uint32)
		is    error
		state string
	}{
		{name: "context", end: func(_ *testing.T, cancel context.CancelCauseFunc, _ *dbcore.BaseBackupStream, _ uint32) { cancel(nil) }, is: context.Canceled},
		{name: "context over TLS", tcp: true, end: func(_ *testing.T, cancel context.CancelCauseFunc, _ *dbcore.BaseBackupStream, _ uint32) {
			cancel(cause)
		}, is: cause},
		{name: "Close", end: func(t *testing.T, _ context.CancelCauseFunc, s *dbcore.BaseBackupStream, _ uint32) {
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		}, is: dbcore.ErrClosed},
		{name: "canceled by the server", end: func(t *testing.T, _ context.CancelCauseFunc, _ *dbcore.BaseBackupStream, pid uint32) {
			mustExec(t, db, "select pg_cancel_backend($1)", pid)
		}, state: "57014"},
		{name: "terminated by the server", tcp: true, end: func(t *testing.T, _ context.CancelCauseFunc, _ *dbcore.BaseBackupStream, pid uint32) {
			mustExec(t, db, "select pg_terminate_backend($1)", pid)
		}, state: "57P01"},
		{name: "early Finish", end: func(t *testing.T, _ context.CancelCauseFunc, s *dbcore.BaseBackupStream, _ uint32) {
			if _, err := s.Finish(t.Context()); err == nil {
				t.Error("finished with most of it unread")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			cfg := socketConfig()
			if c.tcp {
				cfg = tcpConfig()
			}
			rc, s := slow(t, ctx, cfg, 0)
			pid := rc.PID()
			end := time.AfterFunc(100*time.Millisecond, func() { c.end(t, cancel, s, pid) })
			if strings.Contains(c.name, "Close") || strings.Contains(c.name, "Finish") {
				end.Stop() // these belong to the reader
				c.end(t, cancel, s, pid)
			}
			began := time.Now()
			_, err := io.Copy(io.Discard, s)
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("took %s", d)
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) || dbcore.SQLState(err) != c.state {
				t.Errorf("got %v, want %v %s", err, c.is, c.state)
			}
			if _, again := s.Next(t.Context()); again == nil || again.Error() != err.Error() {
				t.Errorf("then: %v, before: %v", again, err)
			}
			if !rc.Closed() {
				t.Error("the connection is not closed")
			}
			s.Close()
			gone(t, db, pid)
		})
	}
}

// TestBaseBackupNextContext: the context of a call counts while that call's archive is read, and no longer.
func TestBaseBackupNextContext(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	s, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true, Manifest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, cancelFirst := context.WithCancel(t.Context())
	defer cancelFirst()
	if _, err := s.Next(first); err != nil {
		t.Fatal(err)
	}
	second, cancelSecond := context.WithCancel(t.Context())
	defer cancelSecond()
	if _, err := s.Next(second); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, socketConfig())
	lives := func() bool {
		return one[int](t, db, "select count(*) from pg_stat_activity where pid = $1", rc.PID()) == 1
	}
	cancelFirst()
	holds(t, "the walsender lives", 20*time.Millisecond, lives)
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Errorf("a context that is over ended the next archive: %v", err)
	}
	cancelSecond()
	eventually(t, "the walsender is gone", func() bool { return !lives() })
	if _, err := s.Next(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestBaseBackupStalled stops the walsender as a frozen machine would: the kernel still answers for it.
func TestBaseBackupStalled(t *testing.T) {
	rc, s := slow(t, t.Context(), socketConfig(), 300*time.Millisecond)
	pid := int(rc.PID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Errorf("waking the walsender: %v", err)
		}
	}()
	began := time.Now()
	_, err := io.Copy(io.Discard, s)
	if d := time.Since(began); !errors.Is(err, dbcore.ErrStalled) || d > 3*time.Second || !rc.Closed() {
		t.Errorf("got %v after %s, closed %t", err, d, rc.Closed())
	}
}

// TestBaseBackupCheckpoint: while the server waits for its spread checkpoint it sends nothing, and does not look at
// the connection either. It must be told to stop.
func TestBaseBackupCheckpoint(t *testing.T) {
	db := openDB(t, socketConfig())
	defer mustExec(t, db, "checkpoint") // ends the spread one
	for name, stalled := range map[string]bool{"canceled": false, "start timeout": true} {
		mustExec(t, db, "drop table if exists dirty; create table dirty as select g, repeat('x', 500) from generate_series(1, 20000) g")
		rc := connectReplication(t, socketConfig())
		pid := rc.PID()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		opts, want := dbcore.BaseBackupOptions{IdleTimeout: time.Millisecond}, context.DeadlineExceeded
		if stalled {
			ctx, opts.StartTimeout, want = t.Context(), 300*time.Millisecond, dbcore.ErrStalled
		}
		began := time.Now()
		_, err := rc.BaseBackup(ctx, opts)
		cancel()
		if d := time.Since(began); !errors.Is(err, want) || d < 250*time.Millisecond || d > 3*time.Second || !rc.Closed() {
			t.Errorf("%s: got %v after %s, closed %t", name, err, d, rc.Closed())
		}
		gone(t, db, pid)
		mustExec(t, db, "checkpoint")
	}
}

// TestBaseBackupChecksums damages a page. The server tells the file in a warning, and fails at the very end.
func TestBaseBackupChecksums(t *testing.T) {
	db := openDB(t, socketConfig())
	mustExec(t, db, "drop table if exists damaged; create table damaged as select g, repeat('x', 500) from generate_series(1, 2000) g")
	defer mustExec(t, db, "drop table damaged")
	mustExec(t, db, "checkpoint")
	rel := one[string](t, db, "select pg_relation_filepath('damaged')")
	f, err := os.OpenFile(filepath.Join(srv.data, rel), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 3*8192+4000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	rc := connectReplication(t, socketConfig())
	b, err := take(t, rc, dbcore.BaseBackupOptions{FastCheckpoint: true, VerifyChecksums: true}, "")
	if dbcore.SQLState(err) != "XX001" || b.stop.LSN <= b.start {
		t.Errorf("got %v, stop %s", err, b.stop.LSN)
	}
	if len(b.notices) == 0 || b.notices[0].Severity != "WARNING" || !strings.Contains(b.notices[0].Message, rel) {
		t.Errorf("notices %+v do not name %s", b.notices, rel)
	}
	rc = connectReplication(t, socketConfig())
	if _, err := take(t, rc, dbcore.BaseBackupOptions{FastCheckpoint: true}, ""); err != nil {
		t.Errorf("without verification: %v", err)
	}
}
