package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"lifeboat/dbcore"
)

func ExampleBreaker_Do() {
	events := make(chan dbcore.BreakerEvent, 1)
	breaker, err := dbcore.NewBreaker("orders", dbcore.BreakerConfig{
		ConsecutiveFailures: 3,
		OnStateChange:       func(e dbcore.BreakerEvent) { events <- e },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer breaker.Close()

	for range 4 {
		err := breaker.Do(func() error { return errors.New("connection refused") }, nil)
		var open *dbcore.BreakerOpenError
		if errors.As(err, &open) {
			fmt.Println("not sent:", open.Reason)
		} else {
			fmt.Println("failed:", err)
		}
	}
	e := <-events
	fmt.Println(e.Name, "went from", e.From, "to", e.To)
	// Output:
	// failed: connection refused
	// failed: connection refused
	// failed: connection refused
	// not sent: 3 consecutive failures
	// orders went from closed to open
}

// The database is to be left alone for a while.
func ExampleDB_ForceBreakers() {
	ctx := context.Background()
	cfg, _ := dbcore.ParseDSN(exampleDSN())
	db, err := dbcore.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ask := func() { fmt.Println(dbcore.One[int](ctx, db.Op("answer.read"), "select 42")) }
	ask()
	if err := db.ForceBreakers(dbcore.ModeForceOpen); err != nil {
		log.Fatal(err)
	}
	ask()
	if err := db.ForceBreakers(dbcore.ModeEnforce); err != nil {
		log.Fatal(err)
	}
	ask()
	// Output:
	// 42 <nil>
	// 0 circuit breaker "answer.read" is forced open, nothing was sent
	// 42 <nil>
}
