package basebackup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
)

// pingEvery is how often the session that holds backup mode is asked whether it is still there. It is a variable for
// tests.
var pingEvery = 10 * time.Second

// pingTimeout bounds one question.
const pingTimeout = time.Minute

// session is the one session between pg_backup_start and pg_backup_stop (R6): direct, pinned, never pooled or retried.
// Backup mode ends with it, and with it the worth of everything that was read.
type session struct {
	conn  *dbcore.Conn
	pid   int64 // of the server's process
	start pg.LSN
}

// startSession brings the server into backup mode. Close ends it, also without a stop.
func startSession(ctx context.Context, cfg dbcore.Config, label string, want pg.SystemID) (*session, error) {
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn}
	if err := s.begin(ctx, label, want); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// begin also lifts the limits of time that a role or database may have: the checkpoint takes what it takes, and the
// session is idle while files are read.
func (s *session) begin(ctx context.Context, label string, want pg.SystemID) error {
	_, err := dbcore.Collect[string](ctx, s.conn, `select set_config(name, '0', false) from pg_settings
		where name in ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'transaction_timeout')`)
	if err != nil {
		return fmt.Errorf("prepare the session for the backup: %w", err)
	}
	id, err := dbcore.One[string](ctx, s.conn, "select system_identifier::text from pg_control_system()")
	if err != nil {
		return fmt.Errorf("ask the server who it is: %w", err)
	}
	if id != want.String() {
		return fmt.Errorf("the dsn leads to two servers: system identifier %s now, %v a moment before", id, want)
	}
	type started struct {
		PID int64  `db:"pid"`
		LSN string `db:"lsn"`
	}
	r, err := dbcore.One[started](ctx, s.conn, "select pg_backend_pid()::bigint as pid, pg_backup_start($1, true)::text as lsn", label)
	if err != nil {
		return fmt.Errorf("pg_backup_start: %w", err)
	}
	s.pid = r.PID
	s.start, err = pg.ParseLSN(r.LSN)
	return err
}

// check asks whether the session is still the same one. A connection pooler in between may have given another.
func (s *session) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	pid, err := dbcore.One[int64](ctx, s.conn, "select pg_backend_pid()::bigint")
	if err != nil {
		return s.lost(err)
	}
	return s.samePID(pid)
}

func (s *session) samePID(pid int64) error {
	if pid == s.pid {
		return nil
	}
	return s.lost(fmt.Errorf("process %d of the server answers instead of %d: a connection pooler lies between; use a dsn that leads to the server itself", pid, s.pid))
}

func (s *session) lost(err error) error {
	return fmt.Errorf("the session that holds the server in backup mode is lost, and with it what was read: %w", err)
}

// watch asks in the background, and ends the work when the session is lost. stop waits for a question under way, after
// which the session is the caller's again.
func (s *session) watch(ctx context.Context, end context.CancelCauseFunc) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := s.check(ctx); err != nil {
				end(err)
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// stopped is what pg_backup_stop says.
type stopped struct {
	PID   int64  `db:"pid"`
	LSN   string `db:"lsn"`
	Label string `db:"label"`
	Map   string `db:"map"`
}

// stop ends backup mode. The server does not wait for its WAL to be archived: waitForWAL looks into the repository.
func (s *session) stop(ctx context.Context) (stopped, error) {
	var none stopped
	if err := s.check(ctx); err != nil {
		return none, err
	}
	r, err := dbcore.One[stopped](ctx, s.conn, `select pg_backend_pid()::bigint as pid, lsn::text as lsn, labelfile as label,
		coalesce(spcmapfile, '') as map from pg_backup_stop(wait_for_archive => false)`)
	if err != nil {
		return none, fmt.Errorf("pg_backup_stop: %w", err)
	}
	return r, s.samePID(r.PID)
}

func (s *session) close() error { return s.conn.Close() }
