package verify

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/dbcore"
)

// Check is one of the owner's checks: a query of one value, and the text that it must give.
type Check struct {
	Name, SQL, Expect string
}

// SQL runs one of the owner's checks in a read-only transaction (level 7). A query that fails is a failed check: on a
// restored server a missing table is just what the owner wants to hear of. Only a lost connection is Unable.
func SQL(ctx context.Context, conn *dbcore.Conn, c Check) Finding {
	return timed(func() Finding {
		f := Finding{ID: c.Name, Level: 7, Expected: c.Expect}
		err := conn.RunTx(ctx, dbcore.TxOptions{ReadOnly: true}, func(ctx context.Context, tx *dbcore.Tx) error {
			rows, err := tx.Query(ctx, c.SQL)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := 0
			for rows.Next() {
				values, err := rows.Values()
				if err != nil {
					return err
				}
				if n++; n > 1 || len(values) != 1 {
					return fmt.Errorf("the query must give one row of one column, not %d columns, row %d", len(values), n)
				}
				f.Observed = text(values[0])
			}
			if err := rows.Err(); err != nil {
				return err
			}
			if n == 0 {
				return errors.New("the query gave no row")
			}
			return nil
		})
		switch {
		case err != nil && (conn.Closed() || ctx.Err() != nil):
			f.Outcome, f.Observed = Unable, err.Error()
		case err != nil:
			f.Outcome, f.Observed = Failed, err.Error()
		case f.Observed != c.Expect:
			f.Outcome = Failed
		default:
			f.Outcome = Passed
		}
		return f
	})
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// Catalog looks for what breaks silently after a restore on another host (level 6): indexes that are invalid, and
// collations whose version differs from what the indexes were built with.
func Catalog(ctx context.Context, conn *dbcore.Conn) Finding {
	return timed(func() Finding {
		f := Finding{ID: "catalog", Level: 6, Expected: "0 invalid indexes, 0 changed collations"}
		type counts struct{ Indexes, Collations int }
		got, err := dbcore.One[counts](ctx, conn, `
			select (select count(*) from pg_index where not indisvalid and indislive)::int as indexes,
			       ((select count(*) from pg_collation where collversion is not null
			           and collversion <> pg_collation_actual_version(oid)) +
			        (select count(*) from pg_database where datcollversion is not null
			           and datcollversion <> pg_database_collation_actual_version(oid)))::int as collations`)
		if err != nil {
			f.Outcome, f.Observed = Unable, err.Error()
			return f
		}
		f.Outcome, f.Observed = Passed, fmt.Sprintf("%d invalid indexes, %d changed collations", got.Indexes, got.Collations)
		if got.Indexes+got.Collations > 0 {
			f.Outcome = Failed
		}
		return f
	})
}
