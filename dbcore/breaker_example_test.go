package dbcore_test

import (
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

// A price that is a little old is better than none.
func ExampleFallback() {
	breaker, err := dbcore.NewBreaker("prices", dbcore.BreakerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	cached := 41
	price := func() (int, error) {
		return dbcore.Fallback(breaker,
			func() (int, error) { return 42, nil }, // ask the database
			nil,
			func(*dbcore.BreakerOpenError) (int, error) { return cached, nil })
	}
	fmt.Println(price())

	// The database is to be left alone for a while.
	if err := breaker.Force(dbcore.ModeForceOpen); err != nil {
		log.Fatal(err)
	}
	fmt.Println(price())
	// Output:
	// 42 <nil>
	// 41 <nil>
}
