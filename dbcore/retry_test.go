package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

func TestDelay(t *testing.T) {
	var c dbcore.RetryConfig
	for _, x := range []struct {
		class   dbcore.Class
		attempt int
		most    time.Duration
	}{
		{dbcore.ClassTransient, 1, 50 * time.Millisecond},
		{dbcore.ClassTransient, 3, 200 * time.Millisecond},
		{dbcore.ClassThrottle, 1, time.Second},
		{dbcore.ClassThrottle, 2, 2 * time.Second},
		{dbcore.ClassSerialization, 1, 5 * time.Millisecond},
		{dbcore.ClassSerialization, 2, 10 * time.Millisecond},
		{dbcore.ClassTransient, 5000, dbcore.DefaultMaxDelay},
	} {
		if got := c.Delay(x.class, x.attempt, 0); got != 0 {
			t.Errorf("%v after %d: at least %v: no full jitter", x.class, x.attempt, got)
		}
		if got := c.Delay(x.class, x.attempt, math.Nextafter(1, 0)); got < x.most-time.Microsecond || got > x.most {
			t.Errorf("%v after %d: at most %v, want %v", x.class, x.attempt, got, x.most)
		}
	}
}

func TestBudget(t *testing.T) {
	b := dbcore.NewBudget(2)
	p := newProxy(t, "insert into spent")
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists spent; create table spent (a int)")
	db := openDB(t, p.config(), dbcore.WithBudget(b), dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 10, TransientBase: time.Microsecond}))
	p.set(cutRequest)
	p.stay()
	_, err := db.Op("spend").Idempotent().Exec(t.Context(), "insert into spent values (1)")
	var tried *dbcore.RetryError
	if !errors.Is(err, dbcore.ErrBudgetExhausted) || !errors.Is(err, dbcore.ErrConnectionLost) || !errors.As(err, &tried) || tried.Attempts != 3 {
		t.Fatalf("got %v", err)
	}
	if len(tried.History) != 3 || tried.History[0].Verdict.Action != dbcore.RetryIfIdempotent || tried.History[0].Phase != dbcore.PhaseAutocommit {
		t.Errorf("history %+v", tried.History)
	}
	if left := b.Left(); left >= 1 {
		t.Errorf("%v left", left)
	}
	p.set(cutNothing)
	for range 10 {
		mustExec(t, db, "select 1")
	}
	if left := b.Left(); math.Abs(left-1) > 0.01 {
		t.Errorf("after ten successes %v left, want 1", left)
	}
	if n := one[int](t, direct, "select count(*) from spent"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// TestRetry_LostStatement: what may have run is repeated only if declared idempotent, and never makes a second row
// otherwise.
func TestRetry_LostStatement(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists lostonce; create table lostonce (a int unique)")
	p := newProxy(t, "insert into lostonce")
	db := openDB(t, p.config())
	const sql = "insert into lostonce values (1) on conflict do nothing"
	for _, c := range []struct {
		what       cut
		idempotent bool
		ok         bool
		rows       int
	}{
		{cutRequest, false, false, 0},
		{cutReply, false, false, 1},
		{cutRequest, true, true, 1},
		{cutReply, true, true, 1},
	} {
		mustExec(t, direct, "truncate lostonce")
		p.set(c.what)
		op := db.Op("once")
		if c.idempotent {
			op = op.Idempotent()
		}
		_, err := op.Exec(t.Context(), sql)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, dbcore.ErrConnectionLost) {
			t.Errorf("%+v: got %v", c, err)
		}
		if n := one[int](t, direct, "select count(*) from lostonce"); n != c.rows {
			t.Errorf("%+v: %d rows", c, n)
		}
	}
}

// TestRetry_Reads: a read is repeated before its first row was given out, and as a whole by Collect and One.
func TestRetry_Reads(t *testing.T) {
	p := newProxy(t, "select 4711")
	db := openDB(t, p.config())
	op := db.Op("read").Idempotent()
	p.set(cutReply)
	if v, err := dbcore.Collect[int](t.Context(), op, "select 4711"); err != nil || len(v) != 1 || v[0] != 4711 {
		t.Errorf("Collect: %v, %v", v, err)
	}
	p.set(cutReply)
	if v, err := dbcore.One[int](t.Context(), op, "select 4711"); err != nil || v != 4711 {
		t.Errorf("One: %v, %v", v, err)
	}
	p.set(cutReply)
	rows, err := op.Query(t.Context(), "select 4711")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if !rows.Next() || rows.Scan(&n) != nil || n != 4711 || rows.Next() || rows.Err() != nil {
		t.Errorf("Query: %d, %v", n, rows.Err())
	}
	p.set(cutReply)
	if _, err := dbcore.One[int](t.Context(), db, "select 4711 as undeclared"); !errors.Is(err, dbcore.ErrConnectionLost) {
		t.Errorf("not declared: %v", err)
	}
	if _, err := dbcore.One[int](t.Context(), db, "select 1 where false"); !errors.Is(err, dbcore.ErrNoRows) || strings.Contains(err.Error(), "attempts") {
		t.Errorf("no rows: %v", err)
	}
}

// TestRetry_Serialization: the whole transaction is repeated, with the logic that chose its statements.
func TestRetry_Serialization(t *testing.T) {
	db := openDB(t, socketConfig())
	mustExec(t, db, "drop table if exists counter; create table counter (n int); insert into counter values (0)")
	for conflicts, want := range map[int]int{0: 1, 2: 21, 3: 30} {
		mustExec(t, db, "update counter set n = 0")
		runs := 0
		err := db.RunTx(t.Context(), dbcore.TxOptions{Isolation: dbcore.RepeatableRead}, func(ctx context.Context, tx *dbcore.Tx) error {
			n, err := dbcore.One[int](ctx, tx, "select n from counter")
			if err != nil {
				return err
			}
			if runs++; runs <= conflicts {
				mustExec(t, db, "update counter set n = n + 10")
			}
			return tx.Savepoint(ctx, func(ctx context.Context, tx *dbcore.Tx) error { // a savepoint does not help
				_, err := tx.Exec(ctx, "update counter set n = $1", n+1)
				return err
			})
		})
		var tried *dbcore.RetryError
		if gaveUp := dbcore.SQLState(err) == "40001" && errors.As(err, &tried) && tried.Attempts == 3; gaveUp != (conflicts >= 3) || err != nil && !gaveUp {
			t.Errorf("%d conflicts: %v", conflicts, err)
		}
		if n := one[int](t, db, "select n from counter"); n != want || runs != min(conflicts+1, 3) {
			t.Errorf("%d conflicts: %d after %d runs, want %d", conflicts, n, runs, want)
		}
	}
}

// TestRetry_OwnErrors: an error of the function's own is returned as it is, at once, even if it looks like one of a
// database.
func TestRetry_OwnErrors(t *testing.T) {
	db := openDB(t, socketConfig())
	own := errors.New("insufficient funds")
	for _, want := range []error{own, fmt.Errorf("other: %w", dbcore.ErrConnectionLost), &dbcore.ConnectError{Code: dbcore.CodeRefused}, serverError("40001")} {
		if e := new(dbcore.ConnectError); errors.As(want, &e) {
			continue // has no text without its cause
		}
		runs := 0
		err := db.RunTx(t.Context(), dbcore.TxOptions{}, func(context.Context, *dbcore.Tx) error {
			runs++
			return want
		})
		if err != want || runs != 1 { //nolint:errorlint // the very same
			t.Errorf("got %v after %d runs, want %v after 1", err, runs, want)
		}
	}
}

// TestRetry_Locks: what waits for permission.
func TestRetry_Locks(t *testing.T) {
	holder := connect(t, socketConfig())
	mustExec(t, holder, "drop table if exists held; create table held (a int)")
	for _, allowed := range []bool{false, true} {
		db := openDB(t, socketConfig(), dbcore.WithRetry(dbcore.RetryConfig{Locks: allowed, MaxAttempts: 50, TransientBase: 20 * time.Millisecond, MaxDelay: 20 * time.Millisecond}))
		mustExec(t, holder, "begin; lock table held")
		runs := 0
		err := db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
			if runs++; runs == 3 {
				mustExec(t, holder, "commit")
			}
			_, err := tx.Exec(ctx, "lock table held nowait")
			return err
		})
		if allowed && (err != nil || runs != 3) || !allowed && (dbcore.SQLState(err) != "55P03" || runs != 1) {
			t.Errorf("allowed %t: %v after %d runs", allowed, err, runs)
		}
		mustExec(t, holder, "rollback")
	}
}

// TestRetry_Deadline: no wait that the context would not survive.
func TestRetry_Deadline(t *testing.T) {
	p := newProxy(t, "select 1 as late")
	db := openDB(t, p.config(), dbcore.WithRetry(dbcore.RetryConfig{TransientBase: time.Hour, MaxDelay: time.Hour}))
	p.set(cutRequest)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := db.Op("x").Idempotent().Exec(ctx, "select 1 as late")
	if !errors.Is(err, dbcore.ErrDeadlineTooClose) || !errors.Is(err, dbcore.ErrConnectionLost) || time.Since(began) > 400*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// TestPoolSaturated: a full pool is not a dead server, and does not make callers wait for ever.
func TestPoolSaturated(t *testing.T) {
	cfg := socketConfig()
	cfg.MaxOpenConns, cfg.AcquireTimeout = 1, 50*time.Millisecond
	db := openDB(t, cfg)
	held, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	began := time.Now()
	if _, err := db.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrPoolSaturated) || errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := db.Exec(ctx, "select 1"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, dbcore.ErrPoolSaturated) {
		t.Errorf("the caller's own deadline: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		mustExec(t, db, "select 1")
	}
}

// TestSuspicion: after one connection was ended by the server, the others are looked at before they are given out, so
// that nobody else notices.
func TestSuspicion(t *testing.T) {
	db := openDB(t, tcpConfig())
	direct := connect(t, socketConfig())
	var conns []*dbcore.Conn
	for range 5 {
		c, err := db.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	var pids []uint32
	for _, c := range conns {
		pids = append(pids, c.PID())
		_ = c.Close()
	}
	for _, pid := range pids {
		mustExec(t, direct, "select pg_terminate_backend($1)", int32(pid))
	}
	eventually(t, "sessions are gone", func() bool {
		return one[int](t, direct, "select count(*) from pg_stat_activity where pid = any($1)", pids) == 0
	})
	failed := 0
	for range 10 {
		if _, err := db.Exec(t.Context(), "select 1"); err != nil {
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d statements failed, at most the first may", failed)
	}
}

func TestConnectWithRetry(t *testing.T) {
	cfg := tcpConfig()
	cfg.DBName = "nowhere"
	began := time.Now()
	if _, err := dbcore.ConnectWithRetry(t.Context(), cfg, dbcore.RetryConfig{MaxAttempts: 100}); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("no such database: %v after %v", err, time.Since(began))
	}
	cfg = tcpConfig()
	cfg.Port = 1 // nobody listens there
	_, err := dbcore.ConnectWithRetry(t.Context(), cfg, dbcore.RetryConfig{MaxAttempts: 3, TransientBase: time.Millisecond})
	var tried *dbcore.RetryError
	if !errors.As(err, &tried) || tried.Attempts != 3 {
		t.Errorf("refused: %v", err)
	}
	db, err := dbcore.ConnectWithRetry(t.Context(), tcpConfig(), dbcore.RetryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
}

// TestRetryError_Open: that an earlier attempt may have taken effect is said, whatever the last one failed with.
func TestRetryError_Open(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists stayopen; create table stayopen (a int)")
	p := newProxy(t, "insert into stayopen")
	breaker := dbcore.BreakerConfig{ConsecutiveFailures: 2}
	for _, stopped := range []error{nil, dbcore.ErrBreakerOpen} {
		opts := []dbcore.Option{dbcore.WithRetry(dbcore.RetryConfig{TransientBase: time.Microsecond})}
		if stopped != nil {
			opts = append(opts, dbcore.WithBreaker(breaker))
		}
		db := openDB(t, p.config(), opts...)
		p.set(cutReply)
		p.onCut(func() { p.refuse(true) })
		_, err := db.Op("x").Idempotent().Exec(t.Context(), "insert into stayopen values (1)")
		p.refuse(false)
		var tried *dbcore.RetryError
		if !errors.Is(err, dbcore.ErrConnectionLost) || !errors.As(err, &tried) || tried.Open == nil || !errors.Is(err, stopped) && stopped != nil {
			t.Errorf("stopped by %v: %v", stopped, err)
		}
		if stopped != nil && tried.Attempts != 2 || stopped == nil && tried.Attempts != 3 {
			t.Errorf("%d attempts", tried.Attempts)
		}
	}
}
