package dbcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Isolation is a transaction's isolation level. The zero value is the server's default_transaction_isolation.
type Isolation string

// The levels that PostgreSQL tells apart; READ UNCOMMITTED is READ COMMITTED there.
const (
	ReadCommitted  Isolation = "read committed"
	RepeatableRead Isolation = "repeatable read"
	Serializable   Isolation = "serializable"
)

// How long the ends of a transaction may take. They run on contexts of their own: one that the caller cancels would
// cost the connection, or make the outcome of a COMMIT unknown.
const (
	// DefaultCommitTimeout bounds COMMIT, which may have to wait for synchronous standbys.
	DefaultCommitTimeout = 30 * time.Second
	rollbackTimeout      = 5 * time.Second
)

// TxOptions are the modes of a transaction. The zero value is the server's default.
type TxOptions struct {
	// Isolation is the isolation level.
	Isolation Isolation
	// ReadOnly makes the server refuse writes. Such a transaction is repeated whatever happens to its COMMIT.
	ReadOnly bool
	// Deferrable, together with Serializable and ReadOnly, waits for a snapshot that cannot be part of an anomaly:
	// what is read then is valid at once, not only after COMMIT. It has no effect otherwise.
	Deferrable bool
	// CommitTimeout bounds COMMIT; 0 is 30 seconds. When it ends, the outcome is ErrCommitAmbiguous.
	CommitTimeout time.Duration

	// Verify finds out about a COMMIT whose answer was lost. It costs a round trip in each transaction. Only a DB does
	// it, as it takes a second connection.
	Verify Verify
	// VerifyTimeout bounds that, reconnecting included; 0 is 15 seconds. The caller's own deadline does not, because
	// an outcome is worth more than punctuality.
	VerifyTimeout time.Duration
	// RequireReplication makes it ErrCommittedNotReplicated when a wait for a synchronous standby was broken off.
	RequireReplication bool
	// Report, if set, is filled in, also when an error is returned.
	Report *TxReport
}

// TxReport tells how a transaction went.
type TxReport struct {
	// Attempts counts how often the function ran or should have run.
	Attempts int
	// Verified says that the answer to COMMIT was lost and the outcome found out.
	Verified bool
	// NotReplicated says that it is committed here and perhaps on no synchronous standby.
	NotReplicated bool
}

func (o TxOptions) beginSQL() (string, error) {
	if o.Isolation == "" && !o.ReadOnly && !o.Deferrable {
		return "begin", nil
	}
	var b strings.Builder
	b.WriteString("begin")
	switch o.Isolation {
	case "":
	case ReadCommitted, RepeatableRead, Serializable:
		b.WriteString(" isolation level " + string(o.Isolation))
	default:
		return "", fmt.Errorf("begin transaction: unknown isolation level %q", string(o.Isolation))
	}
	if o.ReadOnly {
		b.WriteString(" read only")
	}
	if o.Deferrable {
		b.WriteString(" deferrable")
	}
	return b.String(), nil
}

// prepare returns the BEGIN, and makes sure that there is an empty report.
func (o *TxOptions) prepare() (begin string, err error) {
	if begin, err = o.beginSQL(); err != nil {
		return "", err
	}
	if o.Report == nil {
		o.Report = new(TxReport)
	}
	*o.Report = TxReport{}
	return begin, nil
}

// Tx is a running transaction. It is valid until its function returns, and not safe for concurrent use.
type Tx struct {
	*txState
	depth int // of savepoints; only the innermost may be used
}

// txState is what a transaction and its savepoints share.
type txState struct {
	conn       *pgx.Conn
	done       bool
	depth      int
	savepoints int
	db         *DB // nil on a session of one's own
}

// txError marks the error of one of the transaction's own statements, as opposed to what else its function may return.
type txError struct {
	tx  *txState
	err error
}

func (e *txError) Error() string { return e.err.Error() }
func (e *txError) Unwrap() error { return e.err }

func (t *txState) mark(err error) error {
	if err == nil {
		return nil
	}
	return &txError{tx: t, err: err}
}

// owns says whether err comes from one of the transaction's own statements.
func (t *txState) owns(err error) bool {
	var own *txError
	return errors.As(err, &own) && own.tx == t
}

// usable says why the transaction cannot run a statement now.
func (t *Tx) usable() error {
	switch {
	case t.done:
		return ErrTxDone
	case t.depth != t.txState.depth:
		return fmt.Errorf("%w: this savepoint has ended, or another one is open within it: use the Tx that its function is given", ErrTxDone)
	}
	return nil
}

// Exec is Conn.Exec inside the transaction.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	n, err := execOn(ctx, t.conn, sql, args)
	return n, t.mark(err)
}

// Query is Conn.Query inside the transaction. No other statement can run in it until the rows are closed.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	rows, err := queryOn(ctx, t.conn, sql, args)
	if err != nil {
		return nil, t.mark(err)
	}
	rows.tx = t.txState
	return rows, nil
}

// RunTx runs fn in a transaction: COMMIT if fn returns nil, ROLLBACK if it returns an error, panics, or if ctx has
// ended by then. A panic goes on after the rollback.
//
// fn may run more than once, from the beginning each time: after a serialization failure or a deadlock, and after a
// lost connection if COMMIT was not sent (see Classify and RetryConfig). So it must have no effect outside the
// database, and must set what it returns by variables anew each time. An error of fn's own, which comes from none of
// the transaction's statements, is returned as it is and ends the matter.
//
// The error is that of fn, or that of the transaction's begin or end:
//
//   - ErrCommitAmbiguous: COMMIT was sent and no answer came. The transaction may be committed. TxOptions.Verify finds
//     out; a ReadOnly or Idempotent transaction is repeated.
//   - ErrTxAborted: fn swallowed the error of a failed statement; rolled back.
//   - any other: rolled back, also when the server refused the COMMIT (deferred constraints, serialization failures).
//
// A COMMIT whose wait for a synchronous standby is broken off on the server counts as committed: the transaction is, and
// only a warning says that the standby may lack it. See TxOptions.RequireReplication and TxReport.
func (db *DB) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	return db.plain.RunTx(ctx, opts, fn)
}

// RunTx is DB.RunTx under the operation's name and breaker. The transaction as a whole is one attempt.
func (o Op) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	begin, err := opts.prepare()
	if err != nil {
		return err
	}
	return o.each(ctx, func() (Phase, error) {
		opts.Report.Attempts++
		return o.txOnce(ctx, begin, opts, fn)
	})
}

// txOnce runs the transaction once, and finds out about its COMMIT if that is wanted.
func (o Op) txOnce(ctx context.Context, begin string, opts TxOptions, fn func(context.Context, *Tx) error) (Phase, error) {
	conn, err := o.db.acquire(ctx)
	if err != nil {
		return PhaseConnect, err
	}
	released := false
	release := func() {
		if !released {
			released = true
			o.db.release(conn)
		}
	}
	defer release()
	run := txRun{begin: begin, opts: opts, conn: conn.Conn(), db: o.db, gate: o.db.policy.gate}
	if opts.Verify != VerifyNone && !opts.ReadOnly {
		run.witness = &witness{how: opts.Verify, table: o.db.policy.tokens}
	}
	phase, err := run.run(ctx, fn)
	opts.Report.NotReplicated = run.notReplicated
	if run.notReplicated {
		o.db.policy.metrics.Commit(o.name, "not replicated")
		o.db.policy.logger.Warn("transaction is committed, but the wait for its synchronous standby was broken off", "op", o.name, "target", o.db.target.String())
	}
	if err == nil || errors.Is(err, errOfApplication) {
		return phase, err
	}
	o.db.after(conn.Conn(), err, phase)
	if !errors.Is(err, ErrCommitAmbiguous) {
		return phase, err
	}
	release() // the connection is closed, and finding out may need its place in the pool
	return o.resolve(ctx, opts, run.witness, err)
}

// resolve decides what follows from a COMMIT without an answer.
func (o Op) resolve(ctx context.Context, opts TxOptions, w *witness, ambiguous error) (Phase, error) {
	if w != nil {
		switch outcome, why := o.db.findOut(ctx, opts, w); outcome {
		case outcomeCommitted:
			opts.Report.Verified = true
			o.db.policy.metrics.Commit(o.name, "verified committed")
			if opts.RequireReplication {
				return PhaseCommit, fmt.Errorf("%w: its answer was lost", ErrCommittedNotReplicated)
			}
			return PhaseCommit, nil
		case outcomeRolledBack:
			opts.Report.Verified = true
			o.db.policy.metrics.Commit(o.name, "verified rolled back")
			return PhaseTx, &notCommittedError{err: errors.Unwrap(ambiguous)}
		default:
			o.db.policy.metrics.Commit(o.name, "undecided")
			ambiguous = fmt.Errorf("%w (verification: %s)", ambiguous, why)
		}
	}
	if opts.ReadOnly || o.idempotent {
		return PhaseTx, ambiguous // running it again does no harm
	}
	return PhaseCommit, ambiguous
}

// RunTx is DB.RunTx on this session, once: a session of one's own is never replaced, so nothing is repeated, and there is
// no second connection to verify by.
func (c *Conn) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	if c.done {
		return ErrClosed
	}
	if opts.Verify != VerifyNone {
		return errors.New("begin transaction: a single session cannot verify its COMMIT: use DB.RunTx")
	}
	begin, err := opts.beginSQL()
	if err != nil {
		return err
	}
	run := txRun{begin: begin, opts: opts, conn: c.conn}
	_, err = run.run(ctx, fn)
	if opts.Report != nil {
		*opts.Report = TxReport{Attempts: 1, NotReplicated: run.notReplicated}
	}
	var app *applicationError
	if errors.As(err, &app) {
		return app.err
	}
	return err
}
