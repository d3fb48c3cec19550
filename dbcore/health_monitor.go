package dbcore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// HealthMonitor watches one server and the pool to it. It probes on a connection of its own, so that a full pool does not
// look like a dead server, and at once when a request of the DB loses a connection.
//
// With the defaults (a probe every 500 ms with a limit of 1 s) a server that refuses, resets or hangs is suspect within
// 1.5 s, and down within 3.5 s. A probe costs two small round trips on the open connection, and one connection that is
// dropped before it logs in (which proves that the server takes new ones).
//
// When a server comes back from down, and when a primary has become a standby, it replaces the pool's connections by
// itself (DB.Recycle).
//
// It is safe for concurrent use.
type HealthMonitor struct {
	db         *DB
	interval   time.Duration
	thresholds HealthThresholds
	newProber  func() prober
	pool       func() PoolStats
	recycle    func(reason string)
	wake       chan struct{}
	events     healthQueue

	mu       sync.Mutex
	snapshot HealthSnapshot
	primary  func() primaryPosition
	cancel   context.CancelFunc // of Start
	ended    chan struct{}      // of Start

	// Of the goroutine that probes.
	judge    stateJudge
	alarms   map[AlertKind]*alarm
	watch    poolWatch
	lag      lagWatch
	answered time.Time // when the last answered probe ended
}

// ErrMonitorRunning says that a HealthMonitor was started twice.
var ErrMonitorRunning = errors.New("the health monitor is already running")

// NewHealthMonitor makes a monitor that probes every interval (0: 500 ms). It does nothing until Start or Run.
//
// Settings that make no sense, or under which a dead server would be called down only after more than 30 s, are
// ErrInvalidConfig.
func NewHealthMonitor(db *DB, interval time.Duration, t HealthThresholds) (*HealthMonitor, error) {
	t = t.withDefaults()
	setDefault(&interval, DefaultHealthInterval)
	if err := t.validate(interval); err != nil {
		return nil, err
	}
	m := newHealthMonitor(interval, t, func() prober { return newServerProber(db, t.ProbeLimit) }, db.poolStats, db.Recycle)
	m.db = db
	return m, nil
}

func newHealthMonitor(interval time.Duration, t HealthThresholds, newProber func() prober, pool func() PoolStats, recycle func(string)) *HealthMonitor {
	return &HealthMonitor{
		interval: interval, thresholds: t, newProber: newProber, pool: pool, recycle: recycle, wake: make(chan struct{}, 1),
		primary: func() primaryPosition { return primaryPosition{} }, alarms: map[AlertKind]*alarm{},
	}
}

// Start runs the monitor in the background until Stop. A monitor that runs already is ErrMonitorRunning.
func (m *HealthMonitor) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended != nil {
		return ErrMonitorRunning
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	m.cancel, m.ended = cancel, ended
	go func() {
		defer close(ended)
		m.run(ctx)
	}()
	return nil
}

// Stop ends what Start has begun, waits for it and for the callbacks that are still to come, and closes the monitor's
// connection. It must not be called from a callback. Stopping twice is harmless; the monitor can be started again.
func (m *HealthMonitor) Stop() {
	m.mu.Lock()
	cancel, ended := m.cancel, m.ended
	m.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	<-ended
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended == ended {
		m.cancel, m.ended = nil, nil
	}
}

// Run is Start and Stop for those who have a goroutine: it returns when ctx has ended, with nil, or at once with
// ErrMonitorRunning.
func (m *HealthMonitor) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.ended != nil {
		m.mu.Unlock()
		return ErrMonitorRunning
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	m.cancel, m.ended = cancel, ended
	m.mu.Unlock()
	m.run(ctx)
	close(ended)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended == ended {
		m.cancel, m.ended = nil, nil
	}
	return nil
}

// Snapshot returns what is known at present. It asks nobody and never waits for the server.
func (m *HealthMonitor) Snapshot() HealthSnapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snapshot
	s.Alerts = slices.Clone(s.Alerts)
	if s.Lag != nil {
		lag := *s.Lag
		s.Lag = &lag
	}
	return s
}

// OnChange has fn called for every change, one after another and in their order, on a goroutine of the monitor. A slow
// fn delays those behind it and not the probes; of more than 1,000 waiting events the oldest are dropped.
func (m *HealthMonitor) OnChange(fn func(HealthEvent)) (remove func()) { return m.events.subscribe(fn) }

// Probe has the server probed at once instead of at the end of the interval, as the monitor does by itself when a request
// of the DB loses its connection. It does not wait.
func (m *HealthMonitor) Probe() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Recycle replaces the pool's connections: see DB.Recycle. Whoever listens is told the reason.
func (m *HealthMonitor) Recycle(reason string) {
	m.recycle(reason)
	m.events.publish(HealthEvent{Kind: EventRecycled, At: time.Now(), Text: reason})
}

// FollowPrimary has a standby's lag measured against what primary's monitor last saw: without it a lag is known only as
// far as the standby itself was told. nil ends that.
func (m *HealthMonitor) FollowPrimary(primary *HealthMonitor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if primary == nil {
		m.primary = func() primaryPosition { return primaryPosition{} }
		return
	}
	m.primary = func() primaryPosition {
		s := primary.Snapshot()
		if s.Role != RolePrimary {
			return primaryPosition{}
		}
		return primaryPosition{s.WAL, s.answeredAt}
	}
}

// SetPrimaryLSN is FollowPrimary for who learns the primary's position in another way: it was lsn at the time at, by this
// process' clock.
func (m *HealthMonitor) SetPrimaryLSN(lsn LSN, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.primary = func() primaryPosition { return primaryPosition{lsn, at} }
}

// run probes until ctx ends.
func (m *HealthMonitor) run(ctx context.Context) {
	deliver := m.events.start()
	defer deliver()
	if m.db != nil {
		defer m.db.onSuspicion(func(string) { m.Probe() })()
	}
	p := m.newProber()
	defer p.close()
	m.answered = time.Now()
	for {
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, m.thresholds.ProbeLimit)
		r := p.probe(bounded)
		cancel()
		if ctx.Err() != nil {
			return // that the probe failed is our doing
		}
		m.note(time.Now(), r)
		if !m.pause(ctx, began) {
			return
		}
	}
}

// pause waits for the next probe: an interval after the last began, or sooner if something is suspected. Lost connections
// come in crowds, so there is a least distance.
func (m *HealthMonitor) pause(ctx context.Context, began time.Time) bool {
	const least = 20 * time.Millisecond
	for _, wait := range []struct {
		d    time.Duration
		wake <-chan struct{}
	}{{min(least, m.interval), nil}, {m.interval, m.wake}} {
		timer := time.NewTimer(wait.d - time.Since(began))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-wait.wake:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
	return ctx.Err() == nil
}

// note makes a snapshot of a probe's result, and tells what has changed.
func (m *HealthMonitor) note(now time.Time, r probeResult) {
	m.mu.Lock()
	s, primary := m.snapshot, m.primary
	m.mu.Unlock()
	before := s

	s.At, s.Err = now, r.err
	s.Pool = m.pool()
	m.watch.step(now, &s.Pool)
	s.Ping, s.Query = r.ping, r.query
	if r.err != nil {
		silent := now.Sub(m.answered)
		s.Ping, s.Query = max(r.ping, silent), max(r.query, silent)
	} else {
		m.answered, s.answeredAt = now, now
		s.Role, s.WAL = r.role, r.wal
	}
	m.noteLag(now, &s, r, primary)
	if s.State = m.judge.step(r.outcome, m.thresholds); s.State != before.State {
		s.Since = now
	}
	alerts := m.noteAlerts(now, &s)

	m.mu.Lock()
	m.snapshot = s
	m.mu.Unlock()
	m.tell(now, before, s, alerts)
}

// noteLag also goes on while a standby does not answer: it is out of touch then, whatever it does.
func (m *HealthMonitor) noteLag(now time.Time, s *HealthSnapshot, r probeResult, primary func() primaryPosition) {
	switch {
	case r.err == nil && r.role == RoleStandby:
		lag := m.lag.step(now, r.standby, primary())
		s.Lag = &lag
	case r.err == nil:
		m.lag, s.Lag = lagWatch{}, nil
	case s.Lag != nil:
		lag := *s.Lag
		lag.Known, lag.Delay = false, max(lag.Delay, now.Sub(m.lag.inTouch))
		lag.Reason = "the standby does not answer"
		s.Lag = &lag
	}
}

// noteAlerts brings s.Alerts up to date and returns what has changed.
func (m *HealthMonitor) noteAlerts(now time.Time, s *HealthSnapshot) []HealthEvent {
	var events []HealthEvent
	open := slices.Clone(s.Alerts)
	for _, b := range breaches(*s, m.thresholds) {
		a := m.alarms[b.kind]
		if a == nil {
			a = &alarm{}
			m.alarms[b.kind] = a
		}
		if !a.step(b.passed, m.thresholds) {
			continue
		}
		if a.open {
			alert := HealthAlert{Kind: b.kind, Since: now, Text: b.text}
			open = append(open, alert)
			events = append(events, HealthEvent{Kind: EventRaised, At: now, Alert: alert, Text: b.text})
			continue
		}
		i := slices.IndexFunc(open, func(o HealthAlert) bool { return o.Kind == b.kind })
		events = append(events, HealthEvent{Kind: EventCleared, At: now, Alert: open[i], Text: "no longer: " + open[i].Text})
		open = slices.Delete(open, i, i+1)
	}
	slices.SortFunc(open, func(a, b HealthAlert) int { return cmp.Compare(a.Kind, b.Kind) })
	s.Alerts = open
	return events
}

// tell publishes what has changed. The role comes before the state: who hears that a server is up again must know
// already what it is.
func (m *HealthMonitor) tell(now time.Time, before, s HealthSnapshot, alerts []HealthEvent) {
	if s.Role != before.Role {
		m.events.publish(HealthEvent{Kind: EventRole, At: now, FromRole: before.Role, ToRole: s.Role, Text: fmt.Sprintf("%s, was %s", s.Role, before.Role)})
	}
	if s.State != before.State {
		text := s.State.String()
		if s.Err != nil {
			text += ": " + s.Err.Error()
		}
		m.events.publish(HealthEvent{Kind: EventState, At: now, From: before.State, To: s.State, Text: text})
	}
	for _, e := range alerts {
		m.events.publish(e)
	}
	switch {
	case before.Role == RolePrimary && s.Role == RoleStandby:
		m.Recycle("the primary has become a standby")
	case before.State == ServerDown && s.State == ServerUp:
		m.Recycle("the server was down and is back")
	}
	if m.db != nil {
		if metrics, ok := m.db.policy.metrics.(interface{ Health(HealthSnapshot) }); ok {
			metrics.Health(m.Snapshot())
		}
	}
}
