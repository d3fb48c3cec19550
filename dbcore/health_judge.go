package dbcore

import (
	"fmt"
	"time"
)

// detectionBound is the longest time from a server's death to the verdict: it dies right after it has answered a probe,
// the next one begins an interval later, and probes that fail take their whole limit, or are followed by the next at
// the end of the interval if they fail sooner.
func detectionBound(interval, limit time.Duration, failures int) time.Duration {
	each := max(interval, limit)
	if failures > 0 && each > (1<<62)/time.Duration(failures) {
		return 1 << 62
	}
	return interval + time.Duration(failures-1)*each + limit
}

// outcome is what one probe says about the server.
type outcome int

const (
	probePassed outcome = iota
	// probeRefused: the server answered and turned the monitor away (credentials, a full server). It lives, so it is
	// never called down for that, and nobody knows whether it serves others.
	probeRefused
	probeFailed
)

// stateJudge makes a state of the outcomes of probes.
type stateJudge struct {
	state          HealthState
	failed, passed int // in a row
}

func (j *stateJudge) step(o outcome, t HealthThresholds) HealthState {
	if o == probePassed {
		j.failed, j.passed = 0, j.passed+1
		if j.state != ServerDown || j.passed >= t.UpAfter {
			j.state = ServerUp
		}
		return j.state
	}
	j.passed = 0
	if o == probeRefused {
		j.failed, j.state = 0, ServerSuspect
		return j.state
	}
	j.failed++
	if j.state == ServerDown || j.failed >= t.DownAfter {
		j.state = ServerDown
	} else {
		j.state = ServerSuspect
	}
	return j.state
}

// alarm is one alert's hysteresis.
type alarm struct {
	open      bool
	bad, good int // in a row
}

// step takes one measurement, and says whether the alert was raised or cleared by it.
func (a *alarm) step(passed bool, t HealthThresholds) (changed bool) {
	if passed {
		a.bad, a.good = a.bad+1, 0
	} else {
		a.bad, a.good = 0, a.good+1
	}
	switch {
	case !a.open && a.bad >= t.RaiseAfter, a.open && a.good >= t.ClearAfter:
		a.open = !a.open
		return true
	}
	return false
}

// breach is one threshold's measurement.
type breach struct {
	kind   AlertKind
	passed bool
	text   string // meaningful if passed
}

// breaches measures a snapshot. What was not measured (a lag that no standby has told yet) is not in the list, and what
// is switched off always holds, so that an alert which is open for it is cleared.
func breaches(s HealthSnapshot, t HealthThresholds) []breach {
	p := s.Pool
	list := []breach{
		{
			AlertIdle, t.IdleShare >= 0 && p.Open > t.MinOpen && float64(p.Idle) > t.IdleShare*float64(p.Open),
			fmt.Sprintf("%d of %d open connections are idle, more than %g %%: the pool is larger than its load", p.Idle, p.Open, t.IdleShare*100),
		},
		{AlertMinOpen, t.MinOpen >= 0 && p.Open < t.MinOpen, fmt.Sprintf("%d connections are open, fewer than %d", p.Open, t.MinOpen)},
		{
			AlertWait, t.Wait >= 0 && p.Wait > t.Wait,
			fmt.Sprintf("requests wait %s for a connection, longer than %s: %d of at most %d are in use, %d requests wait", p.Wait, t.Wait, p.InUse, p.MaxOpen, p.Waiting),
		},
		{AlertPing, t.Ping >= 0 && s.Ping > t.Ping, fmt.Sprintf("a ping takes %s, longer than %s", s.Ping, t.Ping)},
		{AlertQuery, t.Query >= 0 && s.Query > t.Query, fmt.Sprintf("a small query takes %s, longer than %s", s.Query, t.Query)},
	}
	if s.Lag != nil || s.Role == RolePrimary {
		b := breach{kind: AlertLag}
		if s.Lag != nil {
			b.passed, b.text = t.Lag >= 0 && s.Lag.Delay > t.Lag, fmt.Sprintf("the standby is at least %s behind, more than %s: %s", s.Lag.Delay, t.Lag, s.Lag.Reason)
		}
		list = append(list, b)
	}
	return list
}

// poolWatch turns pgxpool's sums into what happens now.
type poolWatch struct {
	waits      int64
	waitTime   time.Duration
	stuckSince time.Time // since when some wait and nobody's wait has ended; zero if not so
}

// step sets s.Wait.
func (w *poolWatch) step(now time.Time, s *PoolStats) {
	ended, took := s.Waits-w.waits, s.WaitTime-w.waitTime
	w.waits, w.waitTime = s.Waits, s.WaitTime
	if ended > 0 {
		s.Wait = took / time.Duration(ended)
	}
	switch {
	case s.Waiting == 0 || ended > 0:
		w.stuckSince = time.Time{}
	case w.stuckSince.IsZero():
		w.stuckSince = now
	}
	if !w.stuckSince.IsZero() {
		s.Wait = max(s.Wait, now.Sub(w.stuckSince))
	}
}

// poolStats reads the pool. Requests of this package count themselves before they ask for a connection: those that have
// none wait.
func (db *DB) poolStats() PoolStats {
	s := db.pool.Stat()
	inUse := int(s.AcquiredConns())
	return PoolStats{
		MaxOpen: int(s.MaxConns()), Open: int(s.TotalConns()), Idle: int(s.IdleConns()), InUse: inUse,
		Waiting: max(0, int(db.busy.Load())-inUse), Waits: s.EmptyAcquireCount(), WaitTime: s.EmptyAcquireWaitTime(),
		GaveUp: s.CanceledAcquireCount(),
	}
}
