package migrate_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// serverTests run on a database of their own each, on the oldest and a newer server.
var serverTests = []struct {
	name string
	run  func(t *testing.T, e *env)
}{
	{"apply, status and down", testRoundTrip},
	{"check", testCheck},
	{"check privileges", testPrivileges},
	{"rehearse", testRehearse},
	{"rehearse a wrong way down", testRehearseDown},
	{"a failure is rolled back and not dirty", testFailure},
	{"three starters with a concurrent index", testThreeStarters},
	{"the lock's wait leaves no later owner", testLockWait},
	{"cancelled while it waits", testCancelWaiting},
	{"cancelled while it runs", testCancelRunning},
	{"a blocker is named", testBlocker},
	{"a prepared transaction is named", testPreparedBlocker},
	{"a lower version is refused", testOrder},
	{"an edited file is refused", testEdited},
	{"bodies stay whole", testBodies},
	{"settings end with their file", testSettings},
	{"down", testDown},
	{"unsafe is refused", testUnsafe},
	{"golang-migrate there and back", testGolangMigrate},
	{"golang-migrate's lock", testGolangMigrateLock},
	{"golang-migrate's dirty index", testGolangMigrateDirty},
	{"a pooler is refused", testPooler},
	{"killed in a concurrent index", testKilledIndex},
	{"killed while the server finishes", testKilledAndFinished},
	{"killed, and the file edited", testKilledEdited},
	{"killed in a transaction", testKilledTransaction},
	{"a failed concurrent index", testFailedIndex},
	{"an INVALID index in the way", testInvalidIndex},
	{"what the catalogs cannot tell", testUndecidable},
	{"a concurrent index does not wait for ever", testConcurrentWait},
}

func TestServer(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		if major != 15 && major != 17 && pgtest.Scale(t) < 2 {
			t.Skip("LIFEBOAT_TEST_SCALE=1 tests 15 and 17")
		}
		s := pgtest.New(t, pgtest.Options{Major: major, Settings: map[string]string{"max_prepared_transactions": "5"}})
		for _, c := range serverTests {
			t.Run(c.name, func(t *testing.T) { c.run(t, newEnv(t, s, major)) })
		}
	})
}

// env is a database for one test.
type env struct {
	t     *testing.T
	s     *pgtest.Server
	major int
	db    string
	cfg   dbcore.Config
	conn  *dbcore.Conn // to look at what happened
}

var databases atomic.Int64

func newEnv(t *testing.T, s *pgtest.Server, major int) *env {
	t.Helper()
	e := &env{t: t, s: s, major: major, db: fmt.Sprintf("m%d", databases.Add(1))}
	s.Exec(t, "create database "+e.db)
	cfg, err := dbcore.ParseDSN(s.DSN(e.db))
	if err != nil {
		t.Fatal(err)
	}
	e.cfg = cfg
	e.conn = e.connect()
	return e
}

func (e *env) connect() *dbcore.Conn {
	e.t.Helper()
	conn, err := dbcore.Connect(e.ctx(), e.cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	return conn
}

// ctx bounds everything of a test, so that one that waits for ever fails by itself.
func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	e.t.Cleanup(cancel)
	return ctx
}

func (e *env) exec(sql string) {
	e.t.Helper()
	if _, err := e.conn.Exec(e.ctx(), sql); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
}

// one returns a query's only value as text.
func (e *env) one(sql string, args ...any) string {
	e.t.Helper()
	v, err := dbcore.One[string](e.ctx(), e.conn, "select ("+sql+")::text", args...)
	if err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// exists says whether there is a relation.
func (e *env) exists(name string) bool { return e.one("to_regclass('"+name+"') is not null") == "true" }

// version is golang-migrate's table as "version dirty", "" for none.
func (e *env) version() string {
	return e.one("select coalesce(string_agg(version || ' ' || dirty, ','), '') from schema_migrations")
}

// files makes a source of names without ".sql": "1_a.up", contents.
func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]+".sql"] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

func (e *env) open(source fs.FS, change ...func(*migrate.Options)) *migrate.Migrator {
	e.t.Helper()
	opts := migrate.Options{Source: source, Config: e.cfg, AppVersion: "test"}
	for _, f := range change {
		f(&opts)
	}
	m, err := migrate.Open(e.ctx(), opts)
	if err != nil {
		e.t.Fatal(err)
	}
	return m
}

func (e *env) apply(source fs.FS, change ...func(*migrate.Options)) *migrate.Result {
	e.t.Helper()
	r, err := e.open(source, change...).Apply(e.ctx(), migrate.ApplyOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

func testRoundTrip(t *testing.T, e *env) {
	src := files("1_a.up", "create table a (i int); insert into a values (1);", "1_a.down", "drop table a;",
		"2_idx.up", "create index concurrently a_i on a (i);", "2_idx.down", "drop index concurrently a_i;",
		"3_f.up", "create function f() returns int language plpgsql as $$ begin perform 1; return 2; end; $$;\n-- the end\n", "3_f.down", "drop function f();")
	m := e.open(src)
	plan, err := m.Plan(e.ctx(), migrate.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Files) != 3 || !plan.Files[0].Transactional || plan.Files[1].Transactional || len(plan.Files[2].Statements) != 1 {
		t.Fatalf("plan:\n%s", plan)
	}
	if e.exists("schema_migrations") {
		t.Error("Plan made the table of versions")
	}
	r, err := m.Apply(e.ctx(), migrate.ApplyOptions{PlanHash: plan.Hash})
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != 3 || e.version() != "3 false" || !e.exists("a_i") || e.one("f()") != "2" {
		t.Errorf("after apply: %+v, version %s", r, e.version())
	}
	st, err := m.Status(e.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != 3 || len(st.Problems) > 0 || len(st.History) != 3 || st.Migrations[1].State != "applied" || st.Open != nil {
		t.Errorf("status %+v", st)
	}
	if r, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || len(r.Done) > 0 {
		t.Errorf("applied again: %+v, %v", r, err)
	}
	zero := int64(-1)
	if _, err := m.Down(e.ctx(), migrate.ApplyOptions{To: &zero}); err == nil || e.version() != "3 false" {
		t.Errorf("a destructive down was not refused: %v", err)
	}
	if r, err = m.Down(e.ctx(), migrate.ApplyOptions{To: &zero, AllowDestructive: true}); err != nil {
		t.Fatal(err)
	}
	if r.Version != -1 || e.version() != "" || e.exists("a") {
		t.Errorf("after down: %+v, version %q", r, e.version())
	}
	e.apply(src)
}
