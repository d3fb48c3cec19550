package dbcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	// ReadOnly makes the server refuse writes.
	ReadOnly bool
	// Deferrable, together with Serializable and ReadOnly, waits for a snapshot that cannot be part of an anomaly:
	// what is read then is valid at once, not only after COMMIT. It has no effect otherwise.
	Deferrable bool
	// CommitTimeout bounds COMMIT; 0 is 30 seconds. When it ends, the outcome is ErrCommitAmbiguous.
	CommitTimeout time.Duration
}

func (o TxOptions) beginSQL() (string, error) {
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

// Tx is a running transaction. It is valid until its function returns, and not safe for concurrent use.
type Tx struct {
	conn *pgx.Conn
	done bool
}

// Exec is DB.Exec inside the transaction.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	if t.done {
		return 0, ErrTxDone
	}
	return execOn(ctx, t.conn, sql, args)
}

// Query is DB.Query inside the transaction. No other statement can run in it until the rows are closed.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	if t.done {
		return nil, ErrTxDone
	}
	return queryOn(ctx, t.conn, sql, args)
}

// RunTx runs fn in a transaction: COMMIT if fn returns nil, ROLLBACK if it returns an error, panics, or if ctx has
// ended by then. A panic goes on after the rollback. fn should have no effect outside the database, because whoever
// must repeat it repeats all of it.
//
// The error is that of fn as fn gave it, or that of the transaction's begin or end:
//
//   - ErrCommitAmbiguous: COMMIT was sent and no answer came. The transaction may be committed.
//   - ErrTxAborted: fn swallowed the error of a failed statement; rolled back.
//   - any other: rolled back, also when the server refused the COMMIT (deferred constraints, serialization failures).
//
// A COMMIT whose wait for a synchronous standby is cancelled on the server counts as committed: the server reports
// success, and only a warning says that the standby may lack it.
//
// RunTx itself never repeats anything.
func (db *DB) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	conn, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	defer db.release(conn)
	return runTx(ctx, conn.Conn(), opts, fn)
}

func runTx(ctx context.Context, conn *pgx.Conn, opts TxOptions, fn func(context.Context, *Tx) error) error {
	begin, err := opts.beginSQL()
	if err != nil {
		return err
	}
	if _, err := execOn(ctx, conn, begin, nil); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	tx := &Tx{conn: conn}
	// Also reached by a panic and by runtime.Goexit (t.FailNow inside fn), which no recover would see.
	defer func() {
		if !tx.done {
			tx.rollback(ctx)
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("transaction rolled back before commit: %w", err)
	}
	return tx.commit(ctx, opts.CommitTimeout)
}

// rollback ends the transaction on a context of its own, bounded so that a stalled server cannot hold the caller. If
// it fails, the connection is closed, which makes the server roll back.
func (t *Tx) rollback(ctx context.Context) {
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
func (t *Tx) commit(ctx context.Context, timeout time.Duration) error {
	state := stateOf(t.conn.PgConn())
	if err := t.beforeCommit(state); err != nil {
		return err
	}
	if timeout <= 0 {
		timeout = DefaultCommitTimeout
	}
	t.done = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	tag, err := t.conn.Exec(ctx, "commit")
	switch {
	case err == nil && tag.String() == "ROLLBACK":
		return ErrTxAborted
	case err == nil:
		return nil
	case outcomeUnknown(err) && !state.notSent(ctx, err):
		_ = t.conn.Close(ctx)
		return &commitError{err: err}
	}
	if t.conn.PgConn().TxStatus() != 'I' {
		_ = t.conn.Close(ctx)
	}
	return fmt.Errorf("commit refused, transaction rolled back: %w", err)
}

// beforeCommit refuses a COMMIT that could only fail or mislead. All of it is known without asking the server.
func (t *Tx) beforeCommit(state connState) error {
	switch {
	case state.wasClosed:
		t.done = true
		return fmt.Errorf("transaction rolled back: %w before COMMIT was sent", ErrConnectionLost)
	case state.wasBusy:
		return errors.New("transaction rolled back: its function left rows open, close them before it returns")
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
	severity := pgErr.SeverityUnlocalized
	if severity == "" {
		severity = pgErr.Severity
	}
	if severity != "ERROR" {
		return true
	}
	switch pgErr.Code {
	case "40003", // statement_completion_unknown
		"08007",                            // transaction_resolution_unknown
		"08000", "08003", "08006", "08P01", // a pooler that lost its server reports so
		"57P01", "57P02": // shutdown
		return true
	}
	return false
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
