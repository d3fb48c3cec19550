package migrate_test

import (
	"errors"
	"strings"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
)

// item returns the items of a name as one text: "PASS detail".
func item(r *migrate.CheckReport, name string) string {
	var lines []string
	for _, i := range r.Items {
		if i.Name == name {
			lines = append(lines, string(i.Verdict)+" "+i.Detail)
		}
	}
	return strings.Join(lines, "\n")
}

func (e *env) check(m *migrate.Migrator, opts migrate.CheckOptions) *migrate.CheckReport {
	e.t.Helper()
	r, err := m.Check(e.ctx(), opts)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func testCheck(t *testing.T, e *env) {
	m := e.open(files("1_a.up", "create table a (i int primary key);"))
	if r := e.check(m, migrate.CheckOptions{}); r.Verdict != migrate.Pass {
		t.Fatalf("an empty database: %+v", r)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	one, two := int64(1), int64(2)
	if r := e.check(m, migrate.CheckOptions{AtVersion: &one}); r.Verdict != migrate.Pass {
		t.Errorf("at its version: %+v", r.Items)
	}
	if r := e.check(m, migrate.CheckOptions{AtVersion: &two}); r.Verdict != migrate.Fail || !strings.HasPrefix(item(r, "version"), "FAIL at 1") {
		t.Errorf("not at its version: %+v", r.Items)
	}

	m = e.open(files("1_a.up", "create table a (i int primary key);", "2_b.up", "alter table a add column b int;"))
	other := e.connect()
	if _, err := other.Exec(e.ctx(), "begin; select * from a"); err != nil {
		t.Fatal(err)
	}
	e.exec("create table hotfix (i int)")
	quick := e.open(files("1_a.up", "create table a (i int primary key);", "2_b.up", "alter table a add column b int;"), func(o *migrate.Options) { o.LockTimeout = 1 })
	r := e.check(quick, migrate.CheckOptions{PlanHash: "something else"})
	contains(t, item(r, "blockers"), "FAIL process ", "begin; select * from a")
	contains(t, item(r, "drift"), "FAIL ", "table public.hotfix is new", "column public.hotfix.i is new")
	contains(t, item(r, "plan"), "FAIL expected something")
	contains(t, item(r, "size"), "PASS touches a ")
	if _, err := other.Exec(e.ctx(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true, AcceptDrift: true}); err != nil || len(rep.Items) != 1 || !rep.Items[0].Executed {
		t.Fatalf("accept drift: %+v, %v", rep, err)
	}
	if r := e.check(m, migrate.CheckOptions{}); r.Verdict != migrate.Pass {
		t.Errorf("all mended: %+v", r.Items)
	}
	if got := e.one("select count(*) from pg_locks where mode like '%Exclusive%' and locktype = 'relation'"); got != "0" {
		t.Errorf("locks were left: %s", got)
	}
}

func testPrivileges(t *testing.T, e *env) {
	e.exec("create table a (i int); create role r_" + e.db + " login; grant create, usage on schema public to r_" + e.db)
	e.cfg.User = "r_" + e.db
	r := e.check(e.open(files("1_a.up", "alter table a add column b int;")), migrate.CheckOptions{})
	if r.Verdict != migrate.Fail || !strings.Contains(item(r, "privileges"), "FAIL a belongs to postgres") {
		t.Errorf("%+v", r.Items)
	}
}

// rehearsalFiles have something of each kind to measure.
var rehearsalFiles = files("1_a.up", "create table a (i int, t text); insert into a select g, 'x' from generate_series(1, 2000) g;", "1_a.down", "drop table a;",
	"2_rewrite.up", "alter table a alter column i type bigint;\ncreate table b ();", "2_rewrite.down", "drop table b; alter table a alter column i type int;",
	"3_idx.up", "create index concurrently a_i on a (i);", "3_idx.down", "drop index concurrently a_i;")

func testRehearse(t *testing.T, e *env) {
	e.exec("create database " + e.db + "_clone")
	cfg, err := dbcore.ParseDSN(e.s.DSN(e.db + "_clone"))
	if err != nil {
		t.Fatal(err)
	}
	m := e.open(rehearsalFiles)
	one := int64(1)
	for _, c := range []dbcore.Config{e.cfg, cfg} {
		o := e.open(rehearsalFiles, func(o *migrate.Options) { o.Config = c })
		if _, err := o.Apply(e.ctx(), migrate.ApplyOptions{To: &one}); err != nil {
			t.Fatal(err)
		}
	}
	plan, err := m.Plan(e.ctx(), migrate.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Rehearse(e.ctx(), migrate.RehearseOptions{Clone: e.cfg}); !errors.Is(err, dbcore.ErrInvalidConfig) {
		t.Fatalf("rehearsed on the database itself: %v", err)
	}
	r, err := m.Rehearse(e.ctx(), migrate.RehearseOptions{Clone: cfg, PlanHash: plan.Hash})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != migrate.Pass || r.Down != migrate.Pass || len(r.Statements) != 3 {
		t.Fatalf("%+v", r)
	}
	alter := r.Statements[0]
	if len(alter.Rewrites) != 1 || alter.Rewrites[0] != "public.a" || alter.WALBytes < 10_000 || alter.Took <= 0 {
		t.Errorf("the rewrite: %+v", alter)
	}
	if want := (migrate.TableLock{Relation: "public.a", Mode: "AccessExclusiveLock"}); len(alter.Locks) == 0 || alter.Locks[0] != want {
		t.Errorf("locks of the rewrite: %+v", alter.Locks)
	}
	if len(r.Statements[2].Rewrites) > 0 {
		t.Errorf("a new index is no rewrite: %+v", r.Statements[2])
	}
	contains(t, strings.Join(r.Changes, "\n"), "column public.a.i has changed", "index public.a_i is new", "table public.b is new")
	if e.exists("b") {
		t.Error("the rehearsal changed the database itself")
	}
}

// testRehearseDown: a way down that forgets something is a failed rehearsal.
func testRehearseDown(t *testing.T, e *env) {
	e.exec("create database " + e.db + "_clone")
	cfg, err := dbcore.ParseDSN(e.s.DSN(e.db + "_clone"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.open(files("1_a.up", "create table a (); create table b ();", "1_a.down", "drop table a;")).Rehearse(e.ctx(), migrate.RehearseOptions{Clone: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != migrate.Fail || r.Down != migrate.Fail || !strings.Contains(r.DownDetail, "table public.b is new") {
		t.Errorf("%+v", r)
	}
	cfg.DBName = e.db
	r, err = e.open(files("1_a.up", "select 1;\nselect 1/0;"), func(o *migrate.Options) { o.Config.DBName = e.db + "_clone"; o.Table = "other" }).
		Rehearse(e.ctx(), migrate.RehearseOptions{Clone: cfg})
	if err != nil || r.Verdict != migrate.Fail || !strings.Contains(r.Error, "statement 2, line 2 (select 1/0)") {
		t.Errorf("%+v, %v", r, err)
	}
}
