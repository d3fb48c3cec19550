package dbcore_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// TestBreakerOnAServerThatDies has one DB enforce and one monitor, on a real server that goes away and comes back.
func TestBreakerOnAServerThatDies(t *testing.T) {
	server := pgtest.New(t, pgtest.Options{})
	server.Exec(t, "create table orders (id int primary key)")
	server.Exec(t, "insert into orders values (1)")
	cfg, err := dbcore.ParseDSN(server.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	withMode := func(mode dbcore.BreakerMode) dbcore.Op {
		return openDB(t, cfg,
			dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 1}),
			dbcore.WithBreaker(dbcore.BreakerConfig{Mode: mode, OpenFor: 200 * time.Millisecond})).Op("orders")
	}
	enforce, monitor := withMode(dbcore.ModeEnforce), withMode(dbcore.ModeMonitor)

	// Neither errors of SQL nor callers who give up are a reason to open.
	for range 50 {
		if _, err := enforce.Exec(t.Context(), "insert into orders values (1)"); dbcore.SQLState(err) != "23505" {
			t.Fatalf("got %v, want a unique violation", err)
		}
	}
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := enforce.Exec(ctx, "select pg_sleep(60)"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the caller's deadline", err)
		}
		cancel()
	}
	wantBreaker(t, enforce.Breaker(), dbcore.BreakerClosed)
	if c := enforce.Breaker().Counts(); c.Failures != 0 || c.Alive != 50 {
		t.Fatalf("counts %+v, want 50 alive and no failure", c)
	}

	server.Kill(t)
	died := time.Now()
	fails := func(op dbcore.Op) error {
		_, err := op.Exec(t.Context(), "select 1")
		if err == nil {
			t.Fatal("a dead server answered")
		}
		return err
	}
	attempts := 0
	for enforce.Breaker().State() == dbcore.BreakerClosed {
		if err := fails(enforce); errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Fatalf("rejected while closed: %v", err)
		}
		attempts++
	}
	t.Logf("open %s after the server had died", time.Since(died))
	if attempts != 5 {
		t.Errorf("open after %d failures, want 5", attempts)
	}
	eventually(t, "requests are rejected", func() bool { return errors.Is(fails(enforce), dbcore.ErrBreakerOpen) })
	for range 20 {
		if err := fails(monitor); errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Fatalf("rejected in monitor mode: %v", err)
		}
	}
	if c := monitor.Breaker().Counts(); c.WouldReject == 0 || c.Rejected != 0 {
		t.Errorf("monitor: counts %+v, want some that would be rejected and none that was", c)
	}
	eventually(t, "a probe has found the server dead", func() bool {
		return !errors.Is(fails(enforce), dbcore.ErrBreakerOpen)
	})

	server.Start(t)
	back := time.Now()
	for name, op := range map[string]dbcore.Op{"enforce": enforce, "monitor": monitor} {
		eventually(t, name+": closed again, by itself", func() bool {
			_, err := op.Exec(t.Context(), "select 1")
			return err == nil && op.Breaker().State() == dbcore.BreakerClosed
		})
		t.Logf("%s: closed %s after the server was back", name, time.Since(back))
	}
}

// TestBreakerSeesAServerThatHangs: its callers give up, which says nothing about errors, but much about its speed.
func TestBreakerSeesAServerThatHangs(t *testing.T) {
	p := newProxy(t, "select 4712")
	db := openDB(t, p.config(), dbcore.WithBreaker(dbcore.BreakerConfig{
		SlowCallRate: 0.5, SlowCall: 20 * time.Millisecond, MinimumCalls: 5, OpenFor: time.Hour,
	}))
	p.set(holdReply)
	p.stay()
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Millisecond)
		defer cancel()
		_, err := db.Op("ask").Exec(ctx, "select 4712")
		return err
	}
	for range 5 {
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the caller's deadline", err)
		}
	}
	if err := ask(); !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Errorf("got %v, want a rejection", err)
	}
	if c := db.Op("ask").Breaker().Counts(); c.Opened != 1 {
		t.Errorf("counts %+v", c)
	}
}

func TestForceBreakersReachesAllOperations(t *testing.T) {
	db := openDB(t, socketConfig())
	read := db.Op("read")
	if err := db.ForceBreakers(dbcore.ModeForceOpen); err != nil {
		t.Fatal(err)
	}
	for name, op := range map[string]interface {
		Exec(ctx context.Context, sql string, args ...any) (int64, error)
	}{"the DB's own": db, "named before": read, "named later": db.Op("write")} {
		if _, err := op.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Errorf("%s: got %v, want a rejection", name, err)
		}
	}
	if err := db.ForceBreakers(dbcore.ModeEnforce); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "select 1")
	var names []string
	for _, b := range db.Breakers() {
		names = append(names, b.Name())
	}
	if want := []string{"", "read", "write"}; !slices.Equal(names, want) {
		t.Errorf("breakers %q, want %q", names, want)
	}
	if err := db.ForceBreakers(17); !errors.Is(err, dbcore.ErrInvalidConfig) {
		t.Errorf("mode 17: %v", err)
	}
}
