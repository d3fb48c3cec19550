package dbcore

import (
	"errors"
	"fmt"
	"time"
)

// BreakerOpenError is the error of a rejected request: nothing of it was sent. errors.Is finds ErrBreakerOpen in it.
//
// Trying again before Until is useless, and in a loop without a wait harmful.
type BreakerOpenError struct {
	// Name is the Breaker's.
	Name string
	// State is BreakerOpen, or BreakerHalfOpen if as many probes as allowed are under way.
	State BreakerState
	// Until is when a request may pass again. For BreakerHalfOpen it is a guess, since nobody knows when the probes end.
	// The zero time means that the breaker is forced open, which only Breaker.Force ends.
	Until time.Time
	// Reason says why the breaker opened, for a person.
	Reason string
}

// Error says why nothing was sent, and until when.
func (e *BreakerOpenError) Error() string {
	switch {
	case e.Until.IsZero():
		return fmt.Sprintf("circuit breaker %q is forced open, nothing was sent", e.Name)
	case e.State == BreakerHalfOpen:
		return fmt.Sprintf("circuit breaker %q is half-open and waits for its probes, nothing was sent (it opened after %s)", e.Name, e.Reason)
	}
	return fmt.Sprintf("circuit breaker %q is open until %s, nothing was sent (it opened after %s)", e.Name, e.Until.UTC().Format(time.RFC3339), e.Reason)
}

// Is says that the error is an ErrBreakerOpen.
func (e *BreakerOpenError) Is(target error) bool { return target == ErrBreakerOpen }

// halfOpenRetry is what a request that found the probes under way is told to wait. Most probes take milliseconds.
const halfOpenRetry = 100 * time.Millisecond

// Permit lets one request pass. It is given back by Leave. The zero value belongs to no Breaker, and its Leave does
// nothing.
type Permit struct {
	b   *Breaker
	s   *permitState
	seq uint64
}

// permitState is what a Breaker knows of a request under way. It is used again for later requests, and seq, which Leave
// raises, tells whose turn it is: a Permit is valid for one seq. A state whose Permit was lost is garbage.
type permitState struct {
	seq   uint64
	epoch uint64
	kind  permitKind
	timer *time.Timer // of a probe
}

type permitKind uint8

const (
	permitCall   permitKind = iota
	permitProbe             // of the half-open state
	permitShadow            // would have been rejected, but for ModeMonitor: its outcome does not count
)

// maxFreePermits bounds what a burst leaves behind.
const maxFreePermits = 64

// Enter asks whether a request may pass. If so, Leave of the Permit must be called when the request has ended; when a
// Permit is lost nothing gets stuck, but the request's outcome is not counted, or as a failure if it was a probe.
//
// Errors: *BreakerOpenError. Nothing was sent, so a later retry is safe.
func (b *Breaker) Enter() (Permit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.mode == ModeDisabled:
		return Permit{}, nil
	case b.mode == ModeForceOpen:
		b.totals.Rejected++
		return Permit{}, &BreakerOpenError{Name: b.name, State: BreakerOpen}
	case b.state == BreakerClosed:
		return b.permit(permitCall), nil
	}
	return b.enterOpen(time.Now())
}

// enterOpen is Enter unless the breaker is closed.
func (b *Breaker) enterOpen(now time.Time) (Permit, error) {
	b.tick(now)
	if b.state == BreakerHalfOpen && b.probes+b.gb.Counts().TotalSuccesses < b.cfg.HalfOpenRequests {
		b.probes++
		p := b.permit(permitProbe)
		p.s.timer = time.AfterFunc(b.cfg.ProbeTimeout, p.lapse)
		return p, nil
	}
	if b.mode == ModeMonitor {
		b.totals.WouldReject++
		return b.permit(permitShadow), nil
	}
	b.totals.Rejected++
	err := &BreakerOpenError{Name: b.name, State: b.state, Until: b.until, Reason: b.opened}
	if b.state == BreakerHalfOpen {
		err.Until = now.Add(halfOpenRetry)
	}
	return Permit{}, err
}

func (b *Breaker) permit(kind permitKind) Permit {
	var s *permitState
	if n := len(b.free); n > 0 {
		s, b.free = b.free[n-1], b.free[:n-1]
	} else {
		s = &permitState{}
	}
	s.kind, s.epoch = kind, b.epoch
	return Permit{b: b, s: s, seq: s.seq}
}

// Leave gives the permit back: the request has ended, h is what its end says about the server, and elapsed is how long
// it took. Only the first Leave of a Permit does anything. Mind that a deferred Leave takes its arguments at the time of
// the defer statement; Breaker.Do does it right.
//
// The outcome does not count if the breaker's state has changed meanwhile, with one exception. A probe that comes back
// after ProbeTimeout and was answered shows that it was slow and not hung. As many of them as the breaker wants probes,
// without a failure between, close it, so that operations that take longer than ProbeTimeout are not locked out.
func (p Permit) Leave(h Health, elapsed time.Duration) {
	if p.b == nil {
		return
	}
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	s := p.s
	if s.seq != p.seq {
		return
	}
	s.seq++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	kind, epoch := s.kind, s.epoch
	if len(b.free) < maxFreePermits {
		b.free = append(b.free, s)
	}
	slow := b.cfg.SlowCallRate > 0 && elapsed >= b.cfg.SlowCall
	switch {
	case kind == permitShadow:
		if h == HealthAlive {
			b.totals.WouldRejectAlive++
		}
	case kind == permitProbe && epoch == b.epoch:
		b.probes--
		b.bookProbe(h, slow)
	case kind == permitProbe:
		b.bookLate(epoch, h, slow)
	case epoch == b.epoch:
		b.bookCall(h, slow)
	}
}

// bookCall counts an outcome in the closed state.
func (b *Breaker) bookCall(h Health, slow bool) {
	if b.cfg.SlowCallRate > 0 && (slow || h == HealthAlive || h == HealthFailure) {
		count := b.slow.add(time.Now(), slow)
		if slow {
			b.why = b.cfg.slowReason(count.slow, count.calls)
			b.slowTrip = b.why != ""
		}
	}
	if b.slowTrip {
		h = HealthFailure // gobreaker opens on nothing else
	}
	b.book(h)
	b.slowTrip = false
}

func (b *Breaker) bookProbe(h Health, slow bool) {
	switch {
	case slow:
		h = HealthFailure
		b.why = fmt.Sprintf("a probe that took %s or longer", b.cfg.SlowCall)
	case h == HealthFailure:
		b.why = "a probe that failed"
	}
	if h == HealthFailure {
		b.lateAlive, b.lateFrom = 0, b.epoch+1
	}
	b.book(h)
}

// bookLate counts what a probe of an earlier epoch found.
func (b *Breaker) bookLate(epoch uint64, h Health, slow bool) {
	switch {
	case epoch < b.lateFrom: // all, once closed
	case h == HealthFailure || slow:
		b.lateAlive = 0
	case h == HealthAlive:
		if b.lateAlive++; b.lateAlive >= b.cfg.HalfOpenRequests {
			from := b.state
			b.renew()
			b.tell(from, b.state, time.Now(), time.Time{}, fmt.Sprintf("%d probes succeeded, late", b.cfg.HalfOpenRequests))
		}
	}
}

// lapse is called when a probe's time is over.
func (p Permit) lapse() {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.s.seq != p.seq || p.s.epoch != b.epoch {
		return
	}
	b.totals.ProbesLost++
	b.why = fmt.Sprintf("a probe that was not back within %s", b.cfg.ProbeTimeout)
	b.book(HealthFailure)
}

// The functions that gobreaker executes: an outcome each. They are made once, so that booking allocates nothing.
var (
	errFailure   = errors.New("failure")
	errNoOutcome = errors.New("no outcome")

	bookAlive   = func() (struct{}, error) { return struct{}{}, nil }
	bookFailure = func() (struct{}, error) { return struct{}{}, errFailure }
	bookUnknown = func() (struct{}, error) { return struct{}{}, errNoOutcome }
)

func isNoOutcome(err error) bool { return errors.Is(err, errNoOutcome) }

// book tells gobreaker of an outcome. It may change the state. gobreaker's own error, which is that of the function or
// says that it is open (it is never asked then), tells nothing new.
func (b *Breaker) book(h Health) {
	outcome := bookUnknown
	switch h {
	case HealthAlive:
		outcome = bookAlive
	case HealthFailure:
		outcome = bookFailure
	}
	_, _ = b.gb.Execute(outcome)
}
