package dbcore_test

import (
	"context"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lifeboat/dbcore"
)

// statements are what the contenders run, each with one integer as its argument.
type statements struct{ exec, query string }

// On the stub connection any text will do. On a server it is the one with the least work for it, because that leaves the
// most weight to what the client adds.
var (
	onStub   = statements{exec: "update t set n = $1", query: "select n from t where n = $1"}
	onServer = statements{exec: "select $1::int4", query: "select $1::int4"}
)

// contender is a way to run a statement, a query for one row and a transaction of one statement.
type contender struct {
	name            string
	exec, query, tx func(ctx context.Context) error
}

// barePool is pgxpool as its documentation has it, and what all others are measured against.
func barePool(pool *pgxpool.Pool, sql statements) contender {
	return contender{
		name: "pgxpool",
		exec: func(ctx context.Context) error {
			_, err := pool.Exec(ctx, sql.exec, 1)
			return err
		},
		query: func(ctx context.Context) error {
			rows, err := pool.Query(ctx, sql.query, 1)
			if err != nil {
				return err
			}
			defer rows.Close()
			var n int
			for rows.Next() {
				if err := rows.Scan(&n); err != nil {
					return err
				}
			}
			return rows.Err()
		},
		tx: func(ctx context.Context) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, sql.exec, 1)
				return err
			})
		},
	}
}

func withDBCore(q dbcore.Op, sql statements) contender {
	return contender{
		name: "dbcore",
		exec: func(ctx context.Context) error {
			_, err := q.Exec(ctx, sql.exec, 1)
			return err
		},
		query: func(ctx context.Context) error {
			rows, err := q.Query(ctx, sql.query, 1)
			if err != nil {
				return err
			}
			defer rows.Close()
			var n int
			for rows.Next() {
				if err := rows.Scan(&n); err != nil {
					return err
				}
			}
			return rows.Err()
		},
		tx: func(ctx context.Context) error {
			return q.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
				_, err := tx.Exec(ctx, sql.exec, 1)
				return err
			})
		},
	}
}

// withFailsafe is bare within failsafe-go's retry and circuit breaker, set up like dbcore's defaults.
func withFailsafe(bare contender) contender {
	retry := retrypolicy.NewBuilder[any]().WithMaxAttempts(3).WithBackoff(50*time.Millisecond, 10*time.Second).HandleIf(func(_ any, err error) bool {
		return pgconn.SafeToRetry(err)
	}).Build()
	breaker := circuitbreaker.NewBuilder[any]().WithFailureThreshold(5).WithDelay(30 * time.Second).WithSuccessThreshold(2).Build()
	executor := failsafe.With[any](retry, breaker)
	within := func(fn func(ctx context.Context) error) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			return executor.WithContext(ctx).Run(func() error { return fn(ctx) })
		}
	}
	return contender{name: "failsafe-go", exec: within(bare.exec), query: within(bare.query), tx: within(bare.tx)}
}

// withLoop is bare within the loop that one writes by hand: three attempts, and no breaker, budget or verdict.
func withLoop(bare contender) contender {
	within := func(fn func(ctx context.Context) error) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			var err error
			for attempt := range 3 {
				if err = fn(ctx); err == nil || !pgconn.SafeToRetry(err) || ctx.Err() != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(50 * time.Millisecond << attempt):
				}
			}
			return err
		}
	}
	return contender{name: "loop", exec: within(bare.exec), query: within(bare.query), tx: within(bare.tx)}
}

// stubContenders are bare pgxpool, the same once more, dbcore, and what else there is. What the second differs by is
// noise.
func stubContenders(tb testing.TB) []contender {
	tb.Helper()
	ctx := context.Background()
	db, err := dbcore.OpenStub(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	bare := func() contender {
		p, err := dbcore.OpenStubPool(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(p.Close)
		return barePool(p, onStub)
	}
	first, again := bare(), bare()
	again.name = "pgxpool again"
	return []contender{first, again, withDBCore(db.Op("orders"), onStub), withFailsafe(first), withLoop(first)}
}

// socketContenders all use one pool, that of the DB. With pools of their own, they would differ by the processor on which
// the kernel happened to put their server process more than by anything else: by 20 µs in the first try.
func socketContenders(tb testing.TB) []contender {
	tb.Helper()
	cfg := socketConfig()
	cfg.MaxOpenConns, cfg.MaxIdleConns = parallelConns, parallelConns
	db := openDB(tb, cfg)
	first := barePool(db.Pool(), onServer)
	again := first
	again.name = "pgxpool again"
	return []contender{first, again, withDBCore(db.Op("orders"), onServer), withFailsafe(first), withLoop(first)}
}

// parallelConns is at how many connections throughput is compared.
const parallelConns = 16

// kinds are the requests that are compared.
var kinds = []struct {
	name string
	of   func(contender) func(context.Context) error
}{
	{"exec", func(c contender) func(context.Context) error { return c.exec }},
	{"query", func(c contender) func(context.Context) error { return c.query }},
	{"tx", func(c contender) func(context.Context) error { return c.tx }},
}
