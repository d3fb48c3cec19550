package verify

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"lifeboat/dbcore"
)

// Check is one of the owner's checks: a query of one value, and the text that it must give.
type Check struct {
	Name, SQL, Expect string
}

var errNoText = errors.New("the query gives a value that is neither text, number nor boolean: cast it in the query, (...)::text")

// SQL runs one of the owner's checks in a read-only transaction (level 7). A query that fails is a failed check: on a
// restored server a missing table is just what the owner wants to hear of. Unable is what says nothing about the data:
// a lost connection, a context that ended, a value that cannot be compared.
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
				if f.Observed, err = text(values[0]); err != nil {
					return err
				}
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
		case err != nil && (conn.Closed() || ctx.Err() != nil || errors.Is(err, errNoText)):
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

// text prints a value as PostgreSQL casts it to text. NULL is the empty text, as psql shows it. What has no plain text
// here is refused with the remedy, rather than compared in a form that only Go knows.
func text(v any) (string, error) {
	if valuer, ok := v.(driver.Valuer); ok { // numeric
		plain, err := valuer.Value()
		if err != nil {
			return "", err
		}
		v = plain
	}
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int16, int32, int64, uint32:
		return fmt.Sprint(v), nil
	case float32:
		return float(float64(v), 32), nil
	case float64:
		return float(v, 64), nil
	}
	return "", errNoText
}

// float is float8out and float4out (shortest digits that read back the same, exponents beyond 15 and 6 digits).
func float(v float64, bits int) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 0):
		return strings.TrimPrefix(strings.Replace(fmt.Sprint(v), "Inf", "Infinity", 1), "+")
	}
	most := 1e15
	if bits == 32 {
		most = 1e6
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= most) {
		return strconv.FormatFloat(v, 'e', -1, bits)
	}
	return strconv.FormatFloat(v, 'f', -1, bits)
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
