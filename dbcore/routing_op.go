package dbcore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ClusterOp is an Op that finds its server for each attempt: the primary, or a replica if OnReplica says so. A failed attempt
// makes the Cluster look at the server before the next one, and that no connection can be made does not use up
// attempts while FailoverWait lasts.
//
// What is repeated is what an Op repeats. In particular an ambiguous COMMIT is not, unless the transaction is
// READ ONLY or Idempotent, or its fate was found out (TxOptions.Verify, for which VerifyToken asks the new primary).
type ClusterOp struct {
	c          *Cluster
	name       string
	idempotent bool
	read       *readRule
	err        error
}

var (
	_ Querier = (*Cluster)(nil)
	_ Querier = ClusterOp{}
)

// Op names a kind of request, as DB.Op does. Each node has its own breaker of that name.
func (c *Cluster) Op(name string) ClusterOp { return ClusterOp{c: c, name: name} }

// Exec is DB.Exec on the primary.
func (c *Cluster) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	return c.Op("").Exec(ctx, sql, args...)
}

// Query is DB.Query on the primary. For a replica: c.Op("name").OnReplica().Query.
func (c *Cluster) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	return c.Op("").Query(ctx, sql, args...)
}

func (c *Cluster) collect(ctx context.Context, sql string, args []any, fn func(*Rows) error) error {
	return c.Op("").collect(ctx, sql, args, fn)
}

// RunTx is DB.RunTx on the primary. After a failover fn runs again as a whole on the new one, if COMMIT was not sent.
func (c *Cluster) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	return c.Op("").RunTx(ctx, opts, fn)
}

// Idempotent is Op.Idempotent.
func (o ClusterOp) Idempotent() ClusterOp {
	o.idempotent = true
	return o
}

// OnReplica sends the operation to a replica that meets the options, as Cluster.Replica chooses it.
func (o ClusterOp) OnReplica(opts ...ReadOption) ClusterOp {
	rule, err := newReadRule(opts)
	o.read, o.err = &rule, err
	return o
}

// Exec is Op.Exec.
func (o ClusterOp) Exec(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = o.each(ctx, func(op Op) (phase Phase, err error) {
		n, phase, err = op.execUnguarded(ctx, sql, args)
		return phase, err
	})
	return n, err
}

// Query is Op.Query.
func (o ClusterOp) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	var rows *Rows
	err := o.each(ctx, func(op Op) (phase Phase, err error) {
		rows, phase, err = op.queryPeeked(ctx, sql, args)
		return phase, err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func (o ClusterOp) collect(ctx context.Context, sql string, args []any, fn func(*Rows) error) error {
	return o.each(ctx, func(op Op) (Phase, error) { return op.collectOnce(ctx, sql, args, fn) })
}

// RunTx is Op.RunTx. On a replica the transaction must be ReadOnly.
func (o ClusterOp) RunTx(ctx context.Context, opts TxOptions, fn func(ctx context.Context, tx *Tx) error) error {
	begin, err := opts.prepare()
	if err != nil {
		return err
	}
	return o.each(ctx, func(op Op) (Phase, error) {
		opts.Report.Attempts++
		return op.txOnce(ctx, begin, opts, fn)
	})
}

// each runs attempts, each on the server that is the right one at that time, until one succeeds or the request has failed.
func (o ClusterOp) each(ctx context.Context, once func(op Op) (Phase, error)) error {
	if o.err != nil {
		return o.err
	}
	first := time.Now()
	var r *retrying
	var search search
	for began := first; ; began = time.Now() {
		db, err := o.resolve(ctx, max(0, o.c.patience)-search.spent(began))
		if err != nil {
			return o.unresolved(r, first, search.last, err)
		}
		op := o.on(db)
		phase, took, err := op.guarded(ctx, began, func() (Phase, error) { return once(op) })
		if err == nil {
			op.succeeded(time.Since(first))
			return nil
		}
		a := op.attempt(err, phase, took)
		if r == nil {
			r = op.retrying(first)
		}
		r.db = db
		switch wait, again := search.again(&a, o.c.patience); {
		case errors.Is(err, ErrBreakerOpen) && o.moved(ctx, db):
		case again && ctx.Err() == nil:
			o.settle(ctx, db, &a)
			if sleep(ctx, wait) != nil {
				return op.failed(r, r.next(ctx, a))
			}
		default:
			if err := r.next(ctx, a); err != nil {
				return op.failed(r, err)
			}
			o.settle(ctx, db, &a)
		}
	}
}

func (o ClusterOp) on(db *DB) Op {
	op := db.Op(o.name)
	op.idempotent = o.idempotent
	return op
}

// resolve finds the server, and waits for it.
func (o ClusterOp) resolve(ctx context.Context, patience time.Duration) (*DB, error) {
	if o.read != nil {
		if db, err := o.c.replica(ctx, *o.read); err == nil || !errors.Is(err, ErrNoPrimary) {
			return db, err
		}
	}
	return o.c.waitBounded(ctx, patience)
}

// unresolved is the error of a request for which no server was found. What it failed with before says whether it may have
// taken effect.
func (o ClusterOp) unresolved(r *retrying, first time.Time, last *Attempt, err error) error {
	if r != nil && len(r.history) > 0 {
		return o.on(r.db).failed(r, r.final(err))
	}
	o.c.policy.metrics.Request(o.name, "error", time.Since(first))
	if last != nil {
		return fmt.Errorf("%w (the last attempt: %w)", err, last.Err)
	}
	return err
}

// settle waits until the server was looked at, if an attempt's failure says something about it.
func (o ClusterOp) settle(ctx context.Context, db *DB, a *Attempt) {
	if v := a.Verdict; v.SuspectRole || v.SuspectPool || v.Health == HealthFailure || errors.Is(a.Err, ErrFenced) {
		if n := o.c.nodeOf(db); n != nil {
			o.c.recheck(ctx, n, o.read == nil)
		}
	}
}

// moved says whether another server is the right one by now, or this one has failed to answer. Its breaker has no say then.
func (o ClusterOp) moved(ctx context.Context, db *DB) bool {
	if o.read != nil {
		return false
	}
	n := o.c.nodeOf(db)
	if n == nil {
		return true
	}
	o.c.recheck(ctx, n, true)
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	return n.err != nil || o.c.view.Load().primary(o.c.nodes) != db
}

// search is the part of a request in which nothing could be sent, because no server took it. It is bounded by time and not by
// attempts, as a failover takes its time.
type search struct {
	began time.Time
	tries int
	last  *Attempt
}

func (s *search) spent(now time.Time) time.Duration {
	if s.began.IsZero() {
		return 0
	}
	return now.Sub(s.began)
}

// again says whether an attempt failed in the search, and how long to wait before the next.
func (s *search) again(a *Attempt, patience time.Duration) (time.Duration, bool) {
	searching := (a.Phase == PhaseConnect || errors.Is(a.Err, ErrFenced)) && a.Verdict.Action == Retry
	if !searching || errors.Is(a.Err, ErrBreakerOpen) || SQLState(a.Err) == "53300" { // too many connections: it is there, and busy
		s.began = time.Time{}
		return 0, false
	}
	now := time.Now()
	if s.began.IsZero() {
		s.began = now
	}
	if s.spent(now) >= patience {
		return 0, false
	}
	s.tries++
	s.last = a
	return RetryConfig{MaxDelay: time.Second}.Delay(a.Verdict.Class, s.tries, rand.Float64()), true
}
