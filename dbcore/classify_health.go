package dbcore

import "errors"

// ErrBreakerOpen says that a circuit breaker let nothing pass: the database has just failed too often. Nothing was
// sent. *BreakerOpenError says until when.
var ErrBreakerOpen = errors.New("circuit breaker is open")

// Health is what an error says about the server, which is what a circuit breaker counts.
type Health int

// What an error says.
const (
	// HealthUnknown: nothing, for instance because the caller gave up. Not counted.
	HealthUnknown Health = iota
	// HealthAlive: the server answered, whatever it answered. Counted as a success.
	HealthAlive
	// HealthFailure: the server could not be reached, or could not work. Counted as a failure.
	HealthFailure
)
