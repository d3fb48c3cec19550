package dbcore_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
)

func TestBreakerConcurrently(t *testing.T) {
	var events atomic.Int64
	b := newBreaker(t, dbcore.BreakerConfig{
		OpenFor: time.Millisecond, ProbeTimeout: 2 * time.Millisecond, Interval: 10 * time.Millisecond,
		SlowCallRate: 0.5, SlowCall: time.Millisecond, MinimumCalls: 5, FailureRate: 0.5,
		OnStateChange: func(dbcore.BreakerEvent) { events.Add(1) },
	})
	// On a busy machine some time can pass before every mode has had its turn.
	began, seen := time.Now(), func() bool {
		c := b.Counts()
		return c.Opened > 0 && c.Rejected > 0 && events.Load() > 0
	}
	running := func() bool {
		d := time.Since(began)
		return d < 300*time.Millisecond || d < 30*time.Second && !seen()
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for running() {
				p, err := b.Enter()
				if err != nil {
					if !errors.Is(err, dbcore.ErrBreakerOpen) {
						t.Error(err)
					}
					continue
				}
				if rand.IntN(20) == 0 {
					continue // lost
				}
				p.Leave(dbcore.Health(rand.IntN(3)), time.Duration(rand.IntN(1500))*time.Microsecond)
				p.Leave(hFailure, 0)
			}
		})
	}
	wg.Go(func() {
		for running() {
			_ = b.Force(dbcore.BreakerMode(rand.IntN(4)))
			b.State()
			b.Counts()
			if rand.IntN(10) == 0 {
				b.Reset()
			}
		}
	})
	wg.Wait()
	if !seen() {
		t.Errorf("counts %+v and %d events: want some of everything", b.Counts(), events.Load())
	}
}

func TestBreakerLetsNoMoreProbesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{HalfOpenRequests: 3})
		for range 50 {
			halfOpenBreaker(t, b)
			permits := make(chan dbcore.Permit, 100)
			for range cap(permits) {
				go func() {
					if p, err := b.Enter(); err == nil {
						permits <- p
					}
				}()
			}
			synctest.Wait()
			if n := len(permits); n != 3 {
				t.Fatalf("%d probes at once, want 3", n)
			}
			for range 3 {
				p := <-permits
				go p.Leave(hAlive, 0)
			}
			synctest.Wait()
			wantBreaker(t, b, dbcore.BreakerClosed)
		}
	})
}
