package dbcore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Breaker is a circuit breaker: it lets requests pass while the server is well (closed), rejects them at once when
// too many failed of late (open), and after a while lets a few pass to see whether the server is back (half-open).
// It knows no SQL: whoever uses it says by a Health what a request's end means. Only infrastructure counts, so an
// answer of the server is a success even if it is an error, and a caller who gives up says nothing at all.
//
// A Breaker decides by what has ended, never by what is under way, so no request that hangs, panics, ends its
// goroutine or forgets its Permit can keep it in a state. It needs no attention: it has no goroutine but the one that
// tells of changes, while there are any. Durations are measured by the monotonic clock, which nobody can set.
//
// All methods are safe for concurrent use. Make one by NewBreaker.
type Breaker struct {
	name   string
	cfg    BreakerConfig
	events eventQueue

	mu    sync.Mutex
	mode  BreakerMode
	state BreakerState
	epoch uint64 // counts the changes of state: an outcome only counts in the epoch in which its request began
	until time.Time
	// why is the reason of the next change of state, opened that of the last change to open.
	why, opened string

	// gb counts outcomes and moves between the states. An outcome is booked there in one step when the request has ended
	// (Execute with the outcome as the function). gobreaker's two-step way was not used for two reasons. It files an
	// outcome under the time at which its request began and drops it if that is longer ago than the interval, so a
	// server on which everything hangs for longer than that would never open the breaker. And a probe that never comes
	// back stays counted as under way, and the breaker half-open, for ever. This way nothing is ever under way in gb,
	// and probes are counted here.
	gb   *gobreaker.CircuitBreaker[struct{}]
	slow slowWindow
	// slowTrip tells readyToTrip that the failure being booked stands for too many slow calls.
	slowTrip bool

	probes uint32 // under way in this epoch
	// lateAlive is how many probes of earlier epochs came back alive since the last failure, which was before lateFrom.
	lateAlive uint32
	lateFrom  uint64

	free   []*permitState
	totals BreakerCounts // only what is never reset
}

// NewBreaker makes a closed Breaker. The name is for people and metrics and may be empty.
//
// Errors: ErrInvalidConfig.
func NewBreaker(name string, cfg BreakerConfig) (*Breaker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("make circuit breaker %q: %w", name, err)
	}
	b := &Breaker{name: name, cfg: cfg, mode: cfg.Mode}
	b.events.fn = cfg.OnStateChange
	b.slow.buckets = make([]slowBucket, cfg.Buckets)
	b.slow.period = cfg.bucketPeriod()
	b.renew()
	return b, nil
}

// Name is the name given to NewBreaker.
func (b *Breaker) Name() string { return b.name }

// State is where the breaker stands now. In ModeMonitor it is where it would stand in ModeEnforce, in ModeForceOpen it
// is BreakerOpen, in ModeDisabled BreakerClosed.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick(time.Now())
	return b.visible()
}

// Mode is the mode that NewBreaker or the last Force set.
func (b *Breaker) Mode() BreakerMode {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mode
}

// Counts is what the breaker has seen.
func (b *Breaker) Counts() BreakerCounts {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tick(now)
	if b.state == BreakerClosed {
		b.gb.State() // forgets what is older than the interval
	}
	c := b.totals
	in := b.gb.Counts()
	c.Alive, c.Failures, c.Unknown = in.TotalSuccesses, in.TotalFailures, in.TotalExclusions
	c.ConsecutiveFailures = in.ConsecutiveFailures
	b.slow.roll(now)
	c.Slow = b.slow.total.slow
	c.CallbackPanics, c.EventsDropped = b.events.losses()
	return c
}

// Force changes the mode. Between ModeEnforce and ModeMonitor the breaker keeps its state and all it knows; every other
// change begins anew, closed, and what is under way by then no longer counts. Setting the mode that is set already does
// nothing.
//
// Errors: ErrInvalidConfig if mode is none of the modes; nothing is changed then.
func (b *Breaker) Force(mode BreakerMode) error {
	if mode < ModeEnforce || mode > ModeForceOpen {
		return fmt.Errorf("set mode of circuit breaker %q: %w: Mode is %d, which is none of the breaker's modes", b.name, ErrInvalidConfig, int(mode))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if mode == b.mode {
		return nil
	}
	from := b.visible()
	if !mode.decides() || !b.mode.decides() {
		b.renew()
	}
	b.mode = mode
	if to := b.visible(); to != from {
		if to == BreakerOpen {
			b.totals.Opened++
		}
		b.tell(from, to, time.Now(), time.Time{}, "mode set to "+mode.String())
	}
	return nil
}

// Reset closes the breaker and forgets what it has seen, for an operator who knows that the server is back. What is
// under way no longer counts. The mode stays, so a breaker that is forced open stays open.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := b.visible()
	b.renew()
	if to := b.visible(); to != from {
		b.tell(from, to, time.Now(), time.Time{}, "reset")
	}
}

// Close ends the calls of OnStateChange: none begins after Close. One that is running is not waited for, so Close may
// be called from there. Apart from that the breaker goes on to work. Closing it twice does no harm, and a Breaker that
// is not used any more needs no Close.
func (b *Breaker) Close() { b.events.close() }

// renew begins anew, closed. It tells nobody.
func (b *Breaker) renew() {
	b.gb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   b.cfg.HalfOpenRequests,
		Interval:      b.cfg.Interval,
		BucketPeriod:  b.cfg.bucketPeriod(),
		Timeout:       b.cfg.OpenFor,
		ReadyToTrip:   b.readyToTrip,
		OnStateChange: b.moved,
		IsSuccessful:  func(err error) bool { return err == nil },
		IsExcluded:    isNoOutcome,
	})
	b.enterState(BreakerClosed, time.Now())
	b.lateAlive, b.lateFrom = 0, b.epoch
}

// readyToTrip is called by gobreaker, with b.mu held, after a failure in the closed state.
func (b *Breaker) readyToTrip(c gobreaker.Counts) bool {
	if !b.slowTrip {
		b.why = b.cfg.tripReason(c.ConsecutiveFailures, c.TotalFailures, c.TotalSuccesses)
	}
	return b.why != ""
}

// moved is called by gobreaker, with b.mu held, when its state has changed.
func (b *Breaker) moved(_ string, _, to gobreaker.State) {
	now := time.Now()
	from := b.state
	switch to {
	case gobreaker.StateOpen:
		b.enterState(BreakerOpen, now)
		b.totals.Opened++
		b.opened = b.why
		// At least a nanosecond more than OpenFor, after which gobreaker is ready: it is asked only when b.until is over.
		b.until = now.Add(b.cfg.OpenFor + 1 + rand.N(b.cfg.OpenFor/5))
		b.tell(from, b.state, now, b.until, b.why)
	case gobreaker.StateHalfOpen:
		b.enterState(BreakerHalfOpen, now)
		b.tell(from, b.state, now, time.Time{}, "time to try again")
	case gobreaker.StateClosed:
		b.enterState(BreakerClosed, now)
		b.lateAlive, b.lateFrom = 0, b.epoch
		b.tell(from, b.state, now, time.Time{}, fmt.Sprintf("%d probes succeeded", b.cfg.HalfOpenRequests))
	}
	b.why = ""
}

func (b *Breaker) enterState(s BreakerState, now time.Time) {
	b.state = s
	b.epoch++
	b.probes = 0
	b.slow.clear(now)
}

// tick lets an open breaker whose time is over become half-open.
func (b *Breaker) tick(now time.Time) {
	if b.state == BreakerOpen && !now.Before(b.until) {
		b.gb.State()
	}
}

func (b *Breaker) visible() BreakerState {
	if b.mode == ModeForceOpen {
		return BreakerOpen
	}
	return b.state
}

func (b *Breaker) tell(from, to BreakerState, at, until time.Time, reason string) {
	b.events.push(BreakerEvent{Name: b.name, From: from, To: to, Mode: b.mode, At: at, Until: until, Reason: reason})
}
