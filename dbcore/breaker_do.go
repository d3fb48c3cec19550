package dbcore

import (
	"context"
	"errors"
	"time"
)

// Do runs fn if the breaker lets it pass, and counts what judge makes of its error. fn runs once at most, on the
// caller's goroutine. judge must not be nil unless every error of fn is a failure of the server: nil stands for
// "no error is HealthAlive, an ended context HealthUnknown, everything else HealthFailure". A panic of fn or judge
// passes through, says nothing about the server, and is not counted.
//
// Errors: that of fn as it is, or the breaker's *BreakerOpenError, after which a retry is safe because fn did not run.
func (b *Breaker) Do(fn func() error, judge func(error) Health) error {
	permit, err := b.Enter()
	if err != nil {
		return err
	}
	return permit.run(fn, judge)
}

// Fallback is Breaker.Do for a function with a result, and with a way out: if the breaker rejects the request, fallback
// answers in its place, say from a cache or with a default. It is told when the breaker may let requests pass again.
//
// fallback is for a rejection by b only. An error of fn is returned as it is, because what it has done nobody knows
// here, and so is the rejection by another breaker within fn. A nil fallback makes Fallback return the rejection, as Do
// does. An error of fallback is returned as it is.
func Fallback[T any](b *Breaker, fn func() (T, error), judge func(error) Health, fallback func(*BreakerOpenError) (T, error)) (T, error) {
	var result T
	permit, err := b.Enter()
	if rejected := (*BreakerOpenError)(nil); errors.As(err, &rejected) && fallback != nil {
		return fallback(rejected)
	}
	if err != nil {
		return result, err
	}
	err = permit.run(func() (err error) {
		result, err = fn()
		return err
	}, judge)
	return result, err
}

// run runs fn and gives the permit back, however fn ends.
func (p Permit) run(fn func() error, judge func(error) Health) error {
	if judge == nil {
		judge = judgeAnyError
	}
	began := time.Now()
	health := HealthUnknown
	defer func() { p.Leave(health, time.Since(began)) }()
	err := fn()
	health = judge(err)
	return err
}

func judgeAnyError(err error) Health {
	switch {
	case err == nil:
		return HealthAlive
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return HealthUnknown
	}
	return HealthFailure
}
