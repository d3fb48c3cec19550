package dbcore_test

import (
	"context"
	"fmt"
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

// The statements of the overhead's benchmarks.
const (
	stubUpdate = "update t set n = $1"
	stubSelect = "select n from t where n = $1"
)

// contender is a way to run a statement, a query for one row and a transaction of one statement.
type contender struct {
	name            string
	exec, query, tx func(ctx context.Context) error
}

// barePool is pgxpool as its documentation has it, and what all others are measured against.
func barePool(pool *pgxpool.Pool) contender {
	return contender{
		name: "pgxpool",
		exec: func(ctx context.Context) error {
			_, err := pool.Exec(ctx, stubUpdate, 1)
			return err
		},
		query: func(ctx context.Context) error {
			rows, err := pool.Query(ctx, stubSelect, 1)
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
				_, err := tx.Exec(ctx, stubUpdate, 1)
				return err
			})
		},
	}
}

func withDBCore(q dbcore.Op) contender {
	return contender{
		name: "dbcore",
		exec: func(ctx context.Context) error {
			_, err := q.Exec(ctx, stubUpdate, 1)
			return err
		},
		query: func(ctx context.Context) error {
			rows, err := q.Query(ctx, stubSelect, 1)
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
				_, err := tx.Exec(ctx, stubUpdate, 1)
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

// stubContenders run on stub connections. The two bare ones are the same thing twice: what differs between them is noise.
func stubContenders(tb testing.TB) (bare, again, core contender, others []contender) {
	tb.Helper()
	pool := func() contender {
		p, err := dbcore.OpenStubPool(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(p.Close)
		return barePool(p)
	}
	db, err := dbcore.OpenStub(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	bare, again = pool(), pool()
	again.name = "pgxpool again"
	return bare, again, withDBCore(db.Op("orders")), []contender{withFailsafe(pool()), withLoop(pool())}
}

// BenchmarkStub has each contender alone, for profiles. TestOverhead compares them.
func BenchmarkStub(b *testing.B) {
	bare, _, core, others := stubContenders(b)
	for _, c := range append([]contender{bare, core}, others...) {
		for what, fn := range c.all() {
			b.Run(fmt.Sprintf("%s/%s", what, c.name), func(b *testing.B) {
				ctx := context.Background()
				b.ReportAllocs()
				began := cpuTime()
				for b.Loop() {
					if err := fn(ctx); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func (c contender) all() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{"exec": c.exec, "query": c.query, "tx": c.tx}
}
