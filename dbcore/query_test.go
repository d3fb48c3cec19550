package dbcore_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

func TestCollect(t *testing.T) {
	type person struct {
		ID       int
		FullName string
		Born     *time.Time
		Nick     *string `db:"alias"`
		Note     string  `db:"-"`
	}
	db := openDB(t, socketConfig())
	ctx := t.Context()
	people, err := dbcore.Collect[person](ctx, db, `select * from (values
		(1, 'Ada', '1815-12-10'::timestamptz, 'a'), (2, 'Bob', null, null)) v(id, full_name, born, alias) order by id`)
	if err != nil || len(people) != 2 || people[0].FullName != "Ada" || people[0].Born.UTC().Year() != 1815 || *people[0].Nick != "a" || people[1].Born != nil || people[1].ID != 2 {
		t.Errorf("structs: %+v, %v", people, err)
	}
	none, err := dbcore.Collect[person](ctx, db, "select 1 id, '' full_name, now() born, '' alias where false")
	if err != nil || none == nil || len(none) != 0 {
		t.Errorf("no rows: %v, %v", none, err)
	}
	numbers, err := dbcore.Collect[int64](ctx, db, "select generate_series($1::int, $2::int)", 3, 5)
	if err != nil || !slices.Equal(numbers, []int64{3, 4, 5}) {
		t.Errorf("numbers: %v, %v", numbers, err)
	}
	if got := one[time.Time](t, db, "select '2026-01-02T03:04:05Z'::timestamptz"); !got.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("time: %s", got)
	}
	if got := one[netip.Addr](t, db, "select '10.0.0.1'::inet"); got != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("address: %s", got)
	}
	if got := one[[]string](t, db, "select array['a', 'b']"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("array: %v", got)
	}
	if got := one[[]byte](t, db, `select '\x0102'::bytea`); !slices.Equal(got, []byte{1, 2}) {
		t.Errorf("bytes: %v", got)
	}
	if _, err := dbcore.Collect[person](ctx, db, "select 1 id"); err == nil {
		t.Error("missing columns were not noticed")
	}
	if _, err := dbcore.Collect[struct{ A int }](ctx, db, "select 1 a, 2 b"); err == nil {
		t.Error("a column without field was not noticed")
	}
	if used := db.Pool().Stat().AcquiredConns(); used != 0 {
		t.Errorf("%d connections were not given back", used)
	}
}

func TestOne(t *testing.T) {
	db := openDB(t, socketConfig())
	if _, err := dbcore.One[int](t.Context(), db, "select 1 where false"); !errors.Is(err, dbcore.ErrNoRows) {
		t.Errorf("no row: got %v", err)
	}
	if _, err := dbcore.One[int](t.Context(), db, "select generate_series(1, 2)"); !errors.Is(err, dbcore.ErrTooManyRows) {
		t.Errorf("two rows: got %v", err)
	}
	if used := db.Pool().Stat().AcquiredConns(); used != 0 {
		t.Errorf("%d connections were not given back", used)
	}
}

func TestExec(t *testing.T) {
	db := openDB(t, socketConfig())
	mustExec(t, db, "drop table if exists ex; create table ex (a int primary key)") // several statements
	if n := mustExec(t, db, "insert into ex select generate_series(1, $1)", 7); n != 7 {
		t.Errorf("inserted %d", n)
	}
	if n := mustExec(t, db, "delete from ex where a > 4"); n != 3 {
		t.Errorf("deleted %d", n)
	}
	_, err := db.Exec(t.Context(), "insert into ex values ($1)", 1)
	var pgErr *pgconn.PgError
	if dbcore.SQLState(err) != "23505" || !errors.As(err, &pgErr) || pgErr.ConstraintName != "ex_pkey" || !strings.HasPrefix(err.Error(), "exec: ") {
		t.Errorf("got %v", err)
	}
	if dbcore.SQLState(errors.New("x")) != "" || dbcore.SQLState(nil) != "" {
		t.Error("SQLSTATE of what has none")
	}
}

func TestRows(t *testing.T) {
	db := openDB(t, socketConfig())
	rows, err := db.Query(t.Context(), "select g, 10 / (3 - g) q from generate_series(1, 5) g")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if got := rows.Columns(); !reflect.DeepEqual(got, []string{"g", "q"}) {
		t.Errorf("columns %v", got)
	}
	var seen []int
	for rows.Next() {
		var g, q int
		if err := rows.Scan(&g, &q); err != nil {
			t.Fatal(err)
		}
		if values, err := rows.Values(); err != nil || values[0] != int32(g) {
			t.Errorf("values %v, %v", values, err)
		}
		seen = append(seen, g)
	}
	if !slices.Equal(seen, []int{1, 2}) || dbcore.SQLState(rows.Err()) != "22012" {
		t.Errorf("rows %v, then %v", seen, rows.Err())
	}
	if used := db.Pool().Stat().AcquiredConns(); used != 0 {
		t.Errorf("%d connections were not given back", used)
	}
}

// TestBusy: a session whose rows are open takes no other statement, and says what to do.
func TestBusy(t *testing.T) {
	conn := connect(t, socketConfig())
	rows, err := conn.Query(t.Context(), "select generate_series(1, 3)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "select 1"); err == nil || !strings.Contains(err.Error(), "close it first") || errors.Is(err, dbcore.ErrConnectionLost) {
		t.Errorf("got %v", err)
	}
	rows.Close()
	mustExec(t, conn, "select 1")
}

// TestCanceledStatement: the caller's context ends a statement, and is what the error says.
func TestCanceledStatement(t *testing.T) {
	db := openDB(t, socketConfig())
	for _, args := range [][]any{nil, {30}} {
		sql := "select pg_sleep(30)"
		if args != nil {
			sql = "select pg_sleep($1)"
		}
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(100*time.Millisecond, cancel)
		began := time.Now()
		_, err := db.Exec(ctx, sql, args...)
		timer.Stop()
		if !errors.Is(err, context.Canceled) || !errors.Is(err, dbcore.ErrConnectionLost) || pgconn.SafeToRetry(err) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %s", d)
		}
	}
	_, err := db.Exec(canceled(t), "select 1")
	if !errors.Is(err, context.Canceled) || errors.Is(err, dbcore.ErrConnectionLost) {
		t.Errorf("nothing was sent, got %v", err)
	}
	mustExec(t, db, "select 1")
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
