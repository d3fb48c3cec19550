package dbcore

import (
	"context"
	"errors"
	"time"
)

// Do runs fn if the breaker lets it pass, and counts what judge makes of its error. fn runs once at most, on the
// caller's goroutine. A nil judge takes every error for a failure of the server but that of an ended context and the
// rejection by another breaker, which say nothing; see Classify for a better one. A panic of fn or judge passes through,
// says nothing about the server, and is not counted.
//
// The requests of a DB and its Ops go through their breakers already: do not put them into Do of the same one.
//
// Errors: that of fn as it is, or the breaker's *BreakerOpenError, after which a retry is safe because fn did not run.
func (b *Breaker) Do(fn func() error, judge func(error) Health) error {
	permit, err := b.Enter()
	if err != nil {
		return err
	}
	if judge == nil {
		judge = judgeAnyError
	}
	began := time.Now()
	health := HealthUnknown
	defer func() { permit.Leave(health, time.Since(began)) }() // however fn ends
	err = fn()
	health = judge(err)
	return err
}

func judgeAnyError(err error) Health {
	switch {
	case err == nil:
		return HealthAlive
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrBreakerOpen):
		return HealthUnknown
	}
	return HealthFailure
}
