package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
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
		_ = b.Do(func() error { return &dbcore.BreakerOpenError{Name: "another"} }, nil)
		_ = b.Do(func() error { return nil }, nil)
		_ = b.Do(func() error { return down }, nil)
		if c := b.Counts(); c.Unknown != 21 || c.Alive != 1 || c.Failures != 1 {
			t.Errorf("counts %+v, want 21 unknown, 1 alive, 1 failure", c)
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

func TestOrElse(t *testing.T) {
	rejection := &dbcore.BreakerOpenError{Name: "orders", Until: time.Now().Add(time.Minute)}
	noCache := errors.New("nothing cached")
	for _, tc := range []struct {
		name     string
		err      error
		fallback error
		want     string
		wantErr  error
	}{
		{"success", nil, nil, "fresh", nil},
		{"failure", io.ErrUnexpectedEOF, nil, "fresh", io.ErrUnexpectedEOF},
		{"rejected", rejection, nil, "cached: orders", nil},
		{"rejected, wrapped", fmt.Errorf("read price: %w", rejection), nil, "cached: orders", nil},
		{"rejected at a repetition", &dbcore.RetryError{Attempts: 2, Err: rejection}, nil, "cached: orders", nil},
		{"rejected, fallback fails", rejection, noCache, "cached: orders", noCache},
		{"an earlier attempt may have taken effect", &dbcore.RetryError{Attempts: 2, Err: rejection, Open: dbcore.ErrConnectionLost}, nil, "fresh", dbcore.ErrConnectionLost},
		{"an earlier attempt may have committed", &dbcore.RetryError{Attempts: 2, Err: rejection, Open: dbcore.ErrCommitAmbiguous}, nil, "fresh", dbcore.ErrCommitAmbiguous},
	} {
		got, err := dbcore.OrElse(
			func() (string, error) { return "fresh", tc.err },
			func(open *dbcore.BreakerOpenError) (string, error) { return "cached: " + open.Name, tc.fallback })
		if got != tc.want || !errors.Is(err, tc.wantErr) || (err == nil) != (tc.wantErr == nil) {
			t.Errorf("%s: %q, %v, want %q, %v", tc.name, got, err, tc.want, tc.wantErr)
		}
	}
	if got, err := dbcore.OrElse(func() (string, error) { return "fresh", rejection }, nil); got != "fresh" || !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Errorf("without a fallback: %q, %v, want what the function returned", got, err)
	}
}
