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

// Fallback runs fn, which makes one request, and if a circuit breaker rejected that, answers by fallback in its place:
// from a cache, say, or with a default. The request may be one of a DB or an Op, or go through Breaker.Do.
//
// fallback is for rejections only, of which it learns when requests may pass again. Every other error of fn is returned
// as it is, and so is a rejection that ended the repetition of a request of which an earlier attempt may have taken
// effect (ErrConnectionLost, ErrCommitAmbiguous): to answer as if nothing had happened would hide that. An error of
// fallback is returned as it is, too.
func Fallback[T any](fn func() (T, error), fallback func(*BreakerOpenError) (T, error)) (T, error) {
	result, err := fn()
	var rejected *BreakerOpenError
	if !errors.As(err, &rejected) || errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrCommitAmbiguous) {
		return result, err
	}
	return fallback(rejected)
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
