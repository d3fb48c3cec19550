package dbcore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// Op is a named kind of request on a DB: it has a circuit breaker of its own, its name is in metrics, and it may be
// declared idempotent. It is a small value; DB.Op makes one, and the methods give changed copies.
//
// A request goes through its policies in this order, and each stands where it does for a reason:
//
//	budget → retry → circuit breaker → acquire → transaction → PostgreSQL
//
// The budget is outermost, as it speaks for all requests together. The breaker is inside of retry, so that it sees every
// attempt, and so that retries end when it opens. It is outside of acquire, so that a dead database does not fill the
// pool's queue. A transaction is one attempt as a whole: no breaker ever stands between its statements.
type Op struct {
	db         *DB
	name       string
	breaker    *Breaker
	idempotent bool
}

// Op names a kind of request, "invoice.write" for instance. Names are for kinds: put no identifiers into them.
func (db *DB) Op(name string) Op {
	if name == "" {
		return db.plain
	}
	return Op{db: db, name: name, breaker: db.breakers.get(name)}
}

// Idempotent declares that running it twice is the same as running it once, so that it may be repeated when it is not
// known whether the server has run it. Nobody can see that from the SQL: a SELECT may call a function that writes.
func (o Op) Idempotent() Op {
	o.idempotent = true
	return o
}

// Name is what DB.Op was given; "" is that of the DB's own methods.
func (o Op) Name() string { return o.name }

// Breaker is the circuit breaker of the operation.
func (o Op) Breaker() *Breaker { return o.breaker }

// Exec is DB.Exec under the operation's name and breaker.
func (o Op) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	first := time.Now()
	n, phase, took, err := o.execOnce(ctx, first, sql, args)
	if err == nil {
		o.succeeded(took)
		return n, nil
	}
	for r := o.retrying(first); ; {
		if err := r.next(ctx, o.attempt(err, phase, took)); err != nil {
			return 0, o.failed(r, err)
		}
		if n, phase, took, err = o.execOnce(ctx, time.Now(), sql, args); err == nil {
			o.succeeded(time.Since(first))
			return n, nil
		}
	}
}

// Query is DB.Query under the operation's name and breaker. It waits for the first row, and repeats no more once it
// has returned: an error that comes later, from Rows.Err, is the caller's. Collect and One repeat as a whole.
func (o Op) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	var rows *Rows
	err := o.each(ctx, func() (phase Phase, err error) {
		rows, phase, err = o.queryPeeked(ctx, sql, args)
		return phase, err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// queryPeeked runs a query once and waits for its first row.
func (o Op) queryPeeked(ctx context.Context, sql string, args []any) (*Rows, Phase, error) {
	rows, phase, err := o.queryOnce(ctx, sql, args)
	if err == nil && !rows.peek() {
		if err = rows.Err(); err != nil {
			rows.Close()
		}
	}
	return rows, phase, err
}

// collect runs a query and gives its rows to fn, and both again if that is allowed. fn starts afresh each time.
func (o Op) collect(ctx context.Context, sql string, args []any, fn func(*Rows) error) error {
	return o.each(ctx, func() (Phase, error) { return o.collectOnce(ctx, sql, args, fn) })
}

func (o Op) collectOnce(ctx context.Context, sql string, args []any, fn func(*Rows) error) (Phase, error) {
	rows, phase, err := o.queryOnce(ctx, sql, args)
	if err != nil {
		return phase, err
	}
	defer rows.Close()
	return phase, rows.wrap(fn(rows))
}

// each runs attempts within the breaker until one succeeds or the request has failed.
func (o Op) each(ctx context.Context, once func() (Phase, error)) error {
	first := time.Now()
	phase, took, err := o.guarded(ctx, first, once)
	if err == nil {
		o.succeeded(took)
		return nil
	}
	for r := o.retrying(first); ; {
		if err := r.next(ctx, o.attempt(err, phase, took)); err != nil {
			return o.failed(r, err)
		}
		if phase, took, err = o.guarded(ctx, time.Now(), once); err == nil {
			o.succeeded(time.Since(first))
			return nil
		}
	}
}

// guarded runs one attempt within the breaker.
func (o Op) guarded(ctx context.Context, began time.Time, once func() (Phase, error)) (phase Phase, took time.Duration, err error) {
	permit, err := o.breaker.Enter()
	if err != nil {
		return PhaseConnect, 0, err
	}
	health := HealthUnknown // also what a panic or Goexit of the application says about the server
	defer func() {
		took = time.Since(began)
		permit.Leave(health, took)
	}()
	phase, err = once()
	health = o.judge(ctx, err, phase)
	return phase, 0, err
}

// execOnce is guarded for Exec: no function value, no closure.
func (o Op) execOnce(ctx context.Context, began time.Time, sql string, args []any) (n int64, phase Phase, took time.Duration, err error) {
	permit, err := o.breaker.Enter()
	if err != nil {
		return 0, PhaseConnect, 0, err
	}
	health := HealthUnknown
	defer func() {
		took = time.Since(began)
		permit.Leave(health, took)
	}()
	n, phase, err = o.execUnguarded(ctx, sql, args)
	health = o.judge(ctx, err, phase)
	return n, phase, 0, err
}

func (o Op) execUnguarded(ctx context.Context, sql string, args []any) (int64, Phase, error) {
	conn, err := o.db.acquire(ctx)
	if err != nil {
		return 0, PhaseConnect, err
	}
	defer o.db.release(conn)
	n, err := execOn(ctx, conn.Conn(), sql, args)
	if err != nil {
		o.db.after(conn.Conn(), err, PhaseAutocommit)
	}
	return n, PhaseAutocommit, err
}

func (o Op) queryOnce(ctx context.Context, sql string, args []any) (*Rows, Phase, error) {
	conn, err := o.db.acquire(ctx)
	if err != nil {
		return nil, PhaseConnect, err
	}
	rows, err := queryOn(ctx, conn.Conn(), sql, args)
	if err != nil {
		o.db.after(conn.Conn(), err, PhaseAutocommit)
		o.db.release(conn)
		return nil, PhaseAutocommit, err
	}
	rows.db, rows.pooled = o.db, conn
	return rows, PhaseAutocommit, nil
}

// judge is what an attempt says about the server. A caller who gave up says nothing, whatever error came of it.
func (o Op) judge(ctx context.Context, err error, phase Phase) Health {
	switch {
	case err == nil:
		return HealthAlive
	case ctx.Err() != nil:
		return HealthUnknown
	case errors.Is(err, errOfApplication):
		return HealthAlive
	}
	return o.db.policy.classify(err, phase).Health
}

func (o Op) attempt(err error, phase Phase, took time.Duration) Attempt {
	a := Attempt{Err: err, Phase: phase, Took: took}
	var open *BreakerOpenError
	switch {
	case errors.Is(err, errOfApplication):
		a.Err, a.Verdict = errors.Unwrap(err), Verdict{Health: HealthAlive, Reason: "an error of the application"}
	case errors.As(err, &open):
		a.Verdict = Verdict{Reason: "the circuit breaker is open"}
		if o.db.policy.retry.WaitForBreaker && !open.Until.IsZero() {
			a.Verdict.Action = Retry
		}
	default:
		a.Verdict = o.db.policy.classify(err, phase)
	}
	return a
}

func (o Op) retrying(began time.Time) *retrying {
	return &retrying{db: o.db, op: o.name, idempotent: o.idempotent, began: began}
}

func (o Op) succeeded(took time.Duration) {
	o.db.policy.budget.success()
	o.db.typical.add(took)
	if o.db.counted {
		o.db.policy.metrics.Request(o.name, "ok", took)
	}
}

func (o Op) failed(r *retrying, err error) error {
	outcome := "error"
	switch last := &r.history[len(r.history)-1]; {
	case r.open != nil || last.uncertain():
		outcome = "ambiguous"
	case errors.Is(err, ErrBreakerOpen):
		outcome = "rejected"
	}
	o.db.policy.metrics.Request(o.name, outcome, time.Since(r.began))
	return err
}

// OrElse runs fn, whose requests go through breakers, and answers by fallback if one of those let nothing pass: from a
// cache, for instance, or with less than was asked for. It does not hide an error that may have had an effect, nor one of
// a database that still answers. A nil fallback changes nothing.
func OrElse[T any](fn func() (T, error), fallback func(*BreakerOpenError) (T, error)) (T, error) {
	value, err := fn()
	var open *BreakerOpenError
	if fallback == nil || !errors.As(err, &open) || isOneOf(err, ErrConnectionLost, ErrCommitAmbiguous) {
		return value, err
	}
	return fallback(open)
}

// errOfApplication marks an error of a transaction's function that is not one of its statements: it is returned as it
// is, is not repeated, and says nothing against the server.
var errOfApplication = errors.New("error of the application")

type applicationError struct{ err error }

func (e *applicationError) Error() string        { return e.err.Error() }
func (e *applicationError) Is(target error) bool { return target == errOfApplication }
func (e *applicationError) Unwrap() error        { return e.err }

// after draws the consequences of a failed statement for the pool: others of its connections may be dead, too, or
// the server may not be the primary any more.
func (db *DB) after(conn *pgx.Conn, err error, phase Phase) {
	if err == nil {
		return
	}
	v := db.policy.classify(err, phase)
	db.policy.gate.observe(v)
	if v.SuspectPool {
		db.suspect(v.Reason)
	}
	if v.SuspectRole {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		_ = conn.Close(ctx)
		cancel()
		db.pool.Reset() // new connections ask target_session_attrs again
		db.suspect(v.Reason)
	}
	if v.Alert {
		db.policy.logger.Error("database error that a person must look at", "target", db.target.String(), "reason", v.Reason, "error", err)
	}
}
