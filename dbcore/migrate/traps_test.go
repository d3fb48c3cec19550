package migrate_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/pgtest"
)

// testFailure: golang-migrate leaves such a file dirty, although all of it was rolled back.
func testFailure(t *testing.T, e *env) {
	m := e.open(files("1_a.up", "create table a (i int);", "2_b.up", "create table b (i int);\n\nselect 1/0;"))
	r, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	var st *migrate.StatementError
	if !errors.As(err, &st) || st.Version != 2 || st.Statement != 2 || st.Line != 3 || dbcore.SQLState(err) != "22012" {
		t.Fatalf("error %v", err)
	}
	contains(t, err.Error(), "rolled back, nothing of the file remains")
	if r.Version != 1 || len(r.Done) != 1 || e.version() != "1 false" || e.exists("b") {
		t.Errorf("result %+v, version %s, b exists: %t", r, e.version(), e.exists("b"))
	}
	if got := e.one("select count(*) from schema_migrations_history where version = 2"); got != "0" {
		t.Errorf("the history has %s lines of it", got)
	}
	e.apply(files("1_a.up", "create table a (i int);", "2_b.up", "create table b (i int);"))
	if e.version() != "2 false" || !e.exists("b") {
		t.Errorf("mended: version %s", e.version())
	}
}

// testThreeStarters: with golang-migrate, those that wait in pg_advisory_lock hold a snapshot for which the concurrent
// index build of the first one waits: a deadlock, and an INVALID index.
func testThreeStarters(t *testing.T, e *env) {
	src := files("1_a.up", "create table a (i int); insert into a select generate_series(1, 20000);", "2_idx.up", "create index concurrently a_i on a (i);",
		"3_idx.up", "create unique index concurrently a_u on a (i);")
	var wg sync.WaitGroup
	results := make([]*migrate.Result, 3)
	errs := make([]error, 3)
	for i := range results {
		wg.Go(func() { results[i], errs[i] = e.open(src).Apply(e.ctx(), migrate.ApplyOptions{}) })
	}
	wg.Wait()
	done := 0
	for i := range results {
		if errs[i] != nil {
			t.Fatalf("starter %d: %v", i, errs[i])
		}
		done += len(results[i].Done)
	}
	if done != 3 || e.version() != "3 false" {
		t.Errorf("%d files were run, version %s", done, e.version())
	}
	if got := e.one("select count(*) from pg_index where not indisvalid"); got != "0" {
		t.Errorf("%s INVALID indexes", got)
	}
	e.noLock()
}

// noLock makes sure that nobody holds or gets a migration lock any more.
func (e *env) noLock() {
	e.t.Helper()
	pgtest.Eventually(e.t, "the migration lock to be free", func() bool {
		return e.one("select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())") == "0"
	})
}

// holdLock is another migrator that is at work: it holds the lock in a transaction of its own until release.
func (e *env) holdLock() (release func()) {
	e.t.Helper()
	started, end := make(chan struct{}), make(chan struct{})
	blocker := e.connect()
	e.exec("create table held ()")
	if _, err := blocker.Exec(e.ctx(), "begin; lock table held"); err != nil {
		e.t.Fatal(err)
	}
	var once, stop sync.Once
	finished := make(chan struct{})
	m := e.open(files("1_held.up", "alter table held add column a int;"), func(o *migrate.Options) {
		o.LockTimeout = time.Minute
		o.Progress = func(ev migrate.Event) {
			if ev.Kind == "blocked" {
				once.Do(func() { close(started) })
			}
		}
	})
	go func() {
		defer close(finished)
		if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil {
			e.t.Errorf("the first migrator: %v", err)
		}
	}()
	release = func() {
		stop.Do(func() {
			if _, err := blocker.Exec(e.ctx(), "rollback"); err != nil {
				e.t.Error(err)
			}
			close(end)
			<-finished
		})
	}
	e.t.Cleanup(release)
	select {
	case <-started:
	case <-finished:
		e.t.Fatal("the first migrator was not blocked")
	}
	return release
}

// testLockWait: golang-migrate leaves a goroutine behind which takes the lock later and keeps it.
func testLockWait(t *testing.T, e *env) {
	release := e.holdLock()
	src := files("1_held.up", "alter table held add column a int;")
	quick := e.open(src, func(o *migrate.Options) { o.LockWait = 300 * time.Millisecond; o.Config.ApplicationName = "second" })
	_, err := quick.Apply(e.ctx(), migrate.ApplyOptions{})
	var locked *migrate.LockedError
	if !errors.As(err, &locked) || !errors.Is(err, migrate.ErrLocked) || len(locked.Holders) != 1 || !strings.Contains(locked.Holders[0].Query, "alter table held") {
		t.Fatalf("error %v", err)
	}
	st, err := quick.Status(e.ctx())
	if err != nil || len(st.Running) != 1 {
		t.Errorf("status while it runs: %+v, %v", st, err)
	}
	if r := e.check(quick, migrate.CheckOptions{}); !strings.HasPrefix(item(r, "lock"), "FAIL process") {
		t.Errorf("check while it runs: %+v", r.Items)
	}
	release()
	e.noLock()
	if got := e.one("select count(*) from pg_stat_activity where application_name like 'second%'"); got != "0" {
		t.Errorf("the one that gave up left %s sessions", got)
	}
}

// testCancelWaiting: the wait ends with its context, and leaves nobody.
func testCancelWaiting(t *testing.T, e *env) {
	release := e.holdLock()
	ctx, cancel := context.WithCancel(e.ctx())
	m := e.open(files("1_held.up", "alter table held add column a int;"), func(o *migrate.Options) {
		o.Progress = func(ev migrate.Event) {
			if ev.Kind == "waiting" && len(ev.Blockers) == 1 {
				cancel()
			}
		}
	})
	if _, err := m.Apply(ctx, migrate.ApplyOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	release()
	e.noLock()
	if e.version() != "1 false" {
		t.Errorf("version %s", e.version())
	}
}

// testCancelRunning: a cancelled statement is rolled back and its lock given up.
func testCancelRunning(t *testing.T, e *env) {
	ctx, cancel := context.WithCancel(e.ctx())
	m := e.open(files("1_a.up", "create table a (); select pg_sleep(600);"), func(o *migrate.Options) {
		o.Progress = func(ev migrate.Event) {
			if ev.Kind == "statement" && ev.Statement == 2 {
				cancel()
			}
		}
	})
	if _, err := m.Apply(ctx, migrate.ApplyOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	e.noLock()
	if e.exists("a") || e.version() != "" {
		t.Errorf("a exists: %t, version %q", e.exists("a"), e.version())
	}
}

// testBlocker: a statement that does not get its lock is named with the one in the way, and gets it once that has gone.
func testBlocker(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	other := e.connect()
	if _, err := other.Exec(e.ctx(), "begin; select * from a"); err != nil {
		t.Fatal(err)
	}
	src := files("1_a.up", "alter table a add column b int;")
	m := e.open(src, func(o *migrate.Options) { o.LockTimeout = 300 * time.Millisecond; o.LockAttempts = 2 })
	_, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	var blocked *migrate.BlockedError
	if !errors.As(err, &blocked) || !errors.Is(err, migrate.ErrLockTimeout) || blocked.Attempts != 2 || len(blocked.Blockers) != 1 {
		t.Fatalf("error %v", err)
	}
	b := blocked.Blockers[0]
	if b.PID != int(other.PID()) || b.Query != "begin; select * from a" || b.Lock != "AccessExclusiveLock on a" || b.State != "idle in transaction" {
		t.Errorf("blocker %+v", b)
	}
	if e.version() != "" {
		t.Errorf("version %s", e.version())
	}
	var retries int
	m = e.open(src, func(o *migrate.Options) {
		o.LockTimeout = 300 * time.Millisecond
		o.Progress = func(ev migrate.Event) {
			if ev.Kind == "retry" {
				if retries++; retries == 1 {
					_, _ = other.Exec(e.ctx(), "rollback")
				}
			}
		}
	})
	r, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	if err != nil || r.Done[0].Attempts != 2 || len(r.Done[0].Blockers) != 1 {
		t.Errorf("after it had gone: %+v, %v", r, err)
	}
}

// testPreparedBlocker: a prepared transaction has no process, and is named all the same.
func testPreparedBlocker(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	e.exec("begin; insert into a values (1); prepare transaction 'left behind " + e.db + "'")
	defer e.exec("rollback prepared 'left behind " + e.db + "'")
	m := e.open(files("1_a.up", "alter table a add column b int;"), func(o *migrate.Options) { o.LockTimeout = 300 * time.Millisecond; o.LockAttempts = 1 })
	_, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	if !errors.Is(err, migrate.ErrLockTimeout) || !strings.Contains(err.Error(), `prepared transaction "left behind `+e.db) {
		t.Errorf("error %v", err)
	}
	if r := e.check(m, migrate.CheckOptions{}); !strings.Contains(item(r, "blockers"), "left behind "+e.db) {
		t.Errorf("check: %+v", r.Items)
	}
}

// testOrder: golang-migrate passes over a version below the present one in silence.
func testOrder(t *testing.T, e *env) {
	e.apply(files("1_a.up", "create table a ();", "3_c.up", "create table c ();"), func(o *migrate.Options) { o.AllowGaps = true })
	late := files("1_a.up", "create table a ();", "2_b.up", "create table b ();", "3_c.up", "create table c ();")
	m := e.open(late)
	for name, err := range e.each(m) {
		if !errors.Is(err, migrate.ErrOutOfOrder) || !strings.Contains(err.Error(), "2_b.up.sql is not applied, version 3 is; give it a number above") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := e.apply(late, func(o *migrate.Options) { o.AllowOutOfOrder = true })
	if len(r.Done) != 1 || r.Version != 3 || e.version() != "3 false" || !e.exists("b") {
		t.Errorf("allowed: %+v, version %s", r, e.version())
	}
	if _, err := m.Plan(e.ctx(), migrate.PlanOptions{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	down, err := m.Down(e.ctx(), migrate.ApplyOptions{})
	if !errors.Is(err, migrate.ErrIrreversible) {
		t.Errorf("down without a file: %+v, %v", down, err)
	}
}

// each runs what must agree on a refusal.
func (e *env) each(m *migrate.Migrator) map[string]error {
	_, plan := m.Plan(e.ctx(), migrate.PlanOptions{})
	_, apply := m.Apply(e.ctx(), migrate.ApplyOptions{})
	_, down := m.Down(e.ctx(), migrate.ApplyOptions{})
	return map[string]error{"plan": plan, "apply": apply, "down": down}
}

func testEdited(t *testing.T, e *env) {
	e.apply(files("1_a.up", "create table a ();", "2_b.up", "create table b ();"))
	m := e.open(files("1_a.up", "create table a (i int);", "2_b.up", "create table b ();", "3_c.up", "create table c ();"))
	for name, err := range e.each(m) {
		if !errors.Is(err, migrate.ErrEdited) || !strings.Contains(err.Error(), "version 1: edited after it was applied: 1_a.up.sql has checksum") {
			t.Errorf("%s: %v", name, err)
		}
	}
	st, err := m.Status(e.ctx())
	if err != nil || len(st.Problems) != 1 || st.Problems[0].Code != "edited" {
		t.Errorf("status: %+v, %v", st, err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Executed || !rep.Items[0].NeedsDecision {
		t.Fatalf("repair without a decision: %+v, %v", rep, err)
	}
	if rep, err = m.Repair(e.ctx(), migrate.RepairOptions{Execute: true, AcceptEdited: []int64{1}}); err != nil || !rep.Items[0].Executed {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	if r, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || len(r.Done) != 1 || e.version() != "3 false" {
		t.Errorf("accepted: %+v, %v", r, err)
	}
	m = e.open(files("2_b.up", "create table b ();", "3_c.up", "create table c ();"))
	if _, err := m.Plan(e.ctx(), migrate.PlanOptions{}); !errors.Is(err, migrate.ErrMissing) {
		t.Errorf("a missing file: %v", err)
	}
}

// testBodies: golang-migrate's x-multi-statement cuts them at their semicolons.
func testBodies(t *testing.T, e *env) {
	r := e.apply(files("1_a.up", `-- größe; (';' in a comment)
create function f() returns int language plpgsql as $body$
begin
	-- migrate:irreversible
	perform 'a;b'; perform $$c;d$$;
	return 2;
end; $body$;
do $$ begin execute 'create table a (i int);'; end $$;
create function g() returns int language sql begin atomic select 1; select case when true then 3 end; end;
create table r (i int); create rule x as on insert to r do also (insert into a values (1); insert into a values (2));
insert into r values (1); select ';' as ";" /* ; */;
-- ö`))
	if n := len(r.Plan.Files[0].Statements); n != 7 {
		t.Errorf("%d statements:\n%s", n, r.Plan)
	}
	if e.one("select f() + g()") != "5" || e.one("select count(*) from a") != "2" {
		t.Error("not what the file says")
	}
}

// testSettings: what a file sets does not reach the next one, nor the history.
func testSettings(t *testing.T, e *env) {
	e.exec("create role app_" + e.db + "; grant create, usage on schema public to app_" + e.db)
	e.apply(files("1_a.up", "set search_path = pg_catalog; set role app_"+e.db+"; create table public.a ();", "2_b.up", "create table b ();",
		"3_c.up", "set role app_"+e.db+"; set search_path = pg_catalog; create index concurrently on public.a ((1));", "4_d.up", "create table d ();"))
	if got := e.one("select string_agg(relowner::regrole || ' ' || relname, ',' order by relname) from pg_class where relname in ('a', 'b', 'd') and relnamespace = 'public'::regnamespace"); got != "app_"+e.db+" a,postgres b,postgres d" {
		t.Error(got)
	}
}

func testDown(t *testing.T, e *env) {
	src := files("1_a.up", "create table a ();", "1_a.down", "-- migrate:irreversible: the rows came from elsewhere\nselect 1;",
		"2_b.up", "create table b ();", "2_b.down", "drop table b;", "3_c.up", "create view c as select 1;", "3_c.down", "drop view c;")
	e.apply(src)
	m := e.open(src)
	if r, err := m.Down(e.ctx(), migrate.ApplyOptions{}); err != nil || r.Version != 2 || e.version() != "2 false" {
		t.Fatalf("one down: %+v, %v", r, err)
	}
	if _, err := m.Down(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrDestructive) || !strings.Contains(err.Error(), "table b") || !e.exists("b") {
		t.Fatalf("destructive: %v", err)
	}
	if r, err := m.Down(e.ctx(), migrate.ApplyOptions{AllowDestructive: true}); err != nil || r.Version != 1 || e.exists("b") {
		t.Fatalf("allowed: %+v, %v", r, err)
	}
	if _, err := m.Down(e.ctx(), migrate.ApplyOptions{AllowDestructive: true}); !errors.Is(err, migrate.ErrIrreversible) || !strings.Contains(err.Error(), "the rows came from elsewhere") {
		t.Errorf("irreversible: %v", err)
	}
	st, err := m.Status(e.ctx())
	if err != nil || st.Migrations[0].Reversible || !st.Migrations[1].Reversible || st.Migrations[1].State != "pending" {
		t.Errorf("status %+v, %v", st, err)
	}
}

func testUnsafe(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	m := e.open(files("1_a.up", "create index a_i on a (i);"))
	plan, err := m.Plan(e.ctx(), migrate.PlanOptions{})
	if err != nil || len(plan.Unsafe()) != 1 {
		t.Fatalf("%v, %v", plan, err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrUnsafe) || !strings.Contains(err.Error(), "require-concurrent-index-creation: 1_a.up.sql:1") || e.exists("a_i") {
		t.Errorf("error %v", err)
	}
	other := e.open(files("1_a.up", "-- migrate:ignore require-concurrent-index-creation: the table is small\ncreate index a_i on a (i);"))
	if _, err := other.Apply(e.ctx(), migrate.ApplyOptions{PlanHash: plan.Hash}); !errors.Is(err, migrate.ErrPlanChanged) || e.exists("a_i") {
		t.Errorf("another plan: %v", err)
	}
	if _, err := other.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || !e.exists("a_i") {
		t.Errorf("accepted: %v", err)
	}
}
