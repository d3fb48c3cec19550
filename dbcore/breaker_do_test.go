package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
)

func TestBreakerDo(t *testing.T) {
	down := errors.New("down")
	judge := func(err error) dbcore.Health {
		if errors.Is(err, down) {
			return hFailure
		}
		return hAlive
	}
	t.Run("returns what the function returns", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		answered := errors.New("duplicate key")
		for range 100 {
			if err := b.Do(func() error { return answered }, judge); err != answered { //nolint:errorlint // not even wrapped
				t.Fatal(err)
			}
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
		for range 5 {
			if err := b.Do(func() error { return down }, judge); err != down { //nolint:errorlint // not even wrapped
				t.Fatal(err)
			}
		}
		err := b.Do(func() error { t.Error("ran though the breaker is open"); return nil }, judge)
		if !errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Fatal(err)
		}
	}))
	t.Run("without a judge", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		for range 10 {
			_ = b.Do(func() error { return fmt.Errorf("query: %w", context.DeadlineExceeded) }, nil)
			_ = b.Do(func() error { return context.Canceled }, nil)
		}
		_ = b.Do(func() error { return nil }, nil)
		_ = b.Do(func() error { return down }, nil)
		if c := b.Counts(); c.Unknown != 20 || c.Alive != 1 || c.Failures != 1 {
			t.Errorf("counts %+v, want 20 unknown, 1 alive, 1 failure", c)
		}
	}))
	t.Run("measures how long it took", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{SlowCallRate: 1, SlowCall: time.Second, MinimumCalls: 3})
		for range 3 {
			_ = b.Do(func() error { passTime(time.Second); return nil }, judge)
		}
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
}

func TestFallback(t *testing.T) {
	down := errors.New("down")
	ask := func(b *dbcore.Breaker, answer string, err error) (string, error) {
		return dbcore.Fallback(b, func() (string, error) { return answer, err }, nil,
			func(open *dbcore.BreakerOpenError) (string, error) {
				return fmt.Sprintf("cached, %s for %t", open.Name, time.Until(open.Until) > 0), nil
			})
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		if got, err := ask(b, "fresh", nil); got != "fresh" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		for range 5 {
			if got, err := ask(b, "half", down); got != "half" || !errors.Is(err, down) {
				t.Errorf("%q, %v: want the function's own result and error, no fallback", got, err)
			}
		}
		if got, err := ask(b, "fresh", nil); got != "cached, orders for true" || err != nil {
			t.Errorf("%q, %v: want the fallback", got, err)
		}
		if _, err := dbcore.Fallback(b, func() (int, error) { return 1, nil }, nil, nil); !errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Errorf("%v: want the rejection if there is no fallback", err)
		}
		// The rejection by another breaker within the function is the function's error.
		outer := newBreaker(t, dbcore.BreakerConfig{})
		_, err := ask(b, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ask(outer, "inner", mustReject(t, b)); got != "inner" || !errors.Is(err, dbcore.ErrBreakerOpen) {
			t.Errorf("%q, %v: want the function's own result and error, no fallback", got, err)
		}
	})
}
