package dbcore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"
)

// Defaults of RetryConfig.
const (
	DefaultMaxAttempts       = 3
	DefaultTransientBase     = 50 * time.Millisecond
	DefaultThrottleBase      = time.Second
	DefaultSerializationBase = 5 * time.Millisecond
	DefaultMaxDelay          = 10 * time.Second
)

// RetryConfig says how often a request is tried and how long to wait in between. The zero value is the default: three
// attempts in all, and no permission that is off by default.
//
// The wait before attempt n+1 is random between 0 and base·2ⁿ⁻¹ ("full jitter", Brooker, "Exponential Backoff And
// Jitter", AWS Architecture Blog 2015), so that those who failed together do not come back together. The base depends on the
// verdict's Class: a deadlock is over at once, an overloaded server needs a pause.
type RetryConfig struct {
	// MaxAttempts counts all attempts, the first one too; 0 is 3, 1 never repeats.
	MaxAttempts int
	// TransientBase is the base for connections that went away; 0 is 50 ms.
	TransientBase time.Duration
	// ThrottleBase is the base for servers that take no more; 0 is 1 s.
	ThrottleBase time.Duration
	// SerializationBase is the base for deadlocks and serialization failures; 0 is 5 ms.
	SerializationBase time.Duration
	// MaxDelay bounds one wait; 0 is 10 s.
	MaxDelay time.Duration

	// Locks repeats what failed with lock_timeout or NOWAIT (55P03) or because an object is in use (55006).
	Locks bool
	// UniqueViolations repeats transactions that failed with 23505 or 23P01. Useful where they check before they insert.
	UniqueViolations bool
	// Canceled repeats idempotent statements that were cancelled (57014), by statement_timeout for instance.
	Canceled bool
	// WaitForBreaker waits before a repetition until an open breaker lets probes pass, if the context allows; otherwise an
	// open breaker ends the request at once.
	WaitForBreaker bool
}

func (c RetryConfig) validate() error {
	if c.MaxAttempts < 0 || c.TransientBase < 0 || c.ThrottleBase < 0 || c.SerializationBase < 0 || c.MaxDelay < 0 {
		return fmt.Errorf("%w: negative numbers in RetryConfig %+v", ErrInvalidConfig, c)
	}
	return nil
}

func (c RetryConfig) withDefaults() RetryConfig {
	setDefault(&c.MaxAttempts, DefaultMaxAttempts)
	setDefault(&c.TransientBase, DefaultTransientBase)
	setDefault(&c.ThrottleBase, DefaultThrottleBase)
	setDefault(&c.SerializationBase, DefaultSerializationBase)
	setDefault(&c.MaxDelay, DefaultMaxDelay)
	return c
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Allows says whether a verdict permits a repetition under this configuration, given that the request is idempotent or
// not. It is a pure function. Ambiguous never does: what is idempotent as a whole, a READ ONLY transaction for
// instance, is RunTx's affair.
func (c RetryConfig) Allows(v Verdict, idempotent bool) bool {
	switch v.OptIn {
	case OptInLocks:
		if !c.Locks {
			return false
		}
	case OptInUnique:
		if !c.UniqueViolations {
			return false
		}
	case OptInCanceled:
		if !c.Canceled {
			return false
		}
	}
	return v.Action == Retry || v.Action == RetryIfIdempotent && idempotent
}

// Delay is the wait after the failed attempt of a number, 1 for the first; r is random in [0,1).
func (c RetryConfig) Delay(class Class, attempt int, r float64) time.Duration {
	c = c.withDefaults()
	base := c.TransientBase
	switch class {
	case ClassThrottle:
		base = c.ThrottleBase
	case ClassSerialization:
		base = c.SerializationBase
	}
	most := float64(base) * math.Pow(2, float64(max(0, attempt-1)))
	return time.Duration(r * min(most, float64(c.MaxDelay)))
}

// Costs of the budget, in thousandths of a retry.
const (
	retryUnit      = 1000
	successRefund  = retryUnit / 10
	timeoutPenalty = 2 * retryUnit
)

// DefaultBudget is the capacity of a DB's own Budget.
const DefaultBudget = 100

// Budget bounds the repetitions of all requests that share it, so that retries do not multiply the load on a database
// that is down: a token bucket to which each success adds a tenth of a token, and from which a repetition takes one,
// or two after a timeout (the scheme of the AWS SDKs). When it is empty, requests still get their first attempt.
//
// A Budget is safe for concurrent use. Share one between all pools of a cluster by WithBudget.
type Budget struct {
	tokens   atomic.Int64
	capacity int64
}

// NewBudget makes a full budget for a number of repetitions; less than 1 is 1.
func NewBudget(capacity int) *Budget {
	b := &Budget{capacity: int64(max(1, capacity)) * retryUnit}
	b.tokens.Store(b.capacity)
	return b
}

// Left is how many repetitions the budget would pay for now.
func (b *Budget) Left() float64 { return float64(b.tokens.Load()) / retryUnit }

// success refunds. A full bucket, which is the rule, costs one load.
func (b *Budget) success() {
	for {
		now := b.tokens.Load()
		if now >= b.capacity || b.tokens.CompareAndSwap(now, min(b.capacity, now+successRefund)) {
			return
		}
	}
}

// take pays for one repetition, or says that it cannot.
func (b *Budget) take(cost int64) bool {
	for {
		now := b.tokens.Load()
		if now < cost {
			return false
		}
		if b.tokens.CompareAndSwap(now, now-cost) {
			return true
		}
	}
}

// Attempt is one failed attempt of a request.
type Attempt struct {
	// Err is what it failed with, Phase where, Verdict what that means.
	Err     error
	Phase   Phase
	Verdict Verdict
	// Took is how long it ran, Waited how long was waited after it; 0 for the last.
	Took, Waited time.Duration
}

// uncertain says that the attempt may have taken effect although it failed.
func (a *Attempt) uncertain() bool {
	return a.Verdict.Action == RetryIfIdempotent && a.Phase == PhaseAutocommit && a.Verdict.OptIn != OptInCanceled || errors.Is(a.Err, ErrCommitAmbiguous)
}

// RetryError is the error of a request that was tried more than once. errors.Is and errors.As find the last attempt's
// error in it, and what stopped further ones.
//
// Whoever repeats on a layer above should know that this layer already has: Attempts tells.
type RetryError struct {
	// Attempts counts them, at least 2.
	Attempts int
	// History has the last attempts, the oldest first; at most 10.
	History []Attempt
	// Err is the last attempt's error.
	Err error
	// Stopped says why there was no further attempt although the error allowed it: ErrBudgetExhausted,
	// ErrDeadlineTooClose, a *BreakerOpenError or the context's error; nil if the attempts were used up or the last error
	// was final.
	Stopped error
	// Open is the error of an earlier attempt that may have taken effect, whatever became of the later ones; nil if there
	// is none. What it says, errors.Is says of the whole: ErrConnectionLost, or ErrCommitAmbiguous.
	Open error
}

// Error names the number of attempts, the last error, and what stopped.
func (e *RetryError) Error() string {
	text := "after " + strconv.Itoa(e.Attempts) + " attempts: " + e.Err.Error()
	if e.Stopped != nil {
		text += " (" + e.Stopped.Error() + ")"
	}
	if e.Open != nil {
		text += " (an earlier attempt may have taken effect: " + e.Open.Error() + ")"
	}
	return text
}

// Unwrap returns Err, Stopped and Open, as far as there are any.
func (e *RetryError) Unwrap() []error {
	all := []error{e.Err}
	for _, err := range []error{e.Stopped, e.Open} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// SafeToRetry is what pgconn.SafeToRetry asks; this layer has decided that.
func (e *RetryError) SafeToRetry() bool { return false }

// maxHistory bounds RetryError.History for those who try for ever.
const maxHistory = 10

// retrying is the state of a request of which one attempt has failed. It does not exist before.
type retrying struct {
	db         *DB
	op         string
	idempotent bool
	began      time.Time
	attempts   int
	once       bool
	history    []Attempt
	open       error // of the first attempt that may have taken effect
}

// next decides after a failed attempt. nil means: try again, the wait is over. Otherwise it is the request's error.
func (r *retrying) next(ctx context.Context, a Attempt) error {
	cfg := &r.db.policy.retry
	if r.attempts > 0 && !cfg.WaitForBreaker && errors.As(a.Err, new(*BreakerOpenError)) {
		return r.final(a.Err) // this was no attempt, and what the last one failed with says more
	}
	r.attempts++
	r.history = append(r.history, a)
	if len(r.history) > maxHistory {
		r.history = r.history[1:]
	}
	if ctx.Err() != nil || r.attempts >= cfg.MaxAttempts || !cfg.Allows(a.Verdict, r.idempotent) || a.Verdict.Once && r.once {
		return r.final(nil)
	}
	r.once = r.once || a.Verdict.Once
	if r.open == nil && a.uncertain() {
		r.open = a.Err
	}
	delay := cfg.Delay(a.Verdict.Class, r.attempts, rand.Float64())
	if wait := r.breakerWait(a.Err); wait > 0 {
		delay = wait
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay+r.db.typical.value() {
		return r.final(ErrDeadlineTooClose)
	}
	cost := int64(retryUnit)
	if isTimeout(a.Err) {
		cost = timeoutPenalty
	}
	if !r.db.policy.budget.take(cost) {
		return r.final(ErrBudgetExhausted)
	}
	r.db.policy.metrics.Retry(r.op, a.Verdict.Class, delay)
	r.history[len(r.history)-1].Waited = delay
	if err := sleep(ctx, delay); err != nil {
		return r.final(err)
	}
	return nil
}

// breakerWait is how long an open breaker asks to wait; 0 if the error is none of a breaker.
func (r *retrying) breakerWait(err error) time.Duration {
	var open *BreakerOpenError
	if !errors.As(err, &open) {
		return 0
	}
	return max(time.Millisecond, time.Until(open.Until))
}

func (r *retrying) final(stopped error) error {
	last := r.history[len(r.history)-1].Err
	switch {
	case r.attempts == 1 && stopped == nil:
		return last
	case r.attempts == 1:
		return fmt.Errorf("%w (not repeated: %w)", last, stopped)
	}
	e := &RetryError{Attempts: r.attempts, History: r.history, Err: last, Stopped: stopped}
	if r.open != last { //nolint:errorlint // the very same
		e.Open = r.open
	}
	return e
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// median follows the median of durations: each sample moves it a step towards itself, so half of them lie on either
// side in the end. One load and one store, and lost updates do no harm.
type median struct{ nanos atomic.Int64 }

func (m *median) value() time.Duration { return time.Duration(m.nanos.Load()) }

func (m *median) add(d time.Duration) {
	now := m.nanos.Load()
	step := max(now/32, 1000)
	switch {
	case now == 0:
		m.nanos.Store(int64(d))
	case int64(d) > now+step:
		m.nanos.Store(now + step)
	case int64(d) < now-step:
		m.nanos.Store(now - step)
	}
}
