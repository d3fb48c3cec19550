package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

// exampleDB opens the server that the tests have started.
func exampleDB(opts ...dbcore.Option) *dbcore.DB {
	cfg, err := dbcore.ParseDSN(exampleDSN())
	if err != nil {
		log.Fatal(err)
	}
	db, err := dbcore.Open(context.Background(), cfg, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return db
}

// What an error means depends on where it comes: the same lost connection proves a rollback before COMMIT, and nothing
// after it.
func ExampleClassify() {
	ended := &pgconn.PgError{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}
	for _, phase := range []dbcore.Phase{dbcore.PhaseConnect, dbcore.PhaseTx, dbcore.PhaseAutocommit, dbcore.PhaseCommit} {
		fmt.Printf("%v: %v\n", phase, dbcore.Classify(ended, phase).Action)
	}
	// Output:
	// connect: retry
	// transaction: retry
	// autocommit: retry if idempotent
	// commit: ambiguous
}

// Running it twice is the same as running it once, so it may be repeated even if nobody knows whether it ran.
func ExampleOp_Idempotent() {
	ctx := context.Background()
	db := exampleDB()
	defer db.Close()
	if _, err := db.Exec(ctx, "drop table if exists settings; create table settings (name text primary key, value text)"); err != nil {
		log.Fatal(err)
	}

	put := db.Op("settings.put").Idempotent()
	for range 2 {
		if _, err := put.Exec(ctx, "insert into settings values ($1, $2) on conflict (name) do update set value = excluded.value", "color", "blue"); err != nil {
			log.Fatal(err)
		}
	}
	color, err := dbcore.One[string](ctx, db.Op("settings.get").Idempotent(), "select value from settings where name = $1", "color")
	fmt.Println(color, err)
	// Output: blue <nil>
}

// If the answer to COMMIT is lost, the transaction is looked for before anybody is told.
func ExampleTxOptions_verify() {
	ctx := context.Background()
	db := exampleDB()
	defer db.Close()
	if err := dbcore.CreateTokenTable(ctx, db, ""); err != nil {
		log.Fatal(err)
	}

	var report dbcore.TxReport
	opts := dbcore.TxOptions{Verify: dbcore.VerifyToken, Report: &report}
	err := db.RunTx(ctx, opts, func(ctx context.Context, tx *dbcore.Tx) error {
		_, err := tx.Exec(ctx, "create table if not exists payments (id int)")
		return err
	})
	switch {
	case err == nil:
		fmt.Println("committed, attempts:", report.Attempts)
	case errors.Is(err, dbcore.ErrCommitAmbiguous):
		fmt.Println("not even verification could tell: look before you run it again")
	default:
		fmt.Println("not committed")
	}
	// Output: committed, attempts: 1
}

// A step that may fail without giving up the whole.
func ExampleTx_Savepoint() {
	ctx := context.Background()
	db := exampleDB()
	defer db.Close()
	err := db.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if _, err := tx.Exec(ctx, "create temporary table seats (seat text unique) on commit drop"); err != nil {
			return err
		}
		for _, seat := range []string{"12A", "12A", "12B"} {
			err := tx.Savepoint(ctx, func(ctx context.Context, tx *dbcore.Tx) error {
				_, err := tx.Exec(ctx, "insert into seats values ($1)", seat)
				return err
			})
			if dbcore.SQLState(err) == "23505" {
				fmt.Println(seat, "is taken")
			} else if err != nil {
				return err
			}
		}
		taken, err := dbcore.Collect[string](ctx, tx, "select seat from seats order by seat")
		fmt.Println(taken)
		return err
	})
	fmt.Println(err)
	// Output:
	// 12A is taken
	// [12A 12B]
	// <nil>
}

// A snapshot for a long, consistent read, which is valid while it is read and disturbs nobody.
func ExampleTxOptions_snapshot() {
	ctx := context.Background()
	db := exampleDB()
	defer db.Close()
	opts := dbcore.TxOptions{Isolation: dbcore.Serializable, ReadOnly: true, Deferrable: true}
	err := db.RunTx(ctx, opts, func(ctx context.Context, tx *dbcore.Tx) error {
		_, err := tx.Exec(ctx, "create table oops (a int)")
		return err
	})
	fmt.Println(dbcore.SQLState(err))
	// Output: 25006
}

// How long to wait before the next attempt: at most, and at random below it.
func ExampleRetryConfig_Delay() {
	var c dbcore.RetryConfig
	for attempt := 1; attempt <= 4; attempt++ {
		most := c.Delay(dbcore.ClassTransient, attempt, math.Nextafter(1, 0))
		fmt.Println(most.Round(time.Millisecond))
	}
	// Output:
	// 50ms
	// 100ms
	// 200ms
	// 400ms
}

// All pools of one cluster share what may be spent on repetitions.
func ExampleWithBudget() {
	budget := dbcore.NewBudget(20)
	primary := exampleDB(dbcore.WithBudget(budget))
	defer primary.Close()
	replica := exampleDB(dbcore.WithBudget(budget))
	defer replica.Close()
	fmt.Println(budget.Left())
	// Output: 20
}

// A server that is not there yet is waited for; a database that does not exist is not.
func ExampleConnectWithRetry() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg, err := dbcore.ParseDSN(exampleDSN())
	if err != nil {
		log.Fatal(err)
	}
	db, err := dbcore.ConnectWithRetry(ctx, cfg, dbcore.RetryConfig{MaxAttempts: 10})
	if err != nil {
		log.Fatal(err)
	}
	db.Close()

	cfg.DBName = "nowhere"
	_, err = dbcore.ConnectWithRetry(ctx, cfg, dbcore.RetryConfig{MaxAttempts: 10})
	var refused *dbcore.ConnectError
	fmt.Println(errors.As(err, &refused), refused.Code, refused.Hint)
	// Output: true no_database create database "nowhere", or name another
}

// What to do while the database is away.
func ExampleOrElse() {
	ctx := context.Background()
	db := exampleDB()
	defer db.Close()
	op := db.Op("greeting")
	greet := func() (string, error) {
		return dbcore.OrElse(func() (string, error) {
			return dbcore.One[string](ctx, op, "select 'hello'::text")
		}, func(*dbcore.BreakerOpenError) (string, error) { return "hello, from the cache", nil })
	}
	fmt.Println(greet())
	_ = op.Breaker().Force(dbcore.ModeForceOpen)
	fmt.Println(greet())
	// Output:
	// hello <nil>
	// hello, from the cache <nil>
}
