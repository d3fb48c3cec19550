package pginstance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
)

// State is what a server is doing.
type State string

// The states. They need not follow each other in this order, and a short one may never be seen.
const (
	// StateStarting: it runs and does not answer SQL yet, because it has not reached a consistent state, or because
	// hot_standby is off.
	StateStarting State = "starting"
	// StateRecovery: it replays WAL and answers SQL.
	StateRecovery State = "in recovery"
	// StatePaused: replay stands still. Only Status.TargetLine tells whether that is because of a target.
	StatePaused State = "paused"
	// StateReady: recovery has ended, or there was none; it accepts writes.
	StateReady State = "ready"
	// StateStopping: it shuts down.
	StateStopping State = "stopping"
	// StateExited: the postmaster has ended; Status.Exit says how.
	StateExited State = "exited"
)

// Status is what one look at a server found.
type Status struct {
	// State is what it is doing. In StateStarting, StateStopping and StateExited no SQL was answered, and the fields
	// below up to Err are zero.
	State State
	// ReplayLSN is the end of the last record that was replayed since the server started; it stays after recovery has
	// ended. Zero if nothing was replayed.
	ReplayLSN pg.LSN
	// WriteLSN is the present end of WAL; zero in recovery.
	WriteLSN pg.LSN
	// LastCommit is the time of the last commit or abort that was replayed since the server started, by the clock of
	// the server that made it; zero if there was none. It stays after recovery has ended.
	LastCommit time.Time
	// Timeline is the one that is written to, or in recovery the newest that is recorded in pg_control, which may lag
	// behind replay until the next restartpoint.
	Timeline pg.Timeline
	// PauseState is pg_get_wal_replay_pause_state(): "not paused", "pause requested" or "paused"; "" after recovery.
	PauseState string
	// Err is why SQL was not answered; nil if it was.
	Err error

	// TargetLine is the message by which recovery said that it had reached its target, such as "recovery stopping at
	// restore point "x", time ..."; "" if it has not, or had none.
	TargetLine string
	// Exit says how the server ended; nil while it runs.
	Exit *ExitError
}

// String says it in a few words, for progress lines.
func (s Status) String() string {
	switch s.State {
	case StateRecovery, StatePaused:
		text := fmt.Sprintf("%s at %s", s.State, s.ReplayLSN)
		if !s.LastCommit.IsZero() {
			text += ", last commit " + s.LastCommit.UTC().Format(time.RFC3339Nano)
		}
		return text
	case StateReady:
		return fmt.Sprintf("%s on timeline %s", s.State, s.Timeline)
	case StateExited:
		return s.Exit.Error()
	}
	return string(s.State)
}

// queryTimeout bounds one look: an overloaded server must not hold up the watch over its process.
const queryTimeout = 5 * time.Second

// statusQuery asks for everything at once. A function that the present state does not allow (pg_current_wal_lsn in
// recovery, the pause state outside) raises an error, hence the CASE; if recovery ends between two of them the query
// fails, and the next look succeeds. pg_walfile_name begins with the timeline that is written to; pg_control is the only
// source in recovery that needs no walreceiver. The pause state is asked first: what is read after a pause is final,
// while a position that was read before it may be that of the record before the last.
const statusQuery = `SELECT r AS recovering,
	CASE WHEN r THEN pg_get_wal_replay_pause_state() ELSE '' END AS pause_state,
	coalesce(pg_last_wal_replay_lsn(), '0/0')::text AS replayed,
	CASE WHEN r THEN '0/0' ELSE pg_current_wal_lsn()::text END AS written,
	pg_last_xact_replay_timestamp() AS last_commit,
	CASE WHEN r THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
			(SELECT min_recovery_end_timeline FROM pg_control_recovery()))::int8
		ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 END AS timeline
FROM pg_is_in_recovery() AS r`

// answer is the row of statusQuery.
type answer struct {
	Recovering bool
	PauseState string
	Replayed   string
	Written    string
	LastCommit *time.Time
	Timeline   int64
}

// Status looks at the server once. It never fails: what could not be found out is in the Status.
func (in *Instance) Status(ctx context.Context) Status {
	w := watcher{in: in}
	defer w.close()
	return w.look(ctx)
}

// watcher keeps one connection over many looks.
type watcher struct {
	in   *Instance
	conn *dbcore.Conn
}

func (w *watcher) close() {
	if w.conn != nil {
		_ = w.conn.Close() // nothing was changed over it
		w.conn = nil
	}
}

// ask runs statusQuery, over a new connection if there is none.
func (w *watcher) ask(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if w.conn == nil {
		conn, err := w.connect(ctx, w.in.database)
		var refused *dbcore.ConnectError
		if errors.As(err, &refused) && refused.Code == dbcore.CodeNoDatabase {
			conn, err = w.connect(ctx, "template1") // a cluster may do without a database "postgres"
		}
		if err != nil {
			return answer{}, err
		}
		w.conn = conn
	}
	return dbcore.One[answer](ctx, w.conn, statusQuery)
}

func (w *watcher) connect(ctx context.Context, database string) (*dbcore.Conn, error) {
	// Some are named only because the environment would decide them otherwise: PGTARGETSESSIONATTRS could demand a
	// server that accepts writes, PGTZ a time zone that the server does not know.
	cfg, err := dbcore.ParseDSN(w.in.ConnString(database, "") +
		" target_session_attrs=any timezone=UTC application_name=lifeboat")
	if err != nil {
		return nil, err
	}
	return dbcore.Connect(ctx, cfg)
}

func (w *watcher) look(ctx context.Context) Status {
	if w.in.Ended() {
		return w.in.exited()
	}
	var st Status
	row, err := w.ask(ctx)
	if err == nil {
		st, err = row.status()
	}
	if err != nil {
		w.close()
		if w.in.Ended() {
			return w.in.exited()
		}
		st = Status{State: StateStarting, Err: err}
		if f, err := readPIDFile(w.in.dataDir); err == nil && f.pid == w.in.pid && f.state == "stopping" {
			st.State = StateStopping
		}
	}
	w.in.log.update() // after the answer: what was answered is logged by now
	st.TargetLine = w.in.log.targetLine()
	return st
}

// status makes a Status of a row.
func (a answer) status() (Status, error) {
	replayed, err := pg.ParseLSN(a.Replayed)
	if err != nil {
		return Status{}, err
	}
	written, err := pg.ParseLSN(a.Written)
	if err != nil {
		return Status{}, err
	}
	st := Status{
		State: StateReady, ReplayLSN: replayed, WriteLSN: written, Timeline: pg.Timeline(a.Timeline),
		PauseState: a.PauseState,
	}
	if a.LastCommit != nil {
		st.LastCommit = *a.LastCommit
	}
	switch {
	case a.Recovering && a.PauseState == "paused":
		st.State = StatePaused
	case a.Recovering:
		st.State = StateRecovery
	}
	return st, nil
}

// exited describes the end of the server.
func (in *Instance) exited() Status {
	err := in.exitError()
	return Status{State: StateExited, TargetLine: err.TargetLine, Exit: err}
}

// exitError reads the log to its end and describes the end of the server, which must have come.
func (in *Instance) exitError() *ExitError {
	in.log.update()
	err := in.log.exitError(in.dataDir, strconv.Itoa(in.pid))
	if in.child == nil || in.child.cmd.ProcessState == nil {
		return err
	}
	err.Code = in.child.cmd.ProcessState.ExitCode()
	if ws, ok := in.child.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		err.Signal = ws.Signal()
	}
	return err
}
