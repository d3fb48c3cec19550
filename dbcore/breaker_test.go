package dbcore_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
)

// inBubble runs a test with a clock of its own, which stands still while anything can run.
func inBubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, f) }
}

// passTime lets time pass, and everything happen that is due by then.
func passTime(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func newBreaker(t *testing.T, cfg dbcore.BreakerConfig) *dbcore.Breaker {
	t.Helper()
	b, err := dbcore.NewBreaker("orders", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustEnter(t *testing.T, b *dbcore.Breaker) dbcore.Permit {
	t.Helper()
	p, err := b.Enter()
	if err != nil {
		t.Fatalf("a request was rejected: %v", err)
	}
	return p
}

func wantRejected(t *testing.T, b *dbcore.Breaker) {
	t.Helper()
	_ = mustReject(t, b)
}

func mustReject(t *testing.T, b *dbcore.Breaker) *dbcore.BreakerOpenError {
	t.Helper()
	_, err := b.Enter()
	var open *dbcore.BreakerOpenError
	if !errors.As(err, &open) || !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Fatalf("Enter says %v, want a *BreakerOpenError that is ErrBreakerOpen", err)
	}
	return open
}

// leaveAll has n requests pass that end at once.
func leaveAll(t *testing.T, b *dbcore.Breaker, n int, h dbcore.Health) {
	t.Helper()
	for range n {
		mustEnter(t, b).Leave(h, 0)
	}
}

func wantBreaker(t *testing.T, b *dbcore.Breaker, want dbcore.BreakerState) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("the breaker is %s, want %s; counts %+v", got, want, b.Counts())
	}
}

// openBreaker opens a closed breaker and returns when it lets probes pass.
func openBreaker(t *testing.T, b *dbcore.Breaker) time.Time {
	t.Helper()
	leaveAll(t, b, 5, dbcore.HealthFailure)
	wantBreaker(t, b, dbcore.BreakerOpen)
	return mustReject(t, b).Until
}

func halfOpenBreaker(t *testing.T, b *dbcore.Breaker) {
	t.Helper()
	passTime(time.Until(openBreaker(t, b)))
	wantBreaker(t, b, dbcore.BreakerHalfOpen)
}

const (
	hAlive   = dbcore.HealthAlive
	hFailure = dbcore.HealthFailure
	hUnknown = dbcore.HealthUnknown
)

func TestBreakerOpensOnConsecutiveFailures(t *testing.T) {
	t.Run("five by default", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		leaveAll(t, b, 4, hFailure)
		wantBreaker(t, b, dbcore.BreakerClosed)
		leaveAll(t, b, 1, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
		err := mustReject(t, b)
		if d := time.Until(err.Until); d <= 30*time.Second || d > 36*time.Second {
			t.Errorf("open for %s, want 30 s and up to a fifth more", d)
		}
		for _, want := range []string{"orders", "nothing was sent", "5 consecutive failures"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
	}))
	t.Run("a success begins anew", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		for range 100 {
			leaveAll(t, b, 4, hFailure)
			leaveAll(t, b, 1, hAlive)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("forgotten after the interval", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		leaveAll(t, b, 4, hFailure)
		passTime(61 * time.Second)
		leaveAll(t, b, 4, hFailure)
		wantBreaker(t, b, dbcore.BreakerClosed)
		passTime(30 * time.Second) // half an interval: nothing is forgotten
		leaveAll(t, b, 1, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
	t.Run("turned off", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{ConsecutiveFailures: math.MaxUint32})
		leaveAll(t, b, 1000, hFailure)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
}

func TestBreakerOpensOnFailureRate(t *testing.T) {
	cfg := dbcore.BreakerConfig{FailureRate: 0.5, MinimumCalls: 10}
	pair := func(t *testing.T, b *dbcore.Breaker) {
		leaveAll(t, b, 1, hAlive)
		leaveAll(t, b, 1, hFailure)
	}
	t.Run("not before the minimum", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		for range 4 {
			pair(t, b)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
		pair(t, b)
		wantBreaker(t, b, dbcore.BreakerOpen)
		if got := mustReject(t, b).Reason; got != "5 of 10 calls failed" {
			t.Errorf("reason %q", got)
		}
	}))
	t.Run("not below the rate", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		for range 500 {
			leaveAll(t, b, 2, hAlive)
			leaveAll(t, b, 1, hFailure)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("old calls are forgotten a bucket at a time", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		leaveAll(t, b, 20, hAlive)
		passTime(30 * time.Second)
		for range 2 {
			leaveAll(t, b, 4, hFailure)
			leaveAll(t, b, 1, hAlive)
		}
		wantBreaker(t, b, dbcore.BreakerClosed) // 8 of 30
		if c := b.Counts(); c.Alive != 22 || c.Failures != 8 {
			t.Errorf("counts %+v, want 22 alive and 8 failures", c)
		}
		passTime(31 * time.Second)
		if c := b.Counts(); c.Alive != 2 || c.Failures != 8 {
			t.Errorf("counts %+v, want 2 alive and 8 failures after the first 20 calls are a minute old", c)
		}
		leaveAll(t, b, 1, hFailure) // 9 of 11
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
	t.Run("off by default", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		for range 1000 {
			leaveAll(t, b, 4, hFailure)
			leaveAll(t, b, 1, hAlive)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
}

func TestBreakerOpensOnSlowCalls(t *testing.T) {
	cfg := dbcore.BreakerConfig{SlowCallRate: 0.5, SlowCall: time.Second, MinimumCalls: 10}
	slow := func(t *testing.T, b *dbcore.Breaker, n int, h dbcore.Health, d time.Duration) {
		for range n {
			mustEnter(t, b).Leave(h, d)
		}
	}
	t.Run("answered, but slow", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		slow(t, b, 5, hAlive, time.Second-1)
		slow(t, b, 4, hAlive, time.Second)
		wantBreaker(t, b, dbcore.BreakerClosed)
		slow(t, b, 1, hAlive, time.Second)
		wantBreaker(t, b, dbcore.BreakerOpen)
		if got := mustReject(t, b).Reason; got != "5 of 10 calls took 1s or longer" {
			t.Errorf("reason %q", got)
		}
	}))
	t.Run("callers who gave up after waiting for long", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		slow(t, b, 10, hUnknown, 2*time.Second)
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
	t.Run("callers who gave up early say nothing", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		slow(t, b, 4, hAlive, time.Second)
		slow(t, b, 1000, hUnknown, time.Millisecond)
		wantBreaker(t, b, dbcore.BreakerClosed)
		if c := b.Counts(); c.Slow != 4 || c.Alive != 4 || c.Unknown != 1000 {
			t.Errorf("counts %+v", c)
		}
	}))
	t.Run("forgotten after the interval", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		slow(t, b, 9, hAlive, time.Second)
		passTime(30 * time.Second)
		slow(t, b, 20, hAlive, 0)
		passTime(30 * time.Second)
		if c := b.Counts(); c.Slow != 0 || c.Alive != 20 {
			t.Errorf("counts %+v, want the 9 slow calls forgotten and the 20 others not", c)
		}
		slow(t, b, 9, hAlive, time.Second) // 9 of 29
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("a slow probe is a failed probe", inBubble(func(t *testing.T) {
		b := newBreaker(t, cfg)
		halfOpenBreaker(t, b)
		slow(t, b, 1, hAlive, time.Second)
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
	t.Run("off by default", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		slow(t, b, 1000, hAlive, time.Hour)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
}

func TestBreakerStaysOutOfTheWay(t *testing.T) {
	all := dbcore.BreakerConfig{FailureRate: 0.1, MinimumCalls: 1, SlowCallRate: 0.1, SlowCall: time.Second}
	t.Run("of servers that answer", inBubble(func(t *testing.T) {
		b := newBreaker(t, all)
		leaveAll(t, b, 1000, hAlive)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("of callers who give up", inBubble(func(t *testing.T) {
		b := newBreaker(t, all)
		leaveAll(t, b, 1000, hUnknown)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("of values that are no Health", inBubble(func(t *testing.T) {
		b := newBreaker(t, all)
		leaveAll(t, b, 1000, dbcore.Health(99))
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("but a caller who gives up does not hide failures", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		for range 4 {
			leaveAll(t, b, 1, hFailure)
			leaveAll(t, b, 10, hUnknown)
		}
		leaveAll(t, b, 1, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
	}))
}

func TestBreakerRecoversByItself(t *testing.T) {
	t.Run("closes after two probes", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		until := openBreaker(t, b)
		passTime(time.Until(until) - 1)
		wantBreaker(t, b, dbcore.BreakerOpen)
		wantRejected(t, b)
		passTime(1)
		first, second := mustEnter(t, b), mustEnter(t, b)
		if err := mustReject(t, b); err.State != dbcore.BreakerHalfOpen || !err.Until.After(time.Now()) {
			t.Errorf("a third request is told %+v, want half-open and a time to come", err)
		}
		first.Leave(hAlive, 0)
		wantRejected(t, b) // one has succeeded, one is under way: no need for a third
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		second.Leave(hAlive, 0)
		wantBreaker(t, b, dbcore.BreakerClosed)
		if c := b.Counts(); c.Failures != 0 || c.Opened != 1 || c.Rejected != 4 {
			t.Errorf("counts %+v, want no failures remembered, 1 opening, 4 rejections", c)
		}
		leaveAll(t, b, 4, hFailure)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("opens again on a failed probe", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		for range 3 {
			if b.State() == dbcore.BreakerClosed {
				openBreaker(t, b)
			}
			passTime(time.Until(mustReject(t, b).Until))
			leaveAll(t, b, 1, hAlive)
			leaveAll(t, b, 1, hFailure)
			wantBreaker(t, b, dbcore.BreakerOpen)
		}
	}))
	t.Run("a caller who gives up makes room for another probe", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		halfOpenBreaker(t, b)
		leaveAll(t, b, 100, hUnknown)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		leaveAll(t, b, 2, hAlive)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
	t.Run("what began before does not count", inBubble(func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		before := []dbcore.Permit{mustEnter(t, b), mustEnter(t, b), mustEnter(t, b)}
		halfOpenBreaker(t, b)
		before[0].Leave(hAlive, 0)
		before[1].Leave(hAlive, 0)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		before[2].Leave(hFailure, 0)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		leaveAll(t, b, 2, hAlive)
		wantBreaker(t, b, dbcore.BreakerClosed)
	}))
}

func TestBreakerCountsWhatHungForLongerThanItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		var hung []dbcore.Permit
		for range 5 {
			hung = append(hung, mustEnter(t, b))
		}
		passTime(10 * time.Minute)
		for _, p := range hung {
			p.Leave(hFailure, 10*time.Minute)
		}
		wantBreaker(t, b, dbcore.BreakerOpen)
	})
}

func TestBreakerJittersItsOpenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		seen := map[time.Duration]bool{}
		for range 20 {
			d := time.Until(openBreaker(t, b))
			if d <= 30*time.Second || d > 36*time.Second {
				t.Fatalf("open for %s, want more than 30 s and at most 36 s", d)
			}
			seen[d] = true
			b.Reset()
		}
		if len(seen) < 10 {
			t.Errorf("20 openings had only %d different lengths", len(seen))
		}
	})
}

func TestBreakerLeaveCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		p := mustEnter(t, b)
		copied := p
		for range 10 {
			p.Leave(hFailure, 0)
			copied.Leave(hFailure, 0)
		}
		if c := b.Counts(); c.Failures != 1 {
			t.Fatalf("%d failures of one request", c.Failures)
		}
		// The breaker's memory of p now serves another request, which p must not end.
		other := mustEnter(t, b)
		p.Leave(hFailure, 0)
		other.Leave(hAlive, 0)
		if c := b.Counts(); c.Failures != 1 || c.Alive != 1 {
			t.Errorf("counts %+v, want one failure and one alive", c)
		}
		dbcore.Permit{}.Leave(hFailure, 0)
	})
}
