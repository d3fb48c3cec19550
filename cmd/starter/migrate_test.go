package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// migrations is a folder of migration files, and the cluster that they are for.
type migrations struct {
	*protected
	dir, work string
}

func newMigrations(t *testing.T, p *protected) *migrations {
	t.Helper()
	p.Exec(t, "create database shop")
	m := &migrations{p, t.TempDir(), filepath.Join(p.Dir, "work")}
	config := p.env["LIFEBOAT_CONFIG"]
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, append(text, []byte(fmt.Sprintf("worker: {work_dir: %q}\n", m.work))...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *migrations) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// migrate runs a verb on database shop.
func (m *migrations) migrate(t *testing.T, verb string, more ...string) outcome {
	t.Helper()
	return m.run(t, append([]string{"migrate", verb, "orders", "--source", m.dir, "--database", "shop", "--json"}, more...)...)
}

// ask gives one value of database shop.
func (m *migrations) ask(t *testing.T, sql string) string {
	t.Helper()
	v, err := dbcore.One[string](t.Context(), m.connect(t), "select ("+sql+")::text")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (m *migrations) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := m.connect(t).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (m *migrations) connect(t *testing.T) *dbcore.Conn {
	t.Helper()
	cfg, err := dbcore.ParseDSN(m.DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (m *migrations) table(t *testing.T, name string) bool {
	t.Helper()
	return m.ask(t, "select to_regclass('"+name+"') is not null") == "true"
}

func nextOf(res map[string]any) string { return fmt.Sprint(res["next"]) }

func TestMigrateHere(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		if major != 15 && major != 17 && pgtest.Scale(t) < 2 {
			t.Skip("LIFEBOAT_TEST_SCALE=1 tests 15 and 17")
		}
		m := newMigrations(t, protectIn(t, "", major))
		m.write(t, "1_users.up.sql", "create table users (id bigint primary key, name text not null);")
		m.write(t, "1_users.down.sql", "drop table users;")
		m.write(t, "2_names.up.sql", "create index concurrently users_name on users (name);")
		m.write(t, "2_names.down.sql", "drop index concurrently users_name;")
		t.Run("rehearse", m.testRehearse)
		t.Run("apply", m.testApply)
		t.Run("goes down as rehearsed", m.testGoesDown)
		t.Run("fails half-way, between files", m.testFailsBetweenFiles)
		t.Run("fails half-way, within a file", m.testFailsWithinFile)
		t.Run("interrupted", m.testInterrupted)
		t.Run("no way down, and edited", m.testRefused)
		t.Run("usage", m.testUsage)
	})
}

// clones are what rehearsals left in the work directory.
func (m *migrations) clones(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(m.work, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func (m *migrations) testRehearse(t *testing.T) {
	e := m.migrate(t, "rehearse", "--local").must(t, 5).errorObject(t)
	contains(t, "without a backup", fmt.Sprint(e), "backup")
	m.run(t, "backup", "orders", "--local").must(t, 0)
	m.write(t, "3_bad.up.sql", "select 1/0;")
	res := m.migrate(t, "rehearse", "--local").must(t, 3).object(t)
	if res["outcome"] != "refused" || !strings.Contains(fmt.Sprint(res["explanation"]), "division by zero") {
		t.Errorf("a plan that fails on the clone: %v", res)
	}
	if err := os.Remove(filepath.Join(m.dir, "3_bad.up.sql")); err != nil {
		t.Fatal(err)
	}
	res = m.migrate(t, "rehearse", "--local").must(t, 0).object(t)
	trial := res["rehearsal"].(map[string]any)
	files := trial["files"].([]any)
	if res["outcome"] != "rehearsed" || trial["reversed"] != true || len(files) != 2 || trial["backupId"] == "" {
		t.Errorf("rehearsal %v", res)
	}
	contains(t, "locks", fmt.Sprint(files[0].(map[string]any)["locks"]), "on public.users")
	if m.table(t, "users") || m.table(t, "schema_migrations") {
		t.Error("the rehearsal changed the database")
	}
	if left := m.clones(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// testGoesDown has a file that fails on the original only, after one that did not.
func (m *migrations) testGoesDown(t *testing.T) {
	m.write(t, "3_view.up.sql", "create view user_names as select name from users;")
	m.write(t, "3_view.down.sql", "drop view user_names;")
	m.write(t, "4_original.up.sql", "select 1 / (current_setting('archive_mode') = 'off')::int;")
	m.write(t, "4_original.down.sql", "select 1;")
	res := m.migrate(t, "apply", "--local").must(t, 1).object(t)
	state := res["state"].(map[string]any)
	if res["outcome"] != "reverted" || state["version"] != 2.0 || m.table(t, "user_names") || res["rehearsal"] == nil {
		t.Errorf("apply %v", res)
	}
	if left := m.clones(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, name := range []string{"3_view.up.sql", "3_view.down.sql", "4_original.up.sql", "4_original.down.sql"} {
		if err := os.Remove(filepath.Join(m.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *migrations) testApply(t *testing.T) {
	plan := m.migrate(t, "plan").must(t, 0).object(t)
	if n := len(plan["files"].([]any)); n != 2 || plan["from"] != -1.0 || plan["to"] != 2.0 {
		t.Errorf("plan %v", plan)
	}
	check := m.migrate(t, "check").must(t, 0).object(t)
	if check["verdict"] != "PASS" || len(check["items"].([]any)) == 0 {
		t.Errorf("check %v", check)
	}
	if m.table(t, "users") || m.table(t, "schema_migrations") {
		t.Error("plan or check changed the database")
	}
	m.write(t, "3_rewrite.up.sql", "alter table users alter column id type numeric;")
	for _, verb := range [][]string{{"plan"}, {"check"}, {"apply", "--local"}} {
		contains(t, "lint of "+verb[0], m.migrate(t, verb[0], verb[1:]...).must(t, 3).stdout, "changing-column-type")
	}
	if err := os.Remove(filepath.Join(m.dir, "3_rewrite.up.sql")); err != nil || m.table(t, "users") {
		t.Fatalf("%v; or the lint did not stop it", err)
	}
	hash := plan["hash"].(string)
	e := m.migrate(t, "apply", "--local", "--no-rehearsal", "--plan-hash", "0123").must(t, 5).errorObject(t)
	if e["code"] != "Refused" || m.table(t, "users") {
		t.Errorf("another plan's hash: %v", e)
	}
	res := m.migrate(t, "apply", "--local", "--plan-hash", hash, "--app-version", "v7").must(t, 0).object(t)
	if res["outcome"] != "applied" || res["verdict"] != "PASS" || len(res["files"].([]any)) != 2 || !m.table(t, "users_name") {
		t.Errorf("apply %v", res)
	}
	point := res["restorePoint"].(map[string]any)["name"].(string)
	if list := m.run(t, "verify", "orders", res["backupId"].(string), "--local", "--json").must(t, 0).object(t); list["verdict"] != "PASS" {
		t.Errorf("the backup before: %v", list)
	}
	m.run(t, "restore", "orders", "--to-name", point, "--target-dir", filepath.Join(m.Dir, "none"), "--plan").must(t, 0)
	status := m.migrate(t, "status").must(t, 0).object(t)
	if first := status["migrations"].([]any)[0].(map[string]any); status["version"] != 2.0 || first["state"] != "applied" || first["appVersion"] != "v7" {
		t.Errorf("status %v", status)
	}
	if again := m.migrate(t, "apply", "--local").must(t, 0).object(t); again["outcome"] != "nothing to do" {
		t.Errorf("again %v", again)
	}
	// What a drill makes is no drift, all else is.
	m.exec(t, "create schema lifeboat; create table lifeboat.canary (id text)")
	m.migrate(t, "check").must(t, 0)
	m.exec(t, "create table stray (id int)")
	contains(t, "check", m.migrate(t, "check").must(t, 3).stdout, "drift", "stray")
	m.exec(t, "drop table stray")
	bare := lifeboat(t, environment{}, "migrate", "status", "orders", "--source", m.dir, "--dsn", m.DSN("shop"), "--json").must(t, 0).object(t)
	if bare["version"] != 2.0 {
		t.Errorf("by --dsn, without a configuration: %v", bare)
	}
}

func (m *migrations) testFailsBetweenFiles(t *testing.T) {
	m.write(t, "3_orders.up.sql", "create table orders (id bigint primary key);")
	m.write(t, "3_orders.down.sql", "drop table orders;")
	m.write(t, "4_bad.up.sql", "create table bad (id bigint primary key);\nselect 1/0;")
	got := m.migrate(t, "apply", "--local", "--no-rehearsal").must(t, 1)
	res := got.object(t)
	state := res["state"].(map[string]any)
	if res["outcome"] != "failed, partly applied" || state["version"] != 3.0 || fmt.Sprint(state["applied"], state["pending"]) != "[3] [4]" {
		t.Errorf("apply %v", res)
	}
	if !m.table(t, "orders") || m.table(t, "bad") {
		t.Error("version 3 must be there as a whole, and nothing of version 4")
	}
	point := res["restorePoint"].(map[string]any)["name"].(string)
	contains(t, "next", nextOf(res), "migrate apply", "migrate down orders --source DIR --database shop --to 2",
		"lifeboat restore orders --to-name "+point+" --target-dir DIR")
	contains(t, "error", got.errorObject(t)["message"].(string), "4_bad.up.sql", "division by zero", "version 3")

	// The way down that is offered destroys a table, which needs a word.
	if e := m.migrate(t, "down", "--to", "2").must(t, 5).errorObject(t); e["code"] != "Refused" {
		t.Errorf("down %v", e)
	}
	if down := m.migrate(t, "down", "--to", "2", "--allow-destructive").must(t, 0).object(t); down["version"] != 2.0 || m.table(t, "orders") {
		t.Errorf("down %v", down)
	}
	// With the first file of the plan at fault nothing remains.
	m.write(t, "3_orders.up.sql", "create table orders (id bigint primary key);\nselect 1/0;")
	res = m.migrate(t, "apply", "--local", "--no-rehearsal", "--no-backup").must(t, 1).object(t)
	if res["outcome"] != "failed, nothing changed" || res["restorePoint"] != nil || fmt.Sprint(res["skipped"]) != "[rehearsal backup restore point]" || m.table(t, "orders") {
		t.Errorf("apply %v", res)
	}
	if strings.Contains(nextOf(res), "restore") {
		t.Errorf("a restore is offered without a restore point: %s", nextOf(res))
	}
}

func (m *migrations) testFailsWithinFile(t *testing.T) {
	m.write(t, "3_orders.up.sql", "create table orders (id bigint primary key);")
	m.write(t, "4_bad.up.sql", "create index concurrently users_pair on users (name, id);\ncreate unique index concurrently users_unique on users (name);")
	m.exec(t, "insert into users values (1, 'same'), (2, 'same')")
	res := m.migrate(t, "apply", "--local", "--no-rehearsal", "--no-backup").must(t, 1).object(t)
	state := res["state"].(map[string]any)
	if res["outcome"] != "failed, partly applied" || !strings.Contains(fmt.Sprint(state["halfWay"]), "1 of 2") {
		t.Errorf("apply %v", res)
	}
	open := m.migrate(t, "status").must(t, 0).object(t)["open"].(map[string]any)
	if open["version"] != 4.0 || open["done"] != 1.0 || open["next"] == "" {
		t.Errorf("open %v", open)
	}
	// The server said no, so it is known what is done: there is nothing to repair, and no INVALID index.
	if list := m.migrate(t, "repair").must(t, 0).object(t)["items"].([]any); len(list) != 0 {
		t.Errorf("to repair: %v", list)
	}
	// What a killed migrator leaves: a statement that was begun, of which nobody knows the end.
	m.exec(t, "update schema_migrations_history set state = 'running', statement_started = 2 where version = 4 and state = 'failed'")
	e := m.migrate(t, "plan").must(t, 5).errorObject(t)
	contains(t, "hint", e["hint"].(string), "migrate repair")
	if items := m.migrate(t, "repair").must(t, 3).object(t)["items"].([]any); len(items) == 0 {
		t.Error("nothing to repair")
	}
	m.migrate(t, "plan").must(t, 5)
	m.migrate(t, "repair", "--execute").must(t, 0)
	if n := m.ask(t, "select count(*) from pg_index where not indisvalid"); n != "0" {
		t.Errorf("%s INVALID indexes after repair", n)
	}
	m.exec(t, "delete from users where id = 2")
	if res := m.migrate(t, "apply", "--local", "--no-rehearsal", "--no-backup").must(t, 0).object(t); res["outcome"] != "applied" || !m.table(t, "users_unique") {
		t.Errorf("after the repair: %v", res)
	}
}

// testInterrupted stops the program, as by ctrl-C, within the second file.
func (m *migrations) testInterrupted(t *testing.T) {
	m.write(t, "5_quick.up.sql", "create table quick (id bigint primary key);")
	m.write(t, "6_slow.up.sql", "create table slow (id bigint primary key);\nselect pg_sleep(600);")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan outcome, 1)
	go func() {
		done <- lifeboatContext(ctx, m.env, "migrate", "apply", "orders", "--source", m.dir, "--database", "shop", "--json", "--local", "--no-rehearsal", "--no-backup")
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); m.ask(t, "select count(*) from pg_stat_activity where datname = 'shop' and wait_event = 'PgSleep'") == "0"; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the second file was not begun")
		}
	}
	cancel()
	got := <-done
	res := got.must(t, 130).object(t)
	state := res["state"].(map[string]any)
	if res["outcome"] != "failed, partly applied" || state["version"] != 5.0 || !m.table(t, "quick") || m.table(t, "slow") ||
		!strings.Contains(res["explanation"].(string), "interrupted") {
		t.Errorf("apply %v", res)
	}
	if err := os.Remove(filepath.Join(m.dir, "6_slow.up.sql")); err != nil {
		t.Fatal(err)
	}
}

func (m *migrations) testRefused(t *testing.T) {
	e := m.migrate(t, "down").must(t, 5).errorObject(t)
	contains(t, "error", fmt.Sprint(e["message"], e["hint"]), "version 5", "restore")
	m.write(t, "1_users.up.sql", "create table users (id bigint primary key, name text);")
	e = m.migrate(t, "plan").must(t, 5).errorObject(t)
	contains(t, "hint", e["hint"].(string), "--accept-edited")
	e = m.migrate(t, "apply", "--local").must(t, 5).errorObject(t)
	contains(t, "message", e["message"].(string), "1_users.up.sql")
	m.migrate(t, "repair", "--accept-edited", "1", "--execute").must(t, 0)
	m.migrate(t, "plan").must(t, 0)
}

func (m *migrations) testUsage(t *testing.T) {
	for _, args := range [][]string{
		{"migrate"},
		{"migrate", "plan", "orders"},
		{"migrate", "plan", "orders", "--source", filepath.Join(m.dir, "none")},
		{"migrate", "plan", "orders", "--source", filepath.Join(m.dir, "1_users.up.sql")},
		{"migrate", "plan", "orders", "--source", t.TempDir()},
		{"migrate", "plan", "strangers", "--source", m.dir},
		{"migrate", "plan", "orders", "--source", m.dir, "--dsn", "nonsense"},
		{"migrate", "plan", "orders", "--source", m.dir, "--database", "shop", "--to", "99"},
		{"migrate", "repair", "orders", "--source", m.dir, "--resolve", "maybe"},
		{"migrate", "apply", "orders", "--source", m.dir, "--local", "--detach"},
	} {
		m.run(t, args...).must(t, 2)
	}
}
