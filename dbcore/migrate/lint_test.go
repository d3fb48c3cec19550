package migrate_test

import (
	"slices"
	"strings"
	"testing"

	"lifeboat/dbcore/migrate"
)

// lintCases are unsafe statements, the rule that must catch each, and the safe form that must pass. A safe form of
// several files is parted by "----".
var lintCases = []struct {
	rule, unsafe, safe string
	major              int
}{
	{"require-concurrent-index-creation", "create index i on t (a);", "create index concurrently i on t (a);", 15},
	{"require-concurrent-index-creation", "create unique index if not exists i on app.t (lower(a)) where b;", "create index i on only t (a);", 15},
	{"require-concurrent-index-creation", "create table u (a bigint); create index i on t (a);", "create table t (a bigint); create index i on t (a);", 15},
	{"require-concurrent-index-deletion", "drop index i;", "drop index concurrently i;", 15},
	{"require-concurrent-reindex", "reindex table t;", "reindex (concurrently) table t;", 15},
	{"ban-concurrent-index-creation-in-transaction", "begin; create index concurrently i on t (a); commit;", "set maintenance_work_mem = '1GB'; create index concurrently i on t (a);", 15},
	{"ban-concurrent-index-creation-in-transaction", "alter table t add column a bigint; create index concurrently i on t (a);", "alter table t add column a bigint;\n----\ncreate index concurrently i on t (a);", 15},
	{"constraint-missing-not-valid", "alter table t add constraint c check (a > 0);", "alter table t add constraint c check (a > 0) not valid;\n----\nalter table t validate constraint c;", 15},
	{"constraint-missing-not-valid", "alter table t add column a bigint check (a > 0);", "alter table t add column a bigint;", 15},
	{"validating-in-the-transaction", "alter table t add constraint c check (a > 0) not valid; alter table t validate constraint c;", "alter table t validate constraint c;", 15},
	{"adding-foreign-key-constraint", "alter table t add constraint f foreign key (a) references u (id);", "alter table t add constraint f foreign key (a) references u (id) not valid;", 15},
	{"adding-foreign-key-constraint", "alter table t add column a bigint default 1 references u (id);", "alter table t add column a bigint references u (id);", 15},
	{"adding-not-nullable-field", "alter table t alter column a set not null;", "alter table t validate constraint a_not_null; alter table t alter column a set not null; alter table t drop constraint a_not_null;", 12},
	{"adding-not-nullable-field", "alter table t validate constraint a_not_null; alter table t alter column a set not null;", "select 1;", 11},
	{"adding-required-field", "alter table t add column a text not null;", "alter table t add column a text not null default 'x';", 15},
	{"adding-field-with-default", "alter table t add column a uuid default gen_random_uuid();", "alter table t add column a timestamptz default now();", 15},
	{"adding-field-with-default", "alter table t add column a text default 'x';", "alter table t add column a text;", 10},
	{"adding-field-with-default", "alter table t add column a text default coalesce('x' || random()::text, 'y');", "alter table t add column a text default 'x' || 'y';", 15},
	{"adding-field-with-default", "alter table t add column a bigserial;", "alter table t add column a bigint;", 15},
	{"adding-field-with-default", "alter table t add column a bigint generated always as (b * 2) stored;", "create table t (b bigint, a bigint generated always as (b * 2) stored);", 15},
	{"adding-serial-primary-key-field", "alter table t add primary key (id);", "alter table t add constraint t_pkey primary key using index i;", 15},
	{"disallowed-unique-constraint", "alter table t add constraint u unique (a);", "alter table t add constraint u unique using index i;", 15},
	{"disallowed-unique-constraint", "alter table t add column a bigint unique;", "create table t (a bigint unique);", 15},
	{"adding-exclusion-constraint", "alter table t add constraint e exclude using gist (r with &&);", "create table t (r int8range, exclude using gist (r with &&));", 15},
	{"changing-column-type", "alter table t alter column a type bigint;", "create table t (a bigint); alter table t alter a type text;", 15},
	{"renaming-column", "alter table t rename column a to b;", "create table t (a bigint); alter table t rename column a to b;", 15},
	{"renaming-table", "alter table t rename to u;", "alter index i rename to j;", 15},
	{"ban-drop-column", "alter table t drop column a;", "alter table t add column a bigint;", 15},
	{"ban-drop-table", "drop table t;", "create table t (); drop table t;", 15},
	{"ban-drop-schema", "drop schema s cascade;", "create schema s;", 15},
	{"ban-drop-database", "drop database d;", "select 1;", 15},
	{"ban-drop-not-null", "alter table t alter column a drop not null;", "alter table t alter column a set default 1;", 15},
	{"ban-truncate-cascade", "truncate t cascade;", "truncate t;", 15},
	{"ban-set-schema", "alter table t set schema s;", "create table t (); alter table t set schema s;", 15},
	{"prefer-repack", "vacuum full t;", "vacuum (analyze) t;", 15},
	{"prefer-repack", "cluster t using i;", "analyze t;", 15},
	{"rewriting-table", "alter table t set unlogged;", "alter table t set (fillfactor = 90);", 15},
	{"locking-table", "lock table t;", "select 1;", 15},
	{"refreshing-view", "refresh materialized view v;", "refresh materialized view concurrently v;", 15},
	{"updating-all-rows", "update t set a = 1;", "update t set a = 1 where id < 1000;", 15},
	{"require-concurrent-partition-detach", "alter table t detach partition p;", "alter table t detach partition p concurrently;", 15},
	{"require-index-name", "create index concurrently on t (a);", "create index concurrently i on t (a);", 15},
	{"require-timeout-settings", "set lock_timeout = 0; alter table t add column a bigint;", "set lock_timeout = '5s'; alter table t add column a bigint;", 15},
	{"require-timeout-settings", "reset lock_timeout;", "set local lock_timeout = 500;", 15},
	{"transaction-nesting", "create table t (); commit; create table u ();", "begin; create table t (); create table u (); commit;", 15},
	{"ban-create-domain-with-constraint", "create domain d as text check (value <> '');", "create domain d as text;", 15},
	{"ban-alter-domain-with-add-constraint", "alter domain d add constraint c check (value <> '');", "alter domain d add constraint c check (value <> '') not valid;", 15},
	{"prefer-text-field", "create table t (a varchar(20));", "create table t (a varchar, b text);", 15},
	{"prefer-bigint-over-int", "alter table t add column a int;", "alter table t add column a bigint;", 15},
	{"prefer-bigint-over-smallint", "create table t (a smallint);", "create table t (a bigint);", 15},
	{"prefer-timestamptz", "create table t (a timestamp);", "create table t (a timestamptz);", 15},
	{"prefer-identity", "create table t (a bigserial);", "create table t (a bigint generated always as identity);", 15},
	{"ban-char-field", "create table t (a char(2));", "create table t (a text);", 15},
	{"identifier-too-long", "create table " + strings.Repeat("x", 64) + " ();", "create table " + strings.Repeat("x", 63) + " ();", 15},
	{"syntax-error", "create tabel t ();", "create table t ();", 15},
}

// lintRules returns the rules that object to files, parted by "----".
func lintRules(t *testing.T, text string, opts migrate.LintOptions) []string {
	t.Helper()
	var pairs []string
	for i, part := range strings.Split(text, "----") {
		pairs = append(pairs, string(rune('1'+i))+"_x.up", part)
	}
	findings, err := migrate.Lint(files(pairs...), opts)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range findings {
		found = append(found, f.Rule)
	}
	return found
}

func TestLint_UnsafeStatements(t *testing.T) {
	for _, c := range lintCases {
		t.Run(c.rule+"/"+c.unsafe[:min(len(c.unsafe), 40)], func(t *testing.T) {
			if found := lintRules(t, c.unsafe, migrate.LintOptions{Major: c.major}); !slices.Contains(found, c.rule) {
				t.Errorf("%s: found %v, not %s", c.unsafe, found, c.rule)
			}
			if found := lintRules(t, c.safe, migrate.LintOptions{Major: c.major}); slices.Contains(found, c.rule) {
				t.Errorf("the safe form %s: found %v", c.safe, found)
			}
		})
	}
	if len(lintCases) < 25 {
		t.Error("too few cases")
	}
}

// TestLint_ByVersion: the same file, judged for two servers.
func TestLint_ByVersion(t *testing.T) {
	const sql = "alter table t add column a text not null default 'x';"
	if found := lintRules(t, sql, migrate.LintOptions{Major: 10}); !slices.Equal(found, []string{"adding-field-with-default"}) {
		t.Errorf("PostgreSQL 10: %v", found)
	}
	if found := lintRules(t, sql, migrate.LintOptions{Major: 11}); found != nil {
		t.Errorf("PostgreSQL 11: %v", found)
	}
}

func TestLint_Directives(t *testing.T) {
	cases := []struct {
		name, sql string
		want      []string
	}{
		{"accepted", "-- migrate:ignore ban-drop-table: nobody has read it since May\ndrop table t;", nil},
		{"without a reason", "-- migrate:ignore ban-drop-table\ndrop table t;", []string{"directive", "ban-drop-table"}},
		{"an empty reason", "-- migrate:ignore ban-drop-table:   \ndrop table t;", []string{"directive", "ban-drop-table"}},
		{"of another rule", "-- migrate:ignore ban-drop-column: gone\ndrop table t;", []string{"ban-drop-table"}},
		{"a rule that there is not", "-- migrate:ignore ban-drop-tables: gone\ndrop table t;", []string{"directive", "ban-drop-table"}},
		{"of one statement only", "-- migrate:ignore ban-drop-table: gone\ndrop table t;\ndrop table u;", []string{"ban-drop-table"}},
		{"in a block comment", "/* migrate:ignore ban-drop-table, ban-drop-schema: gone */ drop table t; ", nil},
		{"of the file", "drop table t;\ndrop table u;\n-- migrate:ignore-file ban-drop-table: both are gone", nil},
		{"in a string", "select '-- migrate:ignore ban-drop-table: no'; drop table t;", []string{"ban-drop-table"}},
		{"unknown", "-- migrate:no-transactions\nselect 1;", []string{"directive"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if found := lintRules(t, c.sql, migrate.LintOptions{}); !slices.Equal(found, c.want) {
				t.Errorf("found %v, want %v", found, c.want)
			}
		})
	}
}

// TestLint_RequireTimeouts is for files that golang-migrate runs.
func TestLint_RequireTimeouts(t *testing.T) {
	opts := migrate.LintOptions{RequireTimeouts: true}
	if found := lintRules(t, "alter table t add column a bigint;", opts); !slices.Equal(found, []string{"require-timeout-settings"}) {
		t.Errorf("without: %v", found)
	}
	if found := lintRules(t, "set lock_timeout = '2s'; alter table t add column a bigint;", opts); found != nil {
		t.Errorf("with: %v", found)
	}
}

// TestLint_DownFiles may drop what the up file made.
func TestLint_DownFiles(t *testing.T) {
	findings, err := migrate.Lint(files("1_a.up", "create table t ();", "1_a.down", "drop table t;", "2_b.up", "alter table t add column a bigint;", "2_b.down", "alter table t drop column a; create index i on t (b);"), migrate.LintOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(findings) != 1 || findings[0].Rule != "require-concurrent-index-creation" || findings[0].File != "2_b.down.sql" {
		t.Errorf("%v", findings)
	}
}
