package migrate_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
)

const helperDSN = "MIGRATE_TEST_DSN"

// TestHelperProcess is no test: it is the process that dies. It applies the files of the folder in its environment and
// prints what it is doing.
func TestHelperProcess(t *testing.T) {
	dsn := os.Getenv(helperDSN)
	if dsn == "" {
		t.Skip("only a helper of other tests")
	}
	cfg, err := dbcore.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	m, err := migrate.Open(t.Context(), migrate.Options{
		Source: os.DirFS(os.Getenv("MIGRATE_TEST_DIR")), Config: cfg,
		Progress: func(e migrate.Event) { fmt.Printf("\n%s %s\n", e.Kind, e.File) },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Apply(t.Context(), migrate.ApplyOptions{})
	t.Log(err)
}

// killAt starts a helper, waits until it prints a line, and kills it there (SIGKILL).
func (e *env) killAt(source map[string]string, line string) {
	e.t.Helper()
	dir := e.t.TempDir()
	for name, text := range source {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$", "-test.v")
	cmd.Env = append(os.Environ(), helperDSN+"="+e.s.DSN(e.db), "MIGRATE_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	var seen []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		seen = append(seen, lines.Text())
		if lines.Text() == line {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !slices.Contains(seen, line) {
		e.t.Fatalf("the helper ended before it was killed: %v\n%s", err, strings.Join(seen, "\n"))
	}
}

// endSessions ends what the dead helper left on the server. A statement goes on there until it looks at its client.
func (e *env) endSessions() {
	e.t.Helper()
	e.exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'migrate%'")
	e.noLock()
}

// testKilledIndex: the process dies while CREATE INDEX CONCURRENTLY waits for an old transaction.
func testKilledIndex(t *testing.T, e *env) {
	e.exec("create table a (i int); insert into a values (1)")
	old := e.connect()
	if _, err := old.Exec(e.ctx(), "begin; insert into a values (2)"); err != nil {
		t.Fatal(err)
	}
	text := "create index concurrently a_1 on a (i);\nset work_mem = '8MB';\ncreate index concurrently a_2 on a (i);\n-- migrate:ignore-file require-index-name: to see whether repair finds it"
	mixed := map[string]string{"1_idx.up.sql": text}
	src := files("1_idx.up", text)
	e.killAt(mixed, "blocked 1_idx.up.sql")
	m := e.open(src)
	st, err := m.Status(e.ctx())
	if err != nil || st.Open == nil || st.Open.Started != 1 || st.Open.State != "running" || !st.Dirty || len(st.Running) != 1 {
		t.Fatalf("the server is still at it: %+v, %v", st, err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{})
	if err != nil || len(rep.Items) == 0 || rep.Items[0].Outcome != "running" || rep.Items[0].SQL != nil {
		t.Errorf("repair while the server is at it: %+v, %v", rep, err)
	}
	e.endSessions()
	if _, err := old.Exec(e.ctx(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if st, err = m.Status(e.ctx()); err != nil || len(st.Running) > 0 || st.Open.Next != "run repair: it asks the catalogs what became of the statement" {
		t.Fatalf("status: %+v, %v", st.Open, err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrDirty) || !strings.Contains(err.Error(), "statement 1 was started and nobody knows how it ended") {
		t.Errorf("apply before repair: %v", err)
	}
	if rep, err = m.Repair(e.ctx(), migrate.RepairOptions{}); err != nil || len(rep.Items) != 1 || rep.Items[0].Outcome != "leftover" ||
		!slices.Equal(rep.Items[0].SQL, []string{"drop index concurrently if exists public.a_1"}) || rep.Items[0].Executed || !e.exists("a_1") {
		t.Fatalf("repair proposes: %+v, %v", rep, err)
	}
	if rep, err = m.Repair(e.ctx(), migrate.RepairOptions{Execute: true}); err != nil || !rep.Items[0].Executed || e.exists("a_1") || e.version() != "" {
		t.Fatalf("repair: %+v, %v, version %q", rep, err, e.version())
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || e.version() != "1 false" {
		t.Errorf("apply after repair: %v, version %s", err, e.version())
	}
	if got := e.one("select count(*) from pg_index where indrelid = 'a'::regclass and indisvalid"); got != "2" {
		t.Errorf("%s valid indexes", got)
	}
}

// testKilledAndFinished: the process dies, and the server finishes its statement all the same.
func testKilledAndFinished(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	old := e.connect()
	if _, err := old.Exec(e.ctx(), "begin; insert into a values (2)"); err != nil {
		t.Fatal(err)
	}
	text := "create index concurrently a_1 on a (i);"
	e.killAt(map[string]string{"1_i.up.sql": text}, "blocked 1_i.up.sql")
	if _, err := old.Exec(e.ctx(), "commit"); err != nil {
		t.Fatal(err)
	}
	e.noLock()
	m := e.open(files("1_i.up", text))
	if st, err := m.Status(e.ctx()); err != nil || st.Open == nil || st.Open.Started != 1 || !st.Dirty {
		t.Fatalf("status %+v, %v", st, err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Outcome != "done" || !rep.Items[0].Executed {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	if r, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || r.Plan.Files[0].Resume != 2 || e.version() != "1 false" {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if st, err := m.Status(e.ctx()); err != nil || st.Open != nil || st.Dirty || len(st.Problems) > 0 {
		t.Errorf("status afterwards %+v, %v", st, err)
	}
}

// testKilledEdited: the file is not the one any more that was being run, so nothing can be said of its statements.
func testKilledEdited(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	src := files("1_idx.up", "create index concurrently a_1 on a (i);\ncreate index concurrently a_2 on a (i);")
	m := e.open(src)
	// What a death in the second statement leaves, of a file whose first one was another.
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	e.exec("update schema_migrations_history set state = 'running', statements_done = 1, statement_started = 2, finished_at = null, done_checksum = ''")
	e.exec("update schema_migrations set dirty = true")
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Outcome != "unknown" || !rep.Items[0].NeedsDecision {
		t.Fatalf("the first statement is not the one that was run: %+v, %v", rep, err)
	}
}

// testKilledTransaction: whatever a transactional file did is gone with its process.
func testKilledTransaction(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	other := e.connect()
	if _, err := other.Exec(e.ctx(), "begin; select * from a"); err != nil {
		t.Fatal(err)
	}
	text := "create table b (); set local lock_timeout = '1min'; alter table a add column b int;"
	e.killAt(map[string]string{"1_a.up.sql": text}, "blocked 1_a.up.sql")
	e.endSessions()
	if _, err := other.Exec(e.ctx(), "rollback"); err != nil {
		t.Fatal(err)
	}
	m := e.open(files("1_a.up", text))
	st, err := m.Status(e.ctx())
	if err != nil || st.Open != nil || st.Dirty || len(st.Problems) > 0 || st.Migrations[0].State != "pending" || e.exists("b") {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil {
		t.Error(err)
	}
}

// testFailedIndex: a unique index fails on its data. PostgreSQL leaves an INVALID one, which is taken away at once.
func testFailedIndex(t *testing.T, e *env) {
	e.exec("create table a (i int); insert into a values (1), (1)")
	src := files("1_u.up", "create unique index concurrently a_u on a (i);")
	m := e.open(src)
	_, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	if dbcore.SQLState(err) != "23505" || !strings.Contains(err.Error(), "nothing of the file remains") || e.exists("a_u") || e.version() != "" {
		t.Fatalf("error %v, index %t, version %q", err, e.exists("a_u"), e.version())
	}
	two := files("1_u.up", "create index concurrently a_i on a (i);\ncreate unique index concurrently a_u on a (i);")
	m = e.open(two)
	if _, err = m.Apply(e.ctx(), migrate.ApplyOptions{}); dbcore.SQLState(err) != "23505" || !strings.Contains(err.Error(), "1 of 2 statements are done and stay; the next apply goes on at this one") {
		t.Fatalf("error %v", err)
	}
	st, err := m.Status(e.ctx())
	if err != nil || st.Open == nil || st.Open.Done != 1 || st.Open.State != "failed" || e.version() != "1 true" || st.Migrations[0].State != "stopped" {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, err := e.open(files("1_u.up", "create index concurrently a_other on a (i);\ncreate unique index concurrently a_u on a (i);")).Plan(e.ctx(), migrate.PlanOptions{}); !errors.Is(err, migrate.ErrEdited) {
		t.Errorf("what was done was edited: %v", err)
	}
	mended := e.open(files("1_u.up", "create index concurrently a_i on a (i);\ncreate index concurrently a_u on a (i);"))
	plan, err := mended.Plan(e.ctx(), migrate.PlanOptions{})
	if err != nil || plan.Files[0].Resume != 2 {
		t.Fatalf("%v, %v", plan, err)
	}
	if _, err := mended.Apply(e.ctx(), migrate.ApplyOptions{PlanHash: plan.Hash}); err != nil || e.version() != "1 false" || !e.exists("a_u") {
		t.Errorf("goes on: %v, version %s", err, e.version())
	}
}

// testInvalidIndex: CREATE INDEX IF NOT EXISTS is content with an INVALID one; this runner is not.
func testInvalidIndex(t *testing.T, e *env) {
	e.exec("create table a (i int); insert into a values (1), (1)")
	if _, err := e.conn.Exec(e.ctx(), "create unique index concurrently a_i on a (i)"); dbcore.SQLState(err) != "23505" {
		t.Fatal(err)
	}
	m := e.open(files("1_i.up", "create index concurrently if not exists a_i on a (i);"))
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrInvalidIndex) || !strings.Contains(err.Error(), "public.a_i") {
		t.Fatalf("error %v", err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Kind != "index" || !rep.Items[0].Executed || e.exists("a_i") {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || e.one("select indisvalid from pg_index where indexrelid = 'a_i'::regclass") != "true" {
		t.Error(err)
	}
}

// testUndecidable: what the catalogs cannot tell waits for a person.
func testUndecidable(t *testing.T, e *env) {
	e.exec("create table held (); create procedure p() language plpgsql as $$ begin create table if not exists a (); commit; perform from held; end $$")
	other := e.connect()
	if _, err := other.Exec(e.ctx(), "begin; lock table held"); err != nil {
		t.Fatal(err)
	}
	text := "-- migrate:no-transaction\ncall p();\ncreate table b ();"
	e.killAt(map[string]string{"1_p.up.sql": text}, "blocked 1_p.up.sql")
	if !e.exists("a") {
		t.Fatal("the procedure did not commit")
	}
	e.endSessions()
	m := e.open(files("1_p.up", text))
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Outcome != "unknown" || !rep.Items[0].NeedsDecision || rep.Items[0].Executed {
		t.Fatalf("repair without a decision: %+v, %v", rep, err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrDirty) {
		t.Errorf("apply: %v", err)
	}
	if rep, err = m.Repair(e.ctx(), migrate.RepairOptions{Execute: true, Resolve: migrate.ResolveDone}); err != nil || !rep.Items[0].Executed {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	r, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	if err != nil || r.Plan.Files[0].Resume != 2 || !e.exists("b") || e.version() != "1 false" {
		t.Errorf("goes on: %+v, %v", r, err)
	}
}

// testConcurrentWait: a concurrent build waits for old transactions longer than others wait for locks, and not for ever.
func testConcurrentWait(t *testing.T, e *env) {
	e.exec("create table a (i int)")
	old := e.connect()
	if _, err := old.Exec(e.ctx(), "begin; insert into a values (1)"); err != nil {
		t.Fatal(err)
	}
	m := e.open(files("1_i.up", "create index concurrently a_i on a (i);"), func(o *migrate.Options) {
		o.ConcurrentLockTimeout, o.LockAttempts = 500*time.Millisecond, 1
	})
	// What it left cannot be dropped either while the old transaction is there.
	_, err := m.Apply(e.ctx(), migrate.ApplyOptions{})
	if !errors.Is(err, migrate.ErrLockTimeout) || e.version() != "1 true" {
		t.Errorf("error %v, version %q", err, e.version())
	}
	contains(t, err.Error(), "begin; insert into a values (1)", "run repair")
	if _, err := old.Exec(e.ctx(), "rollback"); err != nil {
		t.Fatal(err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || !rep.Items[0].Executed || e.exists("a_i") || e.version() != "" {
		t.Errorf("repair: %+v, %v, version %q", rep, err, e.version())
	}
}
