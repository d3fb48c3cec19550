package dbcore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// txRun is one attempt at a transaction.
type txRun struct {
	begin   string
	opts    TxOptions
	conn    *pgx.Conn
	witness *witness // nil unless COMMIT is to be verified
	gate    *gate
	db      *DB // nil on a session of one's own

	notReplicated bool
}

// run returns the phase in which the attempt ended, and the error, which is an *applicationError if it came from fn and
// from none of the transaction's statements.
func (r *txRun) run(ctx context.Context, fn func(context.Context, *Tx) error) (Phase, error) {
	phase := PhaseTx
	if r.opts.ReadOnly {
		phase = PhaseReadOnlyTx
	}
	if _, err := execOn(ctx, r.conn, r.begin, nil); err != nil {
		return phase, fmt.Errorf("begin transaction: %w", err)
	}
	tx := newTx(r.conn, r.db)
	// Also reached by a panic and by runtime.Goexit (t.FailNow inside fn), which no recover would see.
	defer func() {
		if !tx.done {
			tx.rollback(ctx)
		}
	}()
	if err := fn(ctx, tx); err != nil {
		if !tx.owns(err) {
			err = &applicationError{err}
		}
		return phase, err
	}
	if err := ctx.Err(); err != nil {
		return phase, fmt.Errorf("transaction rolled back before commit: %w", err)
	}
	if r.witness != nil {
		if err := r.witness.prepare(ctx, tx); err != nil {
			return phase, fmt.Errorf("prepare the verification of COMMIT, rolled back: %w", err)
		}
	}
	return r.commit(ctx, tx, phase)
}

// newTx allocates both parts at once.
func newTx(conn *pgx.Conn, db *DB) *Tx {
	both := &struct {
		tx    Tx
		state txState
	}{state: txState{conn: conn, db: db}}
	both.tx.txState = &both.state
	return &both.tx
}

// rollback ends the transaction on a context of its own, bounded so that a stalled server cannot hold the caller. If
// it fails, the connection is closed, which makes the server roll back.
func (t *txState) rollback(ctx context.Context) {
	t.done = true
	if t.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if _, err := t.conn.Exec(ctx, "rollback"); err != nil {
		_ = t.conn.Close(ctx)
	}
}

// commit sends COMMIT and judges what came of it. From the moment when the first byte is sent, only an answer of the
// server can tell: see outcomeUnknown.
func (r *txRun) commit(ctx context.Context, tx *Tx, before Phase) (Phase, error) {
	state := stateOf(r.conn.PgConn())
	if err := tx.beforeCommit(state); err != nil {
		return before, err
	}
	if err := r.gate.check(); err != nil {
		return before, fmt.Errorf("transaction rolled back: %w", err)
	}
	timeout := r.opts.CommitTimeout
	if timeout <= 0 {
		timeout = DefaultCommitTimeout
	}
	tx.done = true
	meta := metaOf(r.conn)
	meta.notReplicated = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	tag, err := r.conn.Exec(ctx, "commit")
	r.notReplicated = meta.notReplicated
	switch {
	case err == nil && tag.String() == "ROLLBACK":
		return PhaseCommit, ErrTxAborted
	case r.notReplicated: // said by the server after the commit record was written, whatever became of the session
		if r.opts.RequireReplication {
			return PhaseCommit, ErrCommittedNotReplicated
		}
		return PhaseCommit, nil
	case err == nil:
		return PhaseCommit, nil
	case state.notSent(ctx, err):
		return PhaseCommit, fmt.Errorf("commit: %w", &notSentError{op: "transaction rolled back", err: err})
	case outcomeUnknown(err):
		_ = r.conn.Close(ctx)
		return PhaseCommit, &commitError{err: err}
	}
	if r.conn.PgConn().TxStatus() != 'I' {
		_ = r.conn.Close(ctx)
	}
	return PhaseCommit, fmt.Errorf("commit refused, transaction rolled back: %w", err)
}

// beforeCommit refuses a COMMIT that could only fail or mislead. All of it is known without asking the server.
func (t *txState) beforeCommit(state connState) error {
	switch {
	case state.wasClosed:
		t.done = true
		return fmt.Errorf("transaction rolled back: %w before COMMIT was sent", ErrConnectionLost)
	case state.wasBusy:
		return fmt.Errorf("transaction rolled back: its function left rows open: %w", errBusy)
	case state.conn.TxStatus() == 'I':
		t.done = true
		return fmt.Errorf("%w inside its function, by a COMMIT or ROLLBACK statement", ErrTxDone)
	}
	return nil
}

// outcomeUnknown says whether an error of COMMIT leaves open what the server did. An ERROR from the server is a
// definite no, with the exception of the codes that say themselves that they do not know. A session that was ended
// (FATAL, PANIC) may have been ended after the commit record was written, for instance while it waited for a
// synchronous standby. No answer is never an answer.
func outcomeUnknown(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return true
	}
	return Classify(pgErr, PhaseCommit).Action == Ambiguous
}

// commitError is ErrCommitAmbiguous with its cause. Like lostError it takes back pgx's word that the statement may be
// sent again.
type commitError struct{ err error }

func (e *commitError) Error() string {
	return fmt.Sprintf("%v: check the data before running the transaction again: %v", ErrCommitAmbiguous, e.err)
}

func (e *commitError) Is(target error) bool { return target == ErrCommitAmbiguous }
func (e *commitError) Unwrap() error        { return e.err }

// SafeToRetry is what pgconn.SafeToRetry asks.
func (e *commitError) SafeToRetry() bool { return false }

// notCommittedError is a COMMIT whose answer was lost and of which it was found out that it did not happen.
type notCommittedError struct{ err error }

func (e *notCommittedError) Error() string {
	return fmt.Sprintf("transaction rolled back, as was found out after the answer to COMMIT was lost: %v", e.err)
}

func (e *notCommittedError) Is(target error) bool { return target == ErrConnectionLost }
func (e *notCommittedError) Unwrap() error        { return e.err }

// SafeToRetry is what pgconn.SafeToRetry asks. It is: nothing is left of the transaction.
func (e *notCommittedError) SafeToRetry() bool { return true }

// connMeta is what this package keeps with a connection.
type connMeta struct {
	generation    int64 // of the pool's suspicion when the connection was last seen alive
	notReplicated bool  // the server said so since this was last reset
}

const metaKey = "dbcore"

// metaOf finds it, and makes it for a connection that was not made by this package's hooks.
func metaOf(conn *pgx.Conn) *connMeta {
	data := conn.PgConn().CustomData()
	if m, ok := data[metaKey].(*connMeta); ok {
		return m
	}
	m := new(connMeta)
	data[metaKey] = m
	return m
}

// onNotice notes the warning that a COMMIT's wait for a synchronous standby was broken off (SyncRepWaitForLSN in
// src/backend/replication/syncrep.c). Its text and SQLSTATE depend on language and cause, its routine does not.
func onNotice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine != "SyncRepWaitForLSN" {
		return
	}
	if m, ok := conn.CustomData()[metaKey].(*connMeta); ok {
		m.notReplicated = true
	}
}
