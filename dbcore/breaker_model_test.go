package dbcore_test

import (
	"slices"
	"time"

	"lifeboat/dbcore"
)

// breakerModel says how a breaker behaves, in the simplest way: it keeps all calls and looks through them each time.
type breakerModel struct {
	cfg   dbcore.BreakerConfig // with everything set
	mode  dbcore.BreakerMode
	state dbcore.BreakerState
	epoch int
	since time.Time // of the state
	until time.Time // of BreakerOpen

	calls   []modelCall // since the last change of state
	probes  []*modelPermit
	late    int
	lateMin int // the first epoch whose probes count when they are late

	totals dbcore.BreakerCounts
	moves  []modelMove
}

type modelCall struct {
	at   time.Time
	h    dbcore.Health
	slow bool
}

type modelPermit struct {
	kind     string // "", call, probe or shadow
	epoch    int
	deadline time.Time
	done     bool
}

// modelMove is a change of state that the model expects. How long the breaker then is open is random: the test sets
// breakerModel.until to what the breaker says.
type modelMove struct {
	from, to dbcore.BreakerState
	at       time.Time
}

func newBreakerModel(cfg dbcore.BreakerConfig, now time.Time) *breakerModel {
	m := &breakerModel{cfg: cfg, mode: cfg.Mode}
	m.become(dbcore.BreakerClosed, now)
	return m
}

func (m *breakerModel) visible() dbcore.BreakerState {
	if m.mode == dbcore.ModeForceOpen {
		return dbcore.BreakerOpen
	}
	return m.state
}

func (m *breakerModel) become(s dbcore.BreakerState, at time.Time) {
	m.state, m.since = s, at
	m.epoch++
	m.calls, m.probes = nil, nil
	if s == dbcore.BreakerOpen {
		m.until = time.Time{}
	}
	if s == dbcore.BreakerClosed {
		m.late, m.lateMin = 0, m.epoch
	}
}

func (m *breakerModel) move(to dbcore.BreakerState, at time.Time) {
	m.moves = append(m.moves, modelMove{m.state, to, at})
	m.become(to, at)
	if to == dbcore.BreakerOpen {
		m.totals.Opened++
	}
}

// passed is called when time has passed.
func (m *breakerModel) passed(now time.Time) {
	if m.state != dbcore.BreakerHalfOpen {
		return
	}
	var first *modelPermit
	for _, p := range m.probes {
		if !p.done && !p.deadline.After(now) && (first == nil || p.deadline.Before(first.deadline)) {
			first = p
		}
	}
	if first != nil {
		m.totals.ProbesLost++
		m.move(dbcore.BreakerOpen, first.deadline)
	}
}

func (m *breakerModel) ask(now time.Time) {
	if m.state == dbcore.BreakerOpen && !m.until.IsZero() && !now.Before(m.until) {
		m.move(dbcore.BreakerHalfOpen, now)
	}
}

func (m *breakerModel) enter(now time.Time) (p *modelPermit, ok bool) {
	switch {
	case m.mode == dbcore.ModeDisabled:
		return &modelPermit{}, true
	case m.mode == dbcore.ModeForceOpen:
		m.totals.Rejected++
		return nil, false
	}
	m.ask(now)
	switch {
	case m.state == dbcore.BreakerClosed:
		return &modelPermit{kind: "call", epoch: m.epoch}, true
	case m.state == dbcore.BreakerHalfOpen && m.busyProbes() < int(m.cfg.HalfOpenRequests):
		p := &modelPermit{kind: "probe", epoch: m.epoch, deadline: now.Add(m.cfg.ProbeTimeout)}
		m.probes = append(m.probes, p)
		return p, true
	case m.mode == dbcore.ModeMonitor:
		m.totals.WouldReject++
		return &modelPermit{kind: "shadow"}, true
	}
	m.totals.Rejected++
	return nil, false
}

// busyProbes is how many probes are under way or have succeeded.
func (m *breakerModel) busyProbes() int {
	n := m.count(dbcore.HealthAlive)
	for _, p := range m.probes {
		if !p.done {
			n++
		}
	}
	return n
}

func (m *breakerModel) leave(p *modelPermit, h dbcore.Health, elapsed time.Duration, now time.Time) {
	if p.done {
		return
	}
	p.done = true
	slow := m.cfg.SlowCallRate > 0 && elapsed >= m.cfg.SlowCall
	switch {
	case p.kind == "shadow" && h == dbcore.HealthAlive:
		m.totals.WouldRejectAlive++
	case p.kind == "call" && p.epoch == m.epoch:
		m.forget(now)
		m.calls = append(m.calls, modelCall{now, h, slow})
		if m.trips(h, slow) {
			m.move(dbcore.BreakerOpen, now)
		}
	case p.kind == "probe" && p.epoch == m.epoch:
		if slow || h == dbcore.HealthFailure {
			m.late, m.lateMin = 0, m.epoch+1
			m.move(dbcore.BreakerOpen, now)
			return
		}
		m.calls = append(m.calls, modelCall{now, h, false})
		if m.count(dbcore.HealthAlive) == int(m.cfg.HalfOpenRequests) {
			m.move(dbcore.BreakerClosed, now)
		}
	case p.kind == "probe" && p.epoch >= m.lateMin && m.state != dbcore.BreakerClosed:
		if slow || h == dbcore.HealthFailure {
			m.late = 0
		} else if h == dbcore.HealthAlive {
			m.late++
			if m.late == int(m.cfg.HalfOpenRequests) {
				m.move(dbcore.BreakerClosed, now)
			}
		}
	}
}

// forget drops the calls that are no longer within the interval.
func (m *breakerModel) forget(now time.Time) {
	if m.state != dbcore.BreakerClosed {
		return
	}
	buckets := time.Duration(m.cfg.Buckets)
	period := (m.cfg.Interval + buckets - 1) / buckets
	bucket := func(t time.Time) int { return int(t.Sub(m.since) / period) }
	m.calls = slices.DeleteFunc(m.calls, func(c modelCall) bool { return bucket(now)-bucket(c.at) >= m.cfg.Buckets })
}

func (m *breakerModel) count(h dbcore.Health) int {
	n := 0
	for _, c := range m.calls {
		if c.h == h {
			n++
		}
	}
	return n
}

func (m *breakerModel) consecutive() int {
	n := 0
	for _, c := range m.calls {
		switch c.h {
		case dbcore.HealthAlive:
			n = 0
		case dbcore.HealthFailure:
			n++
		}
	}
	return n
}

func (m *breakerModel) slow() (slow, calls int) {
	for _, c := range m.calls {
		if c.slow {
			slow++
		}
		if m.cfg.SlowCallRate > 0 && (c.slow || c.h != dbcore.HealthUnknown) {
			calls++
		}
	}
	return slow, calls
}

func (m *breakerModel) trips(h dbcore.Health, slow bool) bool {
	failures, calls := m.count(dbcore.HealthFailure), m.count(dbcore.HealthFailure)+m.count(dbcore.HealthAlive)
	slowCalls, timed := m.slow()
	minimum := int(m.cfg.MinimumCalls)
	return h == dbcore.HealthFailure && m.consecutive() >= int(m.cfg.ConsecutiveFailures) ||
		h == dbcore.HealthFailure && m.cfg.FailureRate > 0 && calls >= minimum && float64(failures) >= m.cfg.FailureRate*float64(calls) ||
		slow && timed >= minimum && float64(slowCalls) >= m.cfg.SlowCallRate*float64(timed)
}

func (m *breakerModel) force(mode dbcore.BreakerMode, now time.Time) {
	if mode == m.mode {
		return
	}
	from := m.visible()
	if mode >= dbcore.ModeDisabled || m.mode >= dbcore.ModeDisabled {
		m.become(dbcore.BreakerClosed, now)
	}
	m.mode = mode
	if to := m.visible(); to != from {
		m.moves = append(m.moves, modelMove{from, to, now})
		if to == dbcore.BreakerOpen {
			m.totals.Opened++
		}
	}
}

func (m *breakerModel) reset(now time.Time) {
	from := m.visible()
	m.become(dbcore.BreakerClosed, now)
	if to := m.visible(); to != from {
		m.moves = append(m.moves, modelMove{from, to, now})
	}
}

func (m *breakerModel) counts(now time.Time) dbcore.BreakerCounts {
	m.ask(now)
	m.forget(now)
	c := m.totals
	c.Alive, c.Failures, c.Unknown = uint32(m.count(dbcore.HealthAlive)), uint32(m.count(dbcore.HealthFailure)), uint32(m.count(dbcore.HealthUnknown))
	c.ConsecutiveFailures = uint32(m.consecutive())
	slow, _ := m.slow()
	c.Slow = uint32(slow)
	return c
}
