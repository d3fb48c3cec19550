package dbcore_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// Each finding is caused, and beside it what looks like it and is not.
func TestInsight(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.New(t, pgtest.Options{Major: major, Settings: map[string]string{
			"shared_preload_libraries": "pg_stat_statements", "track_io_timing": "on", "autovacuum": "off",
			"autovacuum_freeze_max_age": "100000", "max_prepared_transactions": "2",
		}})
		db := s.DB(t, "")
		t.Run("top queries", func(t *testing.T) { topQueries(t, db, major) })
		t.Run("missing indexes", func(t *testing.T) { missingIndexes(t, db) })
		t.Run("unused indexes", func(t *testing.T) { unusedIndexes(t, s, db) })
		t.Run("duplicate indexes", func(t *testing.T) { duplicateIndexes(t, db) })
		t.Run("bloat", func(t *testing.T) { bloat(t, db) })
		t.Run("wraparound", func(t *testing.T) { wraparound(t, db) })
	})
}

func topQueries(t *testing.T, db *dbcore.DB, major int) {
	ctx := t.Context()
	_, err := dbcore.TopQueries(ctx, db, dbcore.TopByTotal, 0)
	var missing *dbcore.InsightUnavailableError
	if !errors.As(err, &missing) || !errors.Is(err, dbcore.ErrInsightUnavailable) || !strings.Contains(missing.Remedy, "CREATE EXTENSION") {
		t.Fatalf("without the extension: %v, want its remedy", err)
	}
	// In a schema that nobody has in the search path.
	mustExec(t, db, `create schema "odd Schema"; create extension pg_stat_statements schema "odd Schema"`)
	mustExec(t, db, "create table top (id int, filler text); insert into top select i, repeat('x', 500) from generate_series(1, 5000) i")
	mustExec(t, db, `select "odd Schema".pg_stat_statements_reset()`)
	for range 100 {
		mustExec(t, db, "select pg_sleep(0.02), 1 as many_calls")
	}
	mustExec(t, db, "select pg_sleep(1) as one_call")
	mustExec(t, db, "set work_mem = '64kB'; select count(*) as reader from (select distinct filler || id from top) x; reset work_mem")

	first := func(by dbcore.TopBy, n int) dbcore.QueryStats {
		t.Helper()
		r, err := dbcore.TopQueries(ctx, db, by, n)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Queries) == 0 || len(r.Queries) > n || r.Since.IsZero() || time.Since(r.Since) > time.Hour {
			t.Fatalf("%d queries since %s", len(r.Queries), r.Since)
		}
		return r.Queries[0]
	}
	if q := first(dbcore.TopByTotal, 1); !strings.Contains(q.Text, "many_calls") || q.Calls != 100 || q.Rows != 100 || q.Share <= 0 || q.Share > 1 || q.Database != "postgres" || q.User != "postgres" || !strings.Contains(q.Reason, "100 calls") {
		t.Errorf("by total: %+v", q)
	}
	if q := first(dbcore.TopByMean, 5); !strings.Contains(q.Text, "one_call") || q.Mean < time.Second || q.Mean != q.Max {
		t.Errorf("by mean: %+v", q)
	}
	q := first(dbcore.TopByIO, 3)
	if !strings.Contains(q.Text, "reader") || q.TempBlocks == 0 || q.Reason == "" {
		t.Errorf("by I/O on %d: %+v", major, q)
	}
	if q.IOTime <= 0 {
		t.Errorf("I/O time of temporary files is not seen on %d: %+v", major, q)
	}
}

// Created and not preloaded is another mistake than not created, and has another remedy.
func TestTopQueriesWithoutItsLibrary(t *testing.T) {
	db := pgtest.New(t, pgtest.Options{}).DB(t, "")
	mustExec(t, db, "create extension pg_stat_statements")
	_, err := dbcore.TopQueries(t.Context(), db, dbcore.TopByTotal, 0)
	var missing *dbcore.InsightUnavailableError
	if !errors.As(err, &missing) || !strings.Contains(missing.Remedy, "restart") || strings.Contains(missing.Remedy, "CREATE EXTENSION") || dbcore.SQLState(err) != "55000" {
		t.Errorf("%v, want the remedy of a library that is not loaded", err)
	}
}

// flush makes the counters of all idle sessions visible, those of the pool included.
func flush(t *testing.T, db *dbcore.DB) {
	db.Recycle("its sessions send their counters when they end")
	pgtest.Eventually(t, "the old sessions are gone", func() bool {
		return one[int](t, db, "select count(*)::int from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = current_database()") == 0
	})
	mustExec(t, db, "select pg_stat_force_next_flush()")
}

func missingIndexes(t *testing.T, db *dbcore.DB) {
	mustExec(t, db, `create table parents (id int primary key);
		insert into parents select generate_series(1, 100);
		create table scanned (id int primary key, who int, filler text);
		create table indexed (id int primary key, who int, filler text);
		create table tiny (id int primary key, who int);
		create table child_plain (id int primary key, parent int references parents, filler text);
		create table child_indexed (id int primary key, parent int references parents, filler text);
		insert into tiny select i, i from generate_series(1, 100) i`)
	for _, table := range []string{"scanned", "indexed", "child_plain", "child_indexed"} {
		mustExec(t, db, "insert into "+table+" select i, i % 100 + 1, repeat('x', 300) from generate_series(1, 5000) i")
	}
	mustExec(t, db, "create index on indexed (who); create index on child_indexed (parent, id)")
	flush(t, db)
	mustExec(t, db, "analyze")
	for range 15 {
		for _, table := range []string{"scanned", "indexed", "tiny"} {
			mustExec(t, db, "select count(*) from "+table+" where who = 7")
		}
	}
	flush(t, db)
	list, err := dbcore.MissingIndexes(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range list {
		names = append(names, m.Table)
		switch m.Table {
		case "scanned":
			if m.SeqScans < 15 || m.SeqRows < 75_000 || m.Writes != 5000 || m.Bytes < 1<<20 || !strings.Contains(m.Reason, "sequential scans") {
				t.Errorf("%+v", m)
			}
		case "child_plain":
			if !slices.Equal(m.ForeignKeys, []string{"parent"}) {
				t.Errorf("%+v", m)
			}
		}
	}
	if !slices.Equal(names, []string{"scanned", "child_plain"}) {
		t.Errorf("tables %v, want scanned, then child_plain", names)
	}
}

func unusedIndexes(t *testing.T, s *pgtest.Server, db *dbcore.DB) {
	mustExec(t, db, `create table u (id int primary key, a int unique, b int, c int, d int not null, e int4range, exclude using gist (e with &&));
		insert into u select i, i, i, i, i, int4range(i, i + 1) from generate_series(1, 2000) i;
		create index u_unused on u (b); create index u_used on u (c); create unique index u_unique on u (d);
		create table parts (id int, v int) partition by range (id);
		create table parts1 partition of parts for values from (0) to (10);
		create index parts_v on parts (v); analyze u`)
	mustExec(t, db, "set enable_seqscan = off; select * from u where c = 7; reset enable_seqscan")
	flush(t, db)
	r, err := dbcore.UnusedIndexes(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range r.Indexes {
		if i.Table == "u" || strings.HasPrefix(i.Table, "parts") {
			names = append(names, i.Index)
			if i.Bytes == 0 || !strings.HasPrefix(i.Definition, "CREATE INDEX u_unused ON") || !strings.Contains(i.Reason, "2000 writes") || !strings.Contains(i.Reason, "standbys") {
				t.Errorf("%+v", i)
			}
		}
	}
	if !slices.Equal(names, []string{"u_unused"}) {
		t.Errorf("unused: %v, want u_unused", names)
	}
	if r.InRecovery || r.Standbys != 0 {
		t.Errorf("%+v", r)
	}
	mustExec(t, db, "select pg_stat_reset()")
	if r, err = dbcore.UnusedIndexes(t.Context(), db); err != nil || r.StatsAge <= 0 || r.StatsAge > time.Minute {
		t.Errorf("after a reset: age %s, %v", r.StatsAge, err)
	}
	s.Exec(t, "drop table u, parts")
}

func duplicateIndexes(t *testing.T, db *dbcore.DB) {
	mustExec(t, db, `create table d (a int primary key, b text, c int, d int, e int);
		create index d_prefix on d (b); create index d_long on d (b, c);
		create index d_twin1 on d (c, d); create index d_twin2 on d (c, d);
		create index d_of_pk on d (a);
		create index d_pattern on d (b text_pattern_ops); create index d_c_collation on d (b collate "C");
		create index d_desc on d (c desc nulls last); create index d_partial on d (c) where d > 0;
		create index d_expr on d (lower(b)); create index d_expr_twin on d (lower(b));
		create unique index d_unique on d (e); create index d_e_c on d (e, c);
		create index d_include on d (d) include (e); create index d_d_e on d (d, e)`)
	list, err := dbcore.DuplicateIndexes(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, i := range list {
		if i.Table != "d" {
			continue
		}
		got[i.Index] = i.CoveredBy
		if i.Reason == "" || !strings.HasPrefix(i.Definition, "CREATE INDEX "+i.Index) || i.Prefix != slices.Contains([]string{"d_prefix", "d_include"}, i.Index) {
			t.Errorf("%+v", i)
		}
	}
	want := map[string]string{"d_prefix": "d_long", "d_twin2": "d_twin1", "d_of_pk": "d_pkey", "d_expr_twin": "d_expr", "d_include": "d_d_e"}
	for index, by := range want {
		if got[index] != by {
			t.Errorf("%s is covered by %q, want %q", index, got[index], by)
		}
		delete(got, index)
	}
	if len(got) > 0 {
		t.Errorf("called duplicates and are none: %v", got)
	}
}

func bloat(t *testing.T, db *dbcore.DB) {
	for _, table := range []string{"bloated", "tight"} {
		mustExec(t, db, "create table "+table+" (id int, n int, filler text); insert into "+table+
			" select i, nullif(i % 3, 0), repeat('x', 100 + i % 50) from generate_series(1, 30000) i")
	}
	mustExec(t, db, "create table unknown (id int, filler text); insert into unknown select i, repeat('x', 200) from generate_series(1, 10000) i")
	mustExec(t, db, "delete from bloated where id % 3 > 0")
	flush(t, db)
	mustExec(t, db, "analyze bloated, tight")
	flush(t, db)
	r, err := dbcore.Bloat(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) *dbcore.TableBloat {
		i := slices.IndexFunc(r.Tables, func(b dbcore.TableBloat) bool { return b.Table == name })
		if i < 0 {
			return nil
		}
		return &r.Tables[i]
	}
	if b := find("bloated"); b == nil || b.Share < 0.6 || b.Share > 0.72 || b.DeadRows != 20000 || !strings.Contains(b.Reason, "dead rows wait") || !b.LastVacuum.IsZero() {
		t.Errorf("two thirds deleted: %+v", b)
	}
	if b := find("tight"); b != nil {
		t.Errorf("freshly filled: %+v", b)
	}
	if !slices.Contains(r.Unknown, "public.unknown") || find("unknown") != nil {
		t.Errorf("never analyzed: unknown are %v", r.Unknown)
	}
}

func wraparound(t *testing.T, db *dbcore.DB) {
	// A transaction that stays open, so that the server's own VACUUM cannot freeze what this test lets age.
	mustExec(t, db, "create table w (i int)")
	mustExec(t, db, "vacuum (freeze) w")
	mustExec(t, db, "begin; insert into w values (1); prepare transaction 'forgotten'")
	holder := connect(t, configOf(db))
	mustExec(t, holder, "begin isolation level repeatable read; select count(*) from w")
	mustExec(t, db, "do $$ begin for i in 1 .. 101000 loop begin insert into w values (i); exception when others then raise; end; end loop; end $$")
	r, err := dbcore.Wraparound(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if r.Limits.FreezeMaxAge != 100000 || r.Limits.FailsafeAge < 1e9 || r.Limits.MultixactFreezeMaxAge != 400e6 {
		t.Errorf("limits %+v", r.Limits)
	}
	i := slices.IndexFunc(r.Databases, func(a dbcore.WraparoundAge) bool { return a.Name == "postgres" })
	if i < 0 || r.Databases[i].Level != dbcore.WraparoundForced || r.Databases[i].XIDAge < 101000 || !strings.Contains(r.Databases[i].Reason, "autovacuum_freeze_max_age") || r.Databases[i].Left < 2e9 {
		t.Errorf("databases %+v, want postgres above its limit", r.Databases)
	}
	if len(r.Tables) != 20 || r.Tables[0].XIDAge < 101000 || r.Tables[0].MultixactAge > 1000 {
		t.Errorf("%d tables, the oldest %+v", len(r.Tables), r.Tables[0])
	}
	var kinds []string
	for _, h := range r.Holders {
		if h.Age < 100000 || h.Remedy == "" {
			t.Errorf("%+v", h)
		}
		kinds = append(kinds, h.Kind)
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []string{"prepared transaction", "session"}) {
		t.Errorf("held back by %+v, want the session and the prepared transaction", r.Holders)
	}
	mustExec(t, holder, "rollback")
	mustExec(t, db, "rollback prepared 'forgotten'")
	if r, err = dbcore.Wraparound(t.Context(), db); err != nil || len(r.Holders) != 0 {
		t.Errorf("afterwards held back by %+v, %v", r.Holders, err)
	}
}

// configOf reaches the server of a pool in a session of its own.
func configOf(db *dbcore.DB) dbcore.Config {
	c := db.Pool().Config().ConnConfig
	cfg := dbcore.DefaultConfig()
	cfg.Host, cfg.Port, cfg.User, cfg.DBName = c.Host, int(c.Port), c.User, c.Database
	return cfg
}

// All reports work on a standby, where nothing can be written, in whatever takes statements, and in transactions that are
// READ ONLY.
func TestInsightWritesNothing(t *testing.T) {
	primary := pgtest.New(t, pgtest.Options{})
	standby := primary.Standby(t)
	ctx := t.Context()
	reports := map[string]func(q dbcore.Querier) error{
		"missing":    func(q dbcore.Querier) error { _, err := dbcore.MissingIndexes(ctx, q); return err },
		"duplicates": func(q dbcore.Querier) error { _, err := dbcore.DuplicateIndexes(ctx, q); return err },
		"bloat":      func(q dbcore.Querier) error { _, err := dbcore.Bloat(ctx, q); return err },
		"wraparound": func(q dbcore.Querier) error { _, err := dbcore.Wraparound(ctx, q); return err },
		"unused": func(q dbcore.Querier) error {
			r, err := dbcore.UnusedIndexes(ctx, q)
			if err == nil && r.InRecovery == (r.Standbys > 0) {
				t.Errorf("in recovery %t, %d standbys", r.InRecovery, r.Standbys)
			}
			return err
		},
	}
	pgtest.Eventually(t, "the standby streams", func() bool { return primary.SQL(t, "select count(*) from pg_stat_replication") == "1" })
	for name, report := range reports {
		db := standby.DB(t, "")
		conn := connect(t, configOf(db))
		for _, q := range []dbcore.Querier{db, conn, db.Op("insight"), primary.DB(t, "")} {
			if err := report(q); err != nil {
				t.Errorf("%s on %T: %v", name, q, err)
			}
		}
		err := db.RunTx(ctx, dbcore.TxOptions{}, func(_ context.Context, tx *dbcore.Tx) error { return report(tx) })
		if err != nil {
			t.Errorf("%s in a transaction: %v", name, err)
		}
	}
}

// began notes how transactions begin.
type began struct {
	mu  sync.Mutex
	sql []string
}

func (b *began) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasPrefix(data.SQL, "begin") {
		b.sql = append(b.sql, data.SQL)
	}
	return ctx
}

func (*began) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The server itself is told to refuse writes.
func TestInsightTransactionsAreReadOnly(t *testing.T) {
	var b began
	db, err := dbcore.Open(t.Context(), socketConfig(), dbcore.WithTracer(&b))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := dbcore.Bloat(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if want := []string{"begin isolation level repeatable read read only"}; !slices.Equal(b.sql, want) {
		t.Errorf("began by %q, want %q", b.sql, want)
	}
}
