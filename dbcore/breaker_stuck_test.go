package dbcore_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"lifeboat/dbcore"
)

// TestGobreakerAlone is why the breaker counts its probes itself and books outcomes in one step. If it fails, gobreaker
// has learnt better.
func TestGobreakerAlone(t *testing.T) {
	settings := gobreaker.Settings{Interval: time.Minute, BucketPeriod: 6 * time.Second, Timeout: 30 * time.Second}
	t.Run("is half-open for ever after a lost probe", inBubble(func(t *testing.T) {
		b := gobreaker.NewTwoStepCircuitBreaker[struct{}](settings)
		for range 6 {
			done, _ := b.Allow()
			done(errors.New("down"))
		}
		passTime(31 * time.Second)
		if _, err := b.Allow(); err != nil {
			t.Fatal(err)
		}
		passTime(10 * 365 * 24 * time.Hour)
		if _, err := b.Allow(); !errors.Is(err, gobreaker.ErrTooManyRequests) {
			t.Errorf("after ten years it says %v", err)
		}
	}))
	t.Run("does not count what hung for longer than its interval", inBubble(func(t *testing.T) {
		b := gobreaker.NewTwoStepCircuitBreaker[struct{}](settings)
		for range 100 {
			done, _ := b.Allow()
			passTime(61 * time.Second)
			done(errors.New("down"))
		}
		if b.State() != gobreaker.StateClosed {
			t.Error("it opened")
		}
	}))
}

func TestBreakerNeverSticks(t *testing.T) {
	// Each loses probes in its own way, from half-open on.
	ways := map[string]func(t *testing.T, b *dbcore.Breaker){
		"forgotten permits": func(t *testing.T, b *dbcore.Breaker) {
			mustEnter(t, b)
			mustEnter(t, b)
		},
		"one forgotten, one good": func(t *testing.T, b *dbcore.Breaker) {
			mustEnter(t, b)
			leaveAll(t, b, 1, hAlive)
			wantRejected(t, b)
		},
		"forgotten in monitor mode": func(t *testing.T, b *dbcore.Breaker) {
			if err := b.Force(dbcore.ModeMonitor); err != nil {
				t.Fatal(err)
			}
			mustEnter(t, b)
			mustEnter(t, b)
			if err := b.Force(dbcore.ModeEnforce); err != nil {
				t.Fatal(err)
			}
		},
		"garbage": func(t *testing.T, b *dbcore.Breaker) {
			mustEnter(t, b)
			mustEnter(t, b)
			runtime.GC()
		},
	}
	for name, lose := range ways {
		t.Run(name, inBubble(func(t *testing.T) {
			b := newBreaker(t, dbcore.BreakerConfig{ProbeTimeout: 10 * time.Second})
			halfOpenBreaker(t, b)
			lose(t, b)
			passTime(10*time.Second - 1)
			wantBreaker(t, b, dbcore.BreakerHalfOpen)
			passTime(1)
			wantBreaker(t, b, dbcore.BreakerOpen)
			if c := b.Counts(); c.ProbesLost != 1 {
				t.Errorf("%d probes lost, want 1: the first opens the breaker", c.ProbesLost)
			}
			passTime(36 * time.Second)
			leaveAll(t, b, 2, hAlive)
			wantBreaker(t, b, dbcore.BreakerClosed)
		}))
	}
	t.Run("a hung function", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{ProbeTimeout: 10 * time.Second})
		halfOpenBreaker(t, b)
		release := make(chan struct{})
		for range 2 {
			go func() {
				_ = b.Do(func() error { <-release; return errors.New("timeout") }, nil)
			}()
		}
		synctest.Wait()
		wantRejected(t, b)
		passTime(10 * time.Second)
		wantBreaker(t, b, dbcore.BreakerOpen)
		passTime(36 * time.Second)
		leaveAll(t, b, 1, hAlive)
		close(release) // the old failures do not count against the new probes
		synctest.Wait()
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		leaveAll(t, b, 1, hAlive)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	for name, end := range map[string]func(){
		"a function that panics":             func() { panic("bug") },
		"a function that ends its goroutine": runtime.Goexit,
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			b := newBreaker(t, dbcore.BreakerConfig{})
			halfOpenBreaker(t, b)
			for range 10 {
				var wg sync.WaitGroup
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer func() { _ = recover() }()
					_ = b.Do(func() error { end(); return nil }, nil)
				}()
				wg.Wait()
			}
			wantBreaker(t, b, dbcore.BreakerHalfOpen)
			leaveAll(t, b, 2, hAlive) // there is room at once
			wantBreaker(t, b, dbcore.BreakerClosed)
		}))
	}
}

func TestBreakerAcceptsLateProbes(t *testing.T) {
	// Each request takes 100 s, much longer than ProbeTimeout and OpenFor, as a nightly report does.
	cfg := dbcore.BreakerConfig{ProbeTimeout: 10 * time.Second}
	lapseTwice := func(t *testing.T, b *dbcore.Breaker) (probes []dbcore.Permit) {
		halfOpenBreaker(t, b)
		for range 2 {
			probes = append(probes, mustEnter(t, b), mustEnter(t, b))
			passTime(10 * time.Second)
			wantBreaker(t, b, dbcore.BreakerOpen)
			passTime(36 * time.Second)
			wantBreaker(t, b, dbcore.BreakerHalfOpen)
		}
		return probes
	}
	t.Run("that were answered", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		probes := lapseTwice(t, b)
		probes[0].Leave(hAlive, 100*time.Second)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		probes[0].Leave(hAlive, 100*time.Second) // the same again is nothing new
		probes[1].Leave(hUnknown, 100*time.Second)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		probes[2].Leave(hAlive, 100*time.Second)
		wantBreaker(t, b, dbcore.BreakerClosed)
		probes[3].Leave(hFailure, 100*time.Second)
		if c := b.Counts(); c.Failures != 0 {
			t.Errorf("counts %+v: a late probe counts in the closed state", c)
		}
	}))
	t.Run("but not with a failure between", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		probes := lapseTwice(t, b)
		probes[0].Leave(hAlive, 100*time.Second)
		probes[1].Leave(hFailure, 100*time.Second)
		probes[2].Leave(hAlive, 100*time.Second)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		probes[3].Leave(hAlive, 100*time.Second)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("nor those of before a failure", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		probes := lapseTwice(t, b)
		leaveAll(t, b, 1, hFailure)
		for _, p := range probes {
			p.Leave(hAlive, 100*time.Second)
		}
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
}

func TestBreakerSurvivesJumpsOfTheClock(t *testing.T) {
	const years = 100 * 365 * 24 * time.Hour
	for _, buckets := range []int{2, 10} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, dbcore.BreakerConfig{Buckets: buckets, SlowCallRate: 0.9, SlowCall: time.Second})
			leaveAll(t, b, 4, hFailure)
			passTime(years)
			if c := b.Counts(); c.Failures != 0 || c.ConsecutiveFailures != 0 {
				t.Errorf("counts %+v after a hundred years", c)
			}
			halfOpenBreaker(t, b)
			mustEnter(t, b)
			passTime(years / 2) // the probe lapses, the open time passes
			wantBreaker(t, b, dbcore.BreakerHalfOpen)
			leaveAll(t, b, 2, hAlive)
			wantBreaker(t, b, dbcore.BreakerClosed)
			leaveAll(t, b, 5, hFailure)
			wantBreaker(t, b, dbcore.BreakerOpen)
		})
	}
}

func TestBreakerForgetsPermitsThatAreLost(t *testing.T) {
	b := newBreaker(t, dbcore.BreakerConfig{})
	lose := func(n int) uint64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			mustEnter(t, b)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
	}
	lose(1000)
	if grown := lose(100_000); grown > 1<<20 {
		t.Errorf("100,000 lost permits left %d bytes behind", grown)
	}
	leaveAll(t, b, 5, hFailure)
	wantBreaker(t, b, dbcore.BreakerOpen)
}
