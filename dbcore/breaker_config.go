package dbcore

import (
	"fmt"
	"time"
)

// BreakerMode is what a Breaker does with what it knows. It can be changed at run time: see Breaker.Force.
type BreakerMode int

// The modes.
const (
	// ModeEnforce rejects requests while the breaker is open.
	ModeEnforce BreakerMode = iota
	// ModeMonitor decides exactly as ModeEnforce does and rejects nothing. BreakerCounts.WouldReject says how many
	// requests enforcing would have cost, and WouldRejectAlive how many of those the server did answer.
	ModeMonitor
	// ModeDisabled lets everything pass and counts nothing.
	ModeDisabled
	// ModeForceOpen rejects everything until the mode is changed, for instance to keep a service away from a database
	// that is being repaired.
	ModeForceOpen
)

// String returns enforce, monitor, disabled or forced open.
func (m BreakerMode) String() string {
	switch m {
	case ModeEnforce:
		return "enforce"
	case ModeMonitor:
		return "monitor"
	case ModeDisabled:
		return "disabled"
	case ModeForceOpen:
		return "forced open"
	}
	return fmt.Sprintf("unknown mode %d", int(m))
}

// decides says that outcomes count in the mode, and that the state follows from them.
func (m BreakerMode) decides() bool { return m == ModeEnforce || m == ModeMonitor }

// BreakerState is where a Breaker stands.
type BreakerState int

// The states.
const (
	// BreakerClosed: requests pass.
	BreakerClosed BreakerState = iota
	// BreakerHalfOpen: a few requests pass, as probes; the others are rejected.
	BreakerHalfOpen
	// BreakerOpen: requests are rejected.
	BreakerOpen
)

// String returns closed, half-open or open.
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerHalfOpen:
		return "half-open"
	case BreakerOpen:
		return "open"
	}
	return fmt.Sprintf("unknown state %d", int(s))
}

// BreakerConfig says when a Breaker opens and how it closes again. The zero value is a good start: it enforces, opens
// after 5 failures in a row, and tries again with 2 probes after 30 to 36 seconds.
//
// The three conditions for opening stand side by side; the first that is met opens the breaker.
type BreakerConfig struct {
	// Mode is the mode to begin with. The zero value is ModeEnforce.
	Mode BreakerMode

	// ConsecutiveFailures opens the breaker after so many failures without a success between, all within Interval. A
	// success in between begins the count anew, however few of the calls succeed; that is what FailureRate is for.
	// 0 means 5. A number that is never reached, such as math.MaxUint32, turns the condition off.
	ConsecutiveFailures uint32
	// FailureRate opens the breaker when at least this share of the calls within Interval failed, from above 0 to 1.
	// 0 turns the condition off.
	FailureRate float64
	// SlowCallRate opens the breaker when at least this share of the calls within Interval took SlowCall or longer, from
	// above 0 to 1. A call that its caller gave up after SlowCall counts as slow too: it says nothing about errors, but
	// the caller has waited that long. So this is the condition that sees a server which hangs until its callers give up;
	// the other two do not. While the breaker is half-open a slow probe is a failed probe. 0 turns the condition off.
	SlowCallRate float64
	// SlowCall is the duration from which on a call is slow. It must be set if SlowCallRate is, and only then.
	SlowCall time.Duration
	// MinimumCalls is how many calls there must be within Interval before the two rates mean anything. 0 means 20.
	MinimumCalls uint32

	// Interval is how long a call is remembered while the breaker is closed. A call belongs to the moment at which it
	// ended, so that one that hung for longer than Interval counts too. 0 means 60 s; otherwise from 10 ms to 24 h.
	Interval time.Duration
	// Buckets is how many parts Interval has: calls are forgotten one part at a time. 0 means 10; otherwise from 2 to
	// 1,000.
	Buckets int

	// OpenFor is how long the breaker stays open before it lets probes pass. Up to a fifth is added at random each time,
	// so that many processes do not probe in step. 0 means 30 s; otherwise from 1 ms to 24 h.
	OpenFor time.Duration
	// HalfOpenRequests is how many probes may be under way at once while the breaker is half-open, and how many must
	// succeed for it to close. The first that fails opens it again. 0 means 2.
	HalfOpenRequests uint32
	// ProbeTimeout is how long a probe may take. One that is not back by then, because it hangs or because its Permit was
	// lost, counts as failed and opens the breaker again. Choose it above the usual duration of the guarded operation. An
	// operation that takes longer all the same is not locked out: see Permit.Leave on late answers. 0 means 30 s;
	// otherwise from 1 ms to 24 h.
	ProbeTimeout time.Duration

	// OnStateChange is told of every change of state. Calls come one at a time and in order, on a goroutine of their own
	// that ends when there is nothing more to tell, and outside all locks: the function may call any method of the
	// Breaker, may block, and may panic. What a function that hangs or falls behind misses, and what it panicked at, is
	// counted in BreakerCounts. nil: nobody is told.
	OnStateChange func(BreakerEvent)
}

// BreakerEvent is a change of a Breaker's state.
type BreakerEvent struct {
	// Name is the Breaker's.
	Name string
	// From and To are the states before and after. Forcing a breaker open is a change to BreakerOpen.
	From, To BreakerState
	// Mode is the mode at the time. In ModeMonitor nothing is rejected whatever the state.
	Mode BreakerMode
	// At is when it happened.
	At time.Time
	// Until is when probes may pass, if To is BreakerOpen. The zero time means that only Force ends it.
	Until time.Time
	// Reason says why, for a person: "5 consecutive failures".
	Reason string
}

// BreakerCounts is what a Breaker has seen.
type BreakerCounts struct {
	// Alive, Failures and Unknown are the calls within BreakerConfig.Interval and since the last change of state, by what
	// they said of the server's health.
	Alive, Failures, Unknown uint32
	// Slow is how many calls within the same time were slow. Always 0 unless SlowCallRate is set.
	Slow uint32
	// ConsecutiveFailures is how many of the failures came since the last success.
	ConsecutiveFailures uint32

	// What follows counts from the making of the Breaker on and is never reset.

	// Opened is how often it opened, forced or not.
	Opened uint64
	// Rejected is how many requests it rejected.
	Rejected uint64
	// WouldReject is how many requests it let pass in ModeMonitor that it would have rejected in ModeEnforce.
	WouldReject uint64
	// WouldRejectAlive is how many of WouldReject the server then answered: what enforcing would have broken.
	WouldRejectAlive uint64
	// ProbesLost is how many probes were not back within ProbeTimeout.
	ProbesLost uint64
	// CallbackPanics is how many calls of OnStateChange panicked or ended their goroutine.
	CallbackPanics uint64
	// EventsDropped is how many events OnStateChange never saw because it was too far behind.
	EventsDropped uint64
}

const longestBreakerTime = 24 * time.Hour

func (c BreakerConfig) withDefaults() BreakerConfig {
	setDefault(&c.ConsecutiveFailures, 5)
	setDefault(&c.MinimumCalls, 20)
	setDefault(&c.Interval, 60*time.Second)
	setDefault(&c.Buckets, 10)
	setDefault(&c.OpenFor, 30*time.Second)
	setDefault(&c.HalfOpenRequests, 2)
	setDefault(&c.ProbeTimeout, 30*time.Second)
	return c
}

// validate expects the defaults to be set.
func (c BreakerConfig) validate() error {
	isRate := func(r float64) bool { return r >= 0 && r <= 1 } // false for NaN
	switch {
	case c.Mode < ModeEnforce || c.Mode > ModeForceOpen:
		return fmt.Errorf("%w: Mode is %d, which is none of the breaker's modes", ErrInvalidConfig, int(c.Mode))
	case !isRate(c.FailureRate):
		return fmt.Errorf("%w: FailureRate is %v, want a share from 0 (off) to 1", ErrInvalidConfig, c.FailureRate)
	case !isRate(c.SlowCallRate):
		return fmt.Errorf("%w: SlowCallRate is %v, want a share from 0 (off) to 1", ErrInvalidConfig, c.SlowCallRate)
	case c.SlowCall < 0 || (c.SlowCallRate > 0) != (c.SlowCall > 0):
		return fmt.Errorf("%w: SlowCallRate is %v and SlowCall %s: set both, or neither", ErrInvalidConfig, c.SlowCallRate, c.SlowCall)
	case c.Buckets < 2 || c.Buckets > 1000:
		return fmt.Errorf("%w: Buckets is %d, want 2 to 1000", ErrInvalidConfig, c.Buckets)
	case c.Interval < 10*time.Millisecond || c.Interval > longestBreakerTime:
		return fmt.Errorf("%w: Interval is %s, want 10ms to %s", ErrInvalidConfig, c.Interval, longestBreakerTime)
	case c.OpenFor < time.Millisecond || c.OpenFor > longestBreakerTime:
		return fmt.Errorf("%w: OpenFor is %s, want 1ms to %s", ErrInvalidConfig, c.OpenFor, longestBreakerTime)
	case c.ProbeTimeout < time.Millisecond || c.ProbeTimeout > longestBreakerTime:
		return fmt.Errorf("%w: ProbeTimeout is %s, want 1ms to %s", ErrInvalidConfig, c.ProbeTimeout, longestBreakerTime)
	}
	return nil
}

// bucketPeriod is rounded up, so that gobreaker, which rounds the interval up to whole buckets, makes as many of them as
// were asked for.
func (c BreakerConfig) bucketPeriod() time.Duration {
	n := time.Duration(c.Buckets)
	return (c.Interval + n - 1) / n
}

// tripReason says why so many failures and successes within the interval open the breaker; "" if they do not.
func (c BreakerConfig) tripReason(consecutive, failures, successes uint32) string {
	if consecutive >= c.ConsecutiveFailures {
		return fmt.Sprintf("%d consecutive failures", consecutive)
	}
	calls := uint64(failures) + uint64(successes)
	if c.FailureRate > 0 && c.reached(uint64(failures), calls, c.FailureRate) {
		return fmt.Sprintf("%d of %d calls failed", failures, calls)
	}
	return ""
}

// slowReason is tripReason for slow calls.
func (c BreakerConfig) slowReason(slow, calls uint32) string {
	if !c.reached(uint64(slow), uint64(calls), c.SlowCallRate) {
		return ""
	}
	return fmt.Sprintf("%d of %d calls took %s or longer", slow, calls, c.SlowCall)
}

func (c BreakerConfig) reached(part, calls uint64, rate float64) bool {
	return calls >= uint64(c.MinimumCalls) && float64(part) >= rate*float64(calls)
}
