package dbcore_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
)

// eventLog collects what a breaker tells.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) add(e dbcore.BreakerEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf("%s to %s: %s", e.From, e.To, e.Reason))
}

func (l *eventLog) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.events, want) {
		t.Errorf("events:\n%q\nwant:\n%q", l.events, want)
	}
}

func TestBreakerTellsEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		b := newBreaker(t, dbcore.BreakerConfig{OnStateChange: log.add, ProbeTimeout: time.Second, SlowCallRate: 1, SlowCall: 5 * time.Second})
		halfOpenBreaker(t, b)
		leaveAll(t, b, 1, hFailure)
		passTime(36 * time.Second)
		mustEnter(t, b)
		passTime(time.Second)
		passTime(36 * time.Second)
		mustEnter(t, b).Leave(hAlive, 5*time.Second)
		passTime(36 * time.Second)
		leaveAll(t, b, 2, hAlive)
		for range 20 {
			mustEnter(t, b).Leave(hAlive, 5*time.Second)
		}
		b.Reset()
		b.Reset()
		for _, m := range []dbcore.BreakerMode{dbcore.ModeForceOpen, dbcore.ModeForceOpen, dbcore.ModeDisabled, dbcore.ModeMonitor} {
			if err := b.Force(m); err != nil {
				t.Fatal(err)
			}
		}
		log.want(
			t,
			"closed to open: 5 consecutive failures",
			"open to half-open: time to try again",
			"half-open to open: a probe that failed",
			"open to half-open: time to try again",
			"half-open to open: a probe that was not back within 1s",
			"open to half-open: time to try again",
			"half-open to open: a probe that took 5s or longer",
			"open to half-open: time to try again",
			"half-open to closed: 2 probes succeeded",
			"closed to open: 20 of 20 calls took 5s or longer",
			"open to closed: reset",
			"closed to open: mode set to forced open",
			"open to closed: mode set to disabled",
		)
	})
}

func TestBreakerEventSaysWhenAndUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []dbcore.BreakerEvent
		b := newBreaker(t, dbcore.BreakerConfig{Mode: dbcore.ModeMonitor, OnStateChange: func(e dbcore.BreakerEvent) { got = append(got, e) }})
		at := time.Now()
		leaveAll(t, b, 5, hFailure)
		passTime(time.Minute)
		if len(got) != 1 {
			t.Fatalf("%d events, want 1: nobody has asked since", len(got))
		}
		e := got[0]
		if e.Name != "orders" || e.Mode != dbcore.ModeMonitor || !e.At.Equal(at) || e.Until.Sub(at) <= 30*time.Second || e.Until.Sub(at) > 36*time.Second {
			t.Errorf("event %+v at %s", e, at)
		}
	})
}

func TestBreakerCallbackMayDoAnything(t *testing.T) {
	t.Run("call the breaker", inBubble(func(t *testing.T) {
		var b *dbcore.Breaker
		states := make(chan dbcore.BreakerState, 100)
		b = newBreaker(t, dbcore.BreakerConfig{OnStateChange: func(e dbcore.BreakerEvent) {
			_, _ = b.Enter()
			_ = b.Counts()
			states <- b.State()
			if e.To == dbcore.BreakerOpen {
				b.Reset()
			}
			if e.To == dbcore.BreakerClosed {
				b.Close()
			}
		}})
		leaveAll(t, b, 5, hFailure)
		if s := <-states; s != dbcore.BreakerOpen {
			t.Errorf("the callback saw %s", s)
		}
		if s := <-states; s != dbcore.BreakerClosed {
			t.Errorf("the callback saw %s", s)
		}
		synctest.Wait()
		leaveAll(t, b, 5, hFailure)
		synctest.Wait()
		if len(states) != 0 {
			t.Error("the callback was called after Close")
		}
	}))
	for name, end := range map[string]func(){"panic": func() { panic("bug") }, "panic nil": func() { panic(nil) }, "end its goroutine": runtime.Goexit} {
		t.Run(name, inBubble(func(t *testing.T) {
			var log eventLog
			b := newBreaker(t, dbcore.BreakerConfig{OnStateChange: func(e dbcore.BreakerEvent) { log.add(e); end() }})
			for range 3 {
				openBreaker(t, b)
				b.Reset()
			}
			log.want(
				t,
				"closed to open: 5 consecutive failures", "open to closed: reset",
				"closed to open: 5 consecutive failures", "open to closed: reset",
				"closed to open: 5 consecutive failures", "open to closed: reset",
			)
			if c := b.Counts(); c.CallbackPanics != 6 {
				t.Errorf("%d panics counted, want 6", c.CallbackPanics)
			}
		}))
	}
	t.Run("hang", inBubble(func(t *testing.T) {
		release := make(chan struct{})
		var got []dbcore.BreakerEvent
		b := newBreaker(t, dbcore.BreakerConfig{OnStateChange: func(e dbcore.BreakerEvent) {
			<-release
			got = append(got, e)
		}})
		openBreaker(t, b)
		b.Reset()
		synctest.Wait()
		for range 1000 { // requests are not held up, and neither memory nor goroutines grow without bound
			openBreaker(t, b)
			b.Reset()
		}
		if c := b.Counts(); c.EventsDropped == 0 || c.EventsDropped > 2000 {
			t.Errorf("%d events dropped", c.EventsDropped)
		}
		close(release)
		synctest.Wait()
		if n := len(got); n < 100 || n > 300 || got[n-1].To != dbcore.BreakerClosed {
			t.Errorf("%d events came, the last %+v: want the newest few hundred", n, got[n-1])
		}
		for i := 2; i < len(got); i++ {
			if got[i].From != got[i-1].To || got[i].At.Before(got[i-1].At) {
				t.Fatalf("event %d %+v does not follow on %+v", i, got[i], got[i-1])
			}
		}
	}))
}

func TestBreakerCloseDropsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		called := 0
		b := newBreaker(t, dbcore.BreakerConfig{OnStateChange: func(dbcore.BreakerEvent) { called++; <-release }})
		openBreaker(t, b)
		synctest.Wait()
		b.Reset()
		b.Close() // does not wait for the callback that hangs
		b.Close()
		close(release)
		synctest.Wait()
		if called != 1 {
			t.Errorf("%d calls, want only the one that ran already", called)
		}
	})
}

// TestBreakerHasNoGoroutineWhileIdle, although it is never closed: synctest fails a test whose goroutines do not end.
func TestBreakerHasNoGoroutineWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		b := newBreaker(t, dbcore.BreakerConfig{OnStateChange: log.add})
		halfOpenBreaker(t, b)
		mustEnter(t, b) // lost, and not yet noticed
		log.want(t, "closed to open: 5 consecutive failures", "open to half-open: time to try again")
	})
}
