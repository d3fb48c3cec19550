package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
)

// migrationFiles take a while: the first in a transaction, the second statement by statement.
func migrationFiles() []contract.MigrationFile {
	return []contract.MigrationFile{
		{Name: "1_note.up.sql", Text: "alter table items add note text;\nselect pg_sleep(1);"},
		{Name: "1_note.down.sql", Text: "alter table items drop note;\nselect pg_sleep(1);"},
		{Name: "2_index.up.sql", Text: "create index concurrently items_slow on items (slow(id));\ncreate index concurrently items_note on items (note);"},
		{Name: "2_index.down.sql", Text: "drop index concurrently items_note;\ndrop index concurrently items_slow;"},
		{Name: "3_view.up.sql", Text: "create view item_notes as select note from items;\nselect pg_sleep(1);"},
		{Name: "3_view.down.sql", Text: "drop view item_notes;\nselect pg_sleep(1);"},
	}
}

// originalOnly fails on the original, which archives, and not on a clone.
var originalOnly = []contract.MigrationFile{
	{Name: "4_original.up.sql", Text: "select 1 / (current_setting('archive_mode') = 'off')::int;"},
	{Name: "4_original.down.sql", Text: "select 1;"},
}

// migrationKill is a place in a migration to kill its worker at, and what the run is to do on the way there.
type migrationKill struct {
	at               target
	rehearse, backup bool
	fails            bool // on the original, after a rehearsal that did not
}

// migrationKills has all steps; the first five are killed by default.
func migrationKills() []migrationKill {
	const apply = contract.ApplyMigrationActivity
	return []migrationKill{
		{at: target{apply, "1_note.up.sql, statement 2 of 2", 0}},
		{at: target{apply, "2_index.up.sql, statement 1 of 2", 0}},
		{at: target{contract.RehearseMigrationActivity, "2_index.up.sql, statement 1 of 2", 0}, rehearse: true},
		{at: target{contract.MarkRestorePointActivity, "restore point", 0}, backup: true},
		{at: target{contract.RevertMigrationActivity, "1_note.down.sql, statement 2 of 2", 0}, rehearse: true, fails: true},
		{at: target{contract.CheckMigratedActivity, "", 0}},
		{at: target{contract.PlanMigrationActivity, "", 0}},
		{at: target{apply, "", 0}},
		{at: target{apply, "2_index.up.sql, statement 2 of 2", 0}},
		{at: target{apply, "3_view.up.sql, statement 2 of 2", 0}},
		{at: target{contract.PrepareDrillActivity, "canary", 0}, rehearse: true},
		{at: target{contract.PlanRestoreActivity, "", 0}, rehearse: true},
		{at: target{contract.LayFilesActivity, "lay", 0}, rehearse: true},
		{at: target{contract.RehearseMigrationActivity, "", 0}, rehearse: true},
		{at: target{contract.RehearseMigrationActivity, "1_note.down.sql, statement 2 of 2", 0}, rehearse: true},
		{at: target{contract.CleanUpDrillActivity, "", 0}, rehearse: true},
		{at: target{contract.TakeBackupActivity, "copy", 0}, backup: true},
		{at: target{contract.VerifyBackupsActivity, "", 0}, backup: true},
		{at: target{contract.RevertMigrationActivity, "", 0}, rehearse: true, fails: true},
		{at: target{contract.RevertMigrationActivity, "3_view.down.sql, statement 2 of 2", 0}, rehearse: true, fails: true},
	}
}

// TestKill_Migrate kills the worker in the steps of a migration. Each time another goes on, the result says what is in the
// database, and that is so; nothing is left of the clone.
func TestKill_Migrate(t *testing.T) {
	kills := migrationKills()
	kills = kills[:min(len(kills), 5*pgtest.Scale(t))]
	server, address := startTemporal(t)
	s := stackOn(t, server, address, pgtest.Options{})
	s.lifeboat(t, 0, "backup", "c1", "--local", "--config", s.config)
	l := s.newLane(t, "migrate", "--heartbeat-timeout", "3s")
	worker, err := l.worker(laneHost)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("by the command line", func(t *testing.T) { l.migrateByCommand(t) })
	for i, k := range kills {
		t.Run(strings.ReplaceAll(k.at.String(), " ", "_"), func(t *testing.T) {
			m := &migrationRun{lane: l, kill: k, database: fmt.Sprintf("m%d", i), id: fmt.Sprintf("migrate-%d", i)}
			s.Exec(t, "create database "+m.database)
			m.exec(t, "create function slow(i int) returns int immutable language plpgsql as 'begin perform pg_sleep(0.001); return i; end'")
			m.exec(t, "create table items as select g as id from generate_series(1, 1000) g")
			if worker, err = m.run(t, worker); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// migrateByCommand applies through Temporal as a person does, and sees that no password gets there.
func (l *lane) migrateByCommand(t *testing.T) {
	l.Exec(t, "create database typed")
	dir := pgtest.TempDir(t)
	args := []string{"migrate", "apply", "c1", "--source", dir, "--database", "typed", "--no-rehearsal", "--no-backup", "--json", "--config", l.config}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("1_role.up.sql", "create role typed login password 'geheim';")
	if _, said := l.lifeboat(t, 2, args...); !strings.Contains(said, "password") {
		t.Errorf("refused for another reason: %s", said)
	}
	// Nearly as much as may be, so that a real server takes it.
	write("1_role.up.sql", "create role typed login;\n-- "+strings.Repeat("x", contract.MaxMigrationBytes-1000))
	out, _ := l.lifeboat(t, 0, args...)
	if res := decode[contract.MigrateResult](t, out); res.Outcome != contract.MigrationApplied || res.State.Version != 1 || res.WorkflowID == "" {
		t.Errorf("applied %+v", res)
	}
	write("2_bad.up.sql", "select 1/0;")
	out, _ = l.lifeboat(t, 1, args...)
	if res := decode[contract.MigrateResult](t, out); res.Outcome != contract.MigrationUnchanged || res.Verdict != contract.Fail {
		t.Errorf("failed %+v", res)
	}
}

// migrationRun is one migration with one kill.
type migrationRun struct {
	*lane
	kill         migrationKill
	database, id string
}

func (m *migrationRun) input() contract.MigrateInput {
	in := contract.MigrateInput{
		MigrationSource: contract.MigrationSource{Cluster: "c1", Database: m.database, Files: migrationFiles()},
		SkipRehearsal:   !m.kill.rehearse, SkipBackup: !m.kill.backup, AllowUnsafe: true, AllowDestructiveDown: true,
	}
	if m.kill.fails {
		in.Files = append(in.Files, originalOnly...)
	}
	return in
}

// run starts the migration, has its worker killed, starts another, and compares. It returns the worker that lives on.
func (m *migrationRun) run(t *testing.T, worker *victim) (*victim, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	worker.set(func(e event) bool { return e.Workflow == m.id && m.kill.at.reached(e) }, worker.kill)
	run, err := m.begin(ctx, m.id, contract.MigrateWorkflow, m.input())
	if err != nil {
		return worker, err
	}
	err = wait("the kill of "+m.id, func() (bool, error) {
		if worker.ended() {
			return true, nil
		}
		running, err := m.running(ctx, m.id)
		if err == nil && !running {
			err = fmt.Errorf("%s ended before it was killed in %s", m.id, m.kill.at)
			return true, err
		}
		return false, err
	})
	if err != nil || !worker.ended() {
		return worker, fmt.Errorf("not killed in %s: %w\n%s", m.kill.at, err, worker.tail(30))
	}
	next, err := m.worker(laneHost)
	if err != nil {
		return worker, err
	}
	var res contract.MigrateResult
	if err := run.Get(ctx, &res); err != nil {
		return next, fmt.Errorf("%w\n%s", err, next.tail(30))
	}
	if n, _, err := m.attempts(ctx, m.id, m.kill.at.activity); err != nil || n < 2 {
		t.Errorf("%d attempts at %s (%v)", n, m.kill.at.activity, err)
	}
	m.compare(t, res)
	return next, m.nothingLeft()
}

// compare holds what the result says against what is in the database.
func (m *migrationRun) compare(t *testing.T, res contract.MigrateResult) {
	t.Helper()
	outcome, version, objects, applied := contract.MigrationApplied, int64(3), "4", []int64{1, 2, 3}
	if m.kill.fails {
		outcome, version, objects, applied = contract.MigrationReverted, -1, "0", []int64{}
	}
	if res.Outcome != outcome || res.State == nil || res.State.Version != version || !slices.Equal(res.State.Applied, applied) || res.Explanation == "" {
		t.Errorf("result is %+v, want %s at %d", res, outcome, version)
	}
	if (res.RestorePoint != nil) != m.kill.backup || (res.Rehearsal != nil) != m.kill.rehearse {
		t.Errorf("restore point %v, rehearsal %v", res.RestorePoint, res.Rehearsal)
	}
	for what, q := range map[string][2]string{
		"objects": {"select ((select count(*) from pg_attribute where attrelid = 'items'::regclass and attname = 'note') + " +
			"(select count(*) from pg_class where relname in ('items_slow', 'items_note', 'item_notes')))::text", objects},
		"INVALID indexes": {"select count(*)::text from pg_index where not indisvalid", "0"},
		"open lines":      {"select count(*)::text from schema_migrations_history where state in ('running', 'failed')", "0"},
		"version":         {"select coalesce(max(version), -1)::text from schema_migrations where not dirty", fmt.Sprint(version)},
	} {
		if got := m.ask(t, q[0]); got != q[1] {
			t.Errorf("%s: %s, want %s", what, got, q[1])
		}
	}
}

func (m *migrationRun) connect(t *testing.T) *dbcore.Conn {
	t.Helper()
	cfg, err := dbcore.ParseDSN(m.DSN(m.database))
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

func (m *migrationRun) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := m.connect(t).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (m *migrationRun) ask(t *testing.T, sql string) string {
	t.Helper()
	v, err := dbcore.One[string](t.Context(), m.connect(t), sql)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
