package dbcore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// Errors that callers decide on. Test with errors.Is. An error that the server reported keeps its *pgconn.PgError,
// which SQLState reads.
var (
	// ErrInvalidConfig says that a Config or connection string is wrong; trying again cannot help.
	ErrInvalidConfig = errors.New("invalid connection settings")
	// ErrClosed says that the DB, Conn or ReplicationConn had ended before the call, by Close or by an earlier failure.
	// Nothing was sent.
	ErrClosed = errors.New("connection is closed")
	// ErrConnectionLost says that the connection broke while a statement was under way. Outside a transaction nobody
	// knows whether the server ran it: only an idempotent statement may be sent again. Inside a transaction whose
	// COMMIT was not sent yet, nothing of the transaction remains.
	ErrConnectionLost = errors.New("connection lost")
	// ErrCommitAmbiguous says that COMMIT was sent and its answer lost: the transaction may be committed or not. Never
	// run it again blindly; look at the data, or make the transaction idempotent.
	ErrCommitAmbiguous = errors.New("commit sent, its outcome is unknown")
	// ErrTxAborted says that a statement of the transaction failed, the function given to RunTx swallowed that error
	// and returned nil. The transaction is rolled back.
	ErrTxAborted = errors.New("transaction aborted by an earlier failed statement and rolled back")
	// ErrTxDone says that a Tx was used after its function had returned, or that the function itself ended the
	// transaction by a COMMIT or ROLLBACK statement.
	ErrTxDone = errors.New("transaction already ended")
	// ErrPoolSaturated says that all connections were in use for longer than Config.AcquireTimeout. Nothing was sent.
	// Repeating adds to the queue: find who holds the connections, or raise MaxOpenConns.
	ErrPoolSaturated = errors.New("no connection of the pool became free in time")
	// ErrBreakerOpen says that a circuit breaker let nothing pass: the database has just failed too often. Nothing was
	// sent. *BreakerOpenError says until when.
	ErrBreakerOpen = errors.New("circuit breaker is open")
	// ErrBudgetExhausted says that a request was not repeated, although it could have been, because too many others were
	// repeated of late: see Budget.
	ErrBudgetExhausted = errors.New("retry budget is exhausted")
	// ErrDeadlineTooClose says that a request was not repeated, although it could have been, because its context would
	// have ended before the repetition.
	ErrDeadlineTooClose = errors.New("no time is left to repeat it")
	// ErrPooler says that what was asked for needs a session of its own, which Config.Pooler says there is not.
	ErrPooler = errors.New("not available through a pooler in transaction mode")
	// ErrNoPrimary says that no server of a Cluster can be written to now. Nothing was sent. Its text has the remedy.
	ErrNoPrimary = errors.New("no primary")
	// ErrSplitBrain says that more than one server of a Cluster says that it is the primary, and that nobody can tell which is
	// right. It is ErrNoPrimary, too. A person must decide; the text says how.
	ErrSplitBrain = errors.New("split brain: more than one primary")
	// ErrFenced says that a Cluster lets nothing pass to this server, for it was the primary and may not be any more. Nothing
	// was sent, or the transaction is rolled back. Ask the Cluster for the primary, or use its own methods, which do so.
	ErrFenced = errors.New("the server's role must be checked first")
	// ErrCommittedNotReplicated says that a transaction is committed, and that a wait for its synchronous standby was
	// broken off: it is lost if the primary is lost now. Only TxOptions.RequireReplication makes it an error. Do not
	// run the transaction again.
	ErrCommittedNotReplicated = errors.New("committed, but perhaps not on the synchronous standby")
	// ErrNoRows is returned by One when the query returned no row.
	ErrNoRows = pgx.ErrNoRows
	// ErrTooManyRows is returned by One when the query returned more than one row.
	ErrTooManyRows = pgx.ErrTooManyRows
	// ErrStalled says that a server which should be sending was silent for longer than the caller allowed.
	ErrStalled = errors.New("server stalled")
	// ErrProtocol says that the server sent what the protocol does not allow at that point.
	ErrProtocol = errors.New("protocol violation")
	// ErrUnsupportedServer says that the server is older than PostgreSQL 15.
	ErrUnsupportedServer = errors.New("unsupported PostgreSQL version")
)

// SQLState returns the five characters of the error that the server reported, or "" if err holds none (Appendix A,
// "PostgreSQL Error Codes").
func SQLState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// lostError marks err as ErrConnectionLost. It also overrides pgx's word on SafeToRetry: pgx 5.9 to 5.12 report "conn
// closed, safe to retry" for a statement without arguments whose reply was lost, though the server has run it.
// MultiResultReader.NextResult drops the read error, which closes the connection, and the next read then fails as if
// nothing had been sent.
type lostError struct {
	op  string
	err error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("%s: connection lost, whether the server ran it is unknown: %v", e.op, e.err)
}

func (e *lostError) Is(target error) bool { return target == ErrConnectionLost }
func (e *lostError) Unwrap() error        { return e.err }

// SafeToRetry is what pgconn.SafeToRetry asks.
func (e *lostError) SafeToRetry() bool { return false }

// errBusy marks a statement on a connection of which an earlier result is still open.
var errBusy = errors.New("an earlier result of this connection is still open, close it first")

// notSentError proves that nothing of a statement reached the server.
type notSentError struct {
	op        string
	wasClosed bool // the connection had ended before the call
	err       error
}

func (e *notSentError) Error() string {
	if e.wasClosed {
		return fmt.Sprintf("%s: not sent: %v: %v", e.op, ErrClosed, e.err)
	}
	return fmt.Sprintf("%s: not sent: %v", e.op, e.err)
}

func (e *notSentError) Is(target error) bool { return target == ErrClosed && e.wasClosed }
func (e *notSentError) Unwrap() error        { return e.err }

// connState is what must be known of a connection before a statement is sent, to judge its failure afterwards.
type connState struct {
	conn      *pgconn.PgConn
	wasClosed bool
	wasBusy   bool
}

func stateOf(conn *pgconn.PgConn) connState {
	return connState{conn: conn, wasClosed: conn.IsClosed(), wasBusy: conn.IsBusy()}
}

// notSent says that err proves that nothing of the statement reached the server: the connection was closed or busy
// before, or the first write failed with not a single byte written. The last is the only case in which pgx's
// SafeToRetry may be believed (see lostError), and an ended context counts as safe there too.
func (s connState) notSent(ctx context.Context, err error) bool {
	if s.wasClosed || s.wasBusy {
		return true
	}
	return ctx.Err() == nil && pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
}

// wrap gives err the operation's name, and marks it as ErrConnectionLost if the connection broke on the way.
func (s connState) wrap(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if s.wasBusy {
		return fmt.Errorf("%s: %w: %w", op, errBusy, err)
	}
	if s.wasClosed {
		return &notSentError{op: op, wasClosed: true, err: err}
	}
	if endedSession(err) {
		return &lostError{op: op, err: err}
	}
	if s.conn.IsClosed() && SQLState(err) == "" {
		if s.notSent(ctx, err) {
			return &notSentError{op: op, err: err}
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
		return &lostError{op: op, err: err}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// endedSession says that the server ended the session instead of answering, in a way that leaves open whether the
// statement took effect: a FATAL may come after the commit record was written. Those that can only come before a
// statement is run (57P05, a pooler without connections) are left as they are.
func endedSession(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && !isPlainError(pgErr) && Classify(pgErr, PhaseAutocommit).Action != Retry
}

// wrapAcquire explains why the pool gave no connection.
func (t target) wrapAcquire(ctx context.Context, maxConns int32, err error) error {
	var connectErr *pgconn.ConnectError
	switch {
	case errors.Is(err, puddle.ErrClosedPool): // not worth another try, unlike a connection that has ended
		return fmt.Errorf("acquire connection to %s: %w", t, ErrClosed)
	case errors.As(err, &connectErr):
		return t.connectError(err)
	case ctx.Err() != nil:
		return fmt.Errorf("acquire connection to %s: none of at most %d became free or could be opened in time: %w", t, maxConns, err)
	}
	return fmt.Errorf("acquire connection to %s: %w", t, err)
}

// oneLine joins the lines of pgx's multi-host errors, so that a log line stays a line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\t' }), "; ")
}
