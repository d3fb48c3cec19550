package dbcore

import (
	"context"
	"database/sql"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Querier runs statements: a DB, an Op, a Conn or a Tx. Only this package implements it.
type Querier interface {
	// Exec runs a statement and returns the number of rows that it touched.
	Exec(ctx context.Context, sql string, args ...any) (int64, error)
	// Query runs a statement that returns rows, which the caller closes.
	Query(ctx context.Context, sql string, args ...any) (*Rows, error)
}

var (
	_ Querier = (*DB)(nil)
	_ Querier = Op{}
	_ Querier = (*Conn)(nil)
	_ Querier = (*Tx)(nil)
)

func execOn(ctx context.Context, conn *pgx.Conn, sql string, args []any) (int64, error) {
	state := stateOf(conn.PgConn())
	tag, err := conn.Exec(ctx, sql, args...)
	if err != nil {
		return 0, state.wrap(ctx, "exec", err)
	}
	return tag.RowsAffected(), nil
}

func queryOn(ctx context.Context, conn *pgx.Conn, sql string, args []any) (*Rows, error) {
	state := stateOf(conn.PgConn())
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		rows.Close()
		return nil, state.wrap(ctx, "query", err)
	}
	return &Rows{rows: rows, ctx: ctx, state: state}, nil
}

// Rows are the rows of one query, read one by one:
//
//	defer rows.Close()
//	for rows.Next() {
//		if err := rows.Scan(&id, &name); err != nil { ... }
//	}
//	if err := rows.Err(); err != nil { ... }
//
// Errors of the query may come as late as from Err: rows that were delivered before it are not the whole answer.
type Rows struct {
	rows   pgx.Rows
	ctx    context.Context // of the query, to judge its errors
	state  connState
	tx     *txState // the transaction that they belong to; nil outside of one
	db     *DB      // the pool that the connection goes back to; nil if it stays with somebody
	pooled *pgxpool.Conn

	peeked, has bool // the first row was already fetched, and whether there is one
}

// peek fetches the first row, for Next to give it out.
func (r *Rows) peek() bool {
	r.peeked, r.has = true, r.rows.Next()
	return r.has
}

// Next goes to the next row. It returns false at the end and on errors, which Err tells apart; the rows are closed
// then.
func (r *Rows) Next() bool {
	if r.peeked {
		r.peeked = false
		if r.has {
			return true
		}
	} else if r.rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Scan copies the columns of the current row into dest.
func (r *Rows) Scan(dest ...any) error { return r.wrap(r.rows.Scan(dest...)) }

// Values returns the columns of the current row in the Go types that pgx gives them.
func (r *Rows) Values() ([]any, error) {
	values, err := r.rows.Values()
	return values, r.wrap(err)
}

// Columns returns the names of the columns.
func (r *Rows) Columns() []string {
	fields := r.rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// Err returns the error that ended the rows early, or nil. It is meaningful once Next returned false or Close was
// called.
func (r *Rows) Err() error { return r.wrap(r.rows.Err()) }

// Close reads what is left, and frees the connection. Closing twice is harmless.
func (r *Rows) Close() {
	r.rows.Close()
	if r.db != nil {
		r.db.after(r.pooled.Conn(), r.Err(), PhaseAutocommit)
		r.db.release(r.pooled)
		r.db, r.pooled = nil, nil
	}
}

func (r *Rows) wrap(err error) error {
	err = r.state.wrap(r.ctx, "query", err)
	if r.tx != nil {
		return r.tx.mark(err)
	}
	return err
}

// Collect runs a query and returns all its rows. If T is a struct with exported fields, columns go to fields by name:
// `db:"name"` tags count first, then names without regard to case and underscores, and each column and each field
// must find its partner (`db:"-"` exempts a field). Any other T, and structs that scan themselves (time.Time,
// sql.Scanner), take the query's single column; use a pointer for one that may be NULL.
//
// No rows give an empty slice. After an error the slice is nil.
func Collect[T any](ctx context.Context, q Querier, sql string, args ...any) ([]T, error) {
	var values []T
	err := collect(ctx, q, sql, args, func(rows *Rows) (err error) {
		values, err = pgx.CollectRows(rows.rows, rowTo[T]())
		return err
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

// One is Collect for a query that must return exactly one row: ErrNoRows and ErrTooManyRows say that it did not.
func One[T any](ctx context.Context, q Querier, sql string, args ...any) (T, error) {
	var value, zero T
	err := collect(ctx, q, sql, args, func(rows *Rows) (err error) {
		value, err = pgx.CollectExactlyOneRow(rows.rows, rowTo[T]())
		return err
	})
	if err != nil {
		return zero, err
	}
	return value, nil
}

// collect gives the rows of a query to fn, and repeats both where q's policies allow it: no row has been delivered to
// the caller yet.
func collect(ctx context.Context, q Querier, sql string, args []any, fn func(*Rows) error) error {
	if r, ok := q.(interface {
		collect(ctx context.Context, sql string, args []any, fn func(*Rows) error) error
	}); ok {
		return r.collect(ctx, sql, args, fn)
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	return rows.wrap(fn(rows))
}

func rowTo[T any]() pgx.RowToFunc[T] {
	if isRecord(reflect.TypeFor[T]()) {
		return pgx.RowToStructByName[T]
	}
	return pgx.RowTo[T]
}

// isRecord says whether t stands for a row and not for a single value. Values that are structs either scan themselves
// or have no exported field (time.Time, netip.Addr).
func isRecord(t reflect.Type) bool {
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[sql.Scanner]()) {
		return false
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() || f.Anonymous {
			return true
		}
	}
	return false
}
