package dbcore_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
)

func force(t *testing.T, b *dbcore.Breaker, m dbcore.BreakerMode) {
	t.Helper()
	if err := b.Force(m); err != nil {
		t.Fatal(err)
	}
	if got := b.Mode(); got != m {
		t.Fatalf("mode %s after Force(%s)", got, m)
	}
}

func TestBreakerMonitorRejectsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{Mode: dbcore.ModeMonitor})
		leaveAll(t, b, 5, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
		leaveAll(t, b, 100, hFailure)
		leaveAll(t, b, 7, hAlive)
		if c := b.Counts(); c.WouldReject != 107 || c.WouldRejectAlive != 7 || c.Rejected != 0 {
			t.Errorf("counts %+v, want 107 would be rejected, 7 of them alive, 0 rejected", c)
		}
		passTime(36 * time.Second)
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		probes := []dbcore.Permit{mustEnter(t, b), mustEnter(t, b)}
		leaveAll(t, b, 10, hFailure) // beside the probes: these would not have run
		wantBreaker(t, b, dbcore.BreakerHalfOpen)
		for _, p := range probes {
			p.Leave(hAlive, 0)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
		if c := b.Counts(); c.WouldReject != 117 || c.Rejected != 0 {
			t.Errorf("counts %+v, want 117 would be rejected", c)
		}
	})
}

// TestBreakerMonitorForetellsEnforce has the same requests meet one breaker of each mode. The server is up or down by
// the clock, so that what one lets pass does not change what the other sees.
func TestBreakerMonitorForetellsEnforce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		cfg := dbcore.BreakerConfig{FailureRate: 0.3, MinimumCalls: 5, OpenFor: time.Second, ProbeTimeout: time.Second, Interval: 10 * time.Second}
		enforce := newBreaker(t, cfg)
		cfg.Mode = dbcore.ModeMonitor
		monitor := newBreaker(t, cfg)
		var wouldReject, rejected uint64
		for range 5000 {
			passTime(time.Duration(rnd.IntN(200)) * time.Millisecond)
			h := hAlive
			if time.Now().Second()%20 < 6 {
				h = hFailure
			}
			shadow := mustEnter(t, monitor)
			p, err := enforce.Enter()
			if err != nil {
				rejected++
			}
			shadow.Leave(h, 0)
			p.Leave(h, 0)
			wouldReject = monitor.Counts().WouldReject
			// The open times differ by their jitter: wait until both are on the same side of it.
			if enforce.State() != monitor.State() {
				passTime(1300 * time.Millisecond)
			}
		}
		if rejected < 100 || wouldReject < 100 {
			t.Errorf("%d rejected, %d would have been: too few to compare", rejected, wouldReject)
		}
		if ratio := float64(wouldReject) / float64(rejected); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("%d rejected, but %d foretold", rejected, wouldReject)
		}
	})
}

func TestBreakerForceOpenAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		before := mustEnter(t, b)
		leaveAll(t, b, 4, hFailure)
		force(t, b, dbcore.ModeForceOpen)
		before.Leave(hFailure, 0)
		for range 3 {
			wantBreaker(t, b, dbcore.BreakerOpen)
			if err := mustReject(t, b); !err.Until.IsZero() {
				t.Errorf("forced open until %s, want no end", err.Until)
			}
			b.Reset() // does not change the mode
			passTime(time.Hour)
		}
		force(t, b, dbcore.ModeEnforce)
		wantBreaker(t, b, dbcore.BreakerClosed)
		leaveAll(t, b, 4, hFailure) // what was before is forgotten
		wantBreaker(t, b, dbcore.BreakerClosed)
		leaveAll(t, b, 1, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
		force(t, b, dbcore.ModeForceOpen)
		force(t, b, dbcore.ModeEnforce)
		leaveAll(t, b, 1, hAlive) // the operator says that it is back
	})
}

func TestBreakerModeStartsForcedOpen(t *testing.T) {
	b := newBreaker(t, dbcore.BreakerConfig{Mode: dbcore.ModeForceOpen})
	wantRejected(t, b)
	if c := b.Counts(); c.Rejected != 1 {
		t.Errorf("counts %+v", c)
	}
}

func TestBreakerDisabledCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{})
		openBreaker(t, b)
		force(t, b, dbcore.ModeDisabled)
		leaveAll(t, b, 100, hFailure)
		during := mustEnter(t, b)
		if c := b.Counts(); c.Failures != 0 || c.WouldReject != 0 {
			t.Errorf("counts %+v", c)
		}
		wantBreaker(t, b, dbcore.BreakerClosed)
		force(t, b, dbcore.ModeEnforce)
		during.Leave(hFailure, 0)
		leaveAll(t, b, 4, hFailure)
		wantBreaker(t, b, dbcore.BreakerClosed)
		leaveAll(t, b, 1, hFailure)
		wantBreaker(t, b, dbcore.BreakerOpen)
	})
}

func TestBreakerKeepsWhatItKnowsBetweenMonitorAndEnforce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, dbcore.BreakerConfig{Mode: dbcore.ModeMonitor})
		leaveAll(t, b, 4, hFailure)
		force(t, b, dbcore.ModeEnforce)
		leaveAll(t, b, 1, hFailure)
		until := mustReject(t, b).Until
		force(t, b, dbcore.ModeMonitor)
		leaveAll(t, b, 10, hAlive) // pass, though it is open
		force(t, b, dbcore.ModeEnforce)
		if got := mustReject(t, b).Until; !got.Equal(until) {
			t.Errorf("open until %s, was %s before the modes changed", got, until)
		}
	})
}

func TestBreakerForceRefusesWhatIsNoMode(t *testing.T) {
	b := newBreaker(t, dbcore.BreakerConfig{Mode: dbcore.ModeMonitor})
	for _, m := range []dbcore.BreakerMode{-1, 4} {
		if err := b.Force(m); !errors.Is(err, dbcore.ErrInvalidConfig) || b.Mode() != dbcore.ModeMonitor {
			t.Errorf("Force(%d): %v, mode %s", m, err, b.Mode())
		}
	}
}
