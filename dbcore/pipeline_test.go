package dbcore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// TestPipeline_Breaker: a dead server opens the breaker, what the server answers and what callers give up does not, and
// the first probe that comes through closes it.
func TestPipeline_Breaker(t *testing.T) {
	p := newProxy(t, "select 'stall'")
	once := dbcore.RetryConfig{MaxAttempts: 1}
	db := openDB(t, p.config(), dbcore.WithRetry(once), dbcore.WithBreaker(dbcore.BreakerConfig{OpenFor: 50 * time.Millisecond, HalfOpenRequests: 1}))
	op := db.Op("work")
	for range 20 {
		if _, err := op.Exec(t.Context(), "select 1/0"); dbcore.SQLState(err) != "22012" {
			t.Fatal(err)
		}
		p.set(holdRequest)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := op.Exec(ctx, "select 'stall'"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
		err := op.RunTx(t.Context(), dbcore.TxOptions{}, func(context.Context, *dbcore.Tx) error { return dbcore.ErrConnectionLost })
		if !errors.Is(err, dbcore.ErrConnectionLost) { // of another database, perhaps
			t.Fatal(err)
		}
	}
	if s := op.Breaker().State(); s != dbcore.BreakerClosed {
		t.Fatalf("%v after errors that say nothing against the server", s)
	}
	p.refuse(true)
	p.closeAll(true)
	eventually(t, "it opens", func() bool {
		_, err := op.Exec(t.Context(), "select 1")
		return errors.Is(err, dbcore.ErrBreakerOpen)
	})
	var open *dbcore.BreakerOpenError
	if err := op.RunTx(t.Context(), dbcore.TxOptions{}, insert("none", 1)); !errors.As(err, &open) || open.Until.IsZero() {
		t.Errorf("a transaction: %v", err)
	}
	if _, err := dbcore.One[int](t.Context(), op, "select 1"); !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Errorf("a read: %v", err)
	}
	if s := db.Op("other").Breaker().State(); s != dbcore.BreakerClosed {
		t.Errorf("another operation's breaker is %v", s)
	}
	p.refuse(false)
	eventually(t, "it closes by itself", func() bool {
		_, err := op.Exec(t.Context(), "select 1")
		return err == nil && op.Breaker().State() == dbcore.BreakerClosed
	})
}

// TestPipeline_WaitForBreaker: with time at hand, a repetition waits until the breaker lets it through.
func TestPipeline_WaitForBreaker(t *testing.T) {
	p := newProxy(t, "select 'broken'")
	db := openDB(t, p.config(), dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 5, WaitForBreaker: true, TransientBase: time.Microsecond}),
		dbcore.WithBreaker(dbcore.BreakerConfig{ConsecutiveFailures: 1, HalfOpenRequests: 1, OpenFor: 100 * time.Millisecond}))
	p.set(cutRequest)
	began := time.Now()
	if _, err := db.Op("x").Idempotent().Exec(t.Context(), "select 'broken'"); err != nil || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// recorder is a Metrics that keeps what it is told.
type recorder struct {
	dbcore.NoMetrics
	mu     sync.Mutex
	counts map[string]int
}

func (r *recorder) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]int{}
	}
	r.counts[key]++
}

func (r *recorder) get(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[key]
}

func (r *recorder) Request(op, outcome string, _ time.Duration) { r.add(op + " " + outcome) }
func (r *recorder) Retry(op string, class dbcore.Class, _ time.Duration) {
	r.add(op + " retry " + class.String())
}

func (r *recorder) Breaker(op string, _, to dbcore.BreakerState) { r.add(op + " " + to.String()) }
func (r *recorder) Commit(op, outcome string)                    { r.add(op + " " + outcome) }

func TestPipeline_Metrics(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists counted; create table counted (a int)")
	p := newProxy(t, "commit\x00")
	var m recorder
	db := openDB(t, p.config(), dbcore.WithMetrics(&m), dbcore.WithBreaker(dbcore.BreakerConfig{ConsecutiveFailures: 100}))
	mustExec(t, db.Op("a"), "select 1")
	if _, err := db.Op("b").Exec(t.Context(), "select 1/0"); err == nil {
		t.Error("no error")
	}
	_ = db.Op("c").Breaker().Force(dbcore.ModeForceOpen)
	if _, err := db.Op("c").Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Error(err)
	}
	p.set(cutReply)
	if err := db.Op("d").RunTx(t.Context(), dbcore.TxOptions{}, insert("counted", 1)); !errors.Is(err, dbcore.ErrCommitAmbiguous) {
		t.Error(err)
	}
	p.set(cutRequest)
	if err := db.Op("e").RunTx(t.Context(), dbcore.TxOptions{Verify: dbcore.VerifyXID}, insert("counted", 1)); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"a ok", "b error", "c rejected", "d ambiguous", "e ok", "e retry transient", "e verified rolled back"} {
		if m.get(key) != 1 {
			t.Errorf("%s: %d, want 1", key, m.get(key))
		}
	}
	eventually(t, "the change of state is counted", func() bool { return m.get("c open") == 1 })
}

// TestClassifier: one's own may say more, but cannot have an ambiguous write repeated.
func TestClassifier(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists mine; create table mine (a int)")
	p := newProxy(t, "insert into mine")
	always := func(error, dbcore.Phase) dbcore.Verdict {
		return dbcore.Verdict{Action: dbcore.Retry, Class: dbcore.ClassSerialization}
	}
	db := openDB(t, p.config(), dbcore.WithClassifier(always))
	p.set(cutReply)
	if _, err := db.Exec(t.Context(), "insert into mine values (1)"); !errors.Is(err, dbcore.ErrConnectionLost) {
		t.Error(err)
	}
	if n := one[int](t, direct, "select count(*) from mine"); n != 1 {
		t.Errorf("%d rows", n)
	}
	var tried *dbcore.RetryError
	if _, err := db.Exec(t.Context(), "select 1/0"); !errors.As(err, &tried) || tried.Attempts != 3 {
		t.Errorf("what it calls repeatable: %v", err)
	}
}
