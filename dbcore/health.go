package dbcore

import (
	"fmt"
	"time"
)

// DefaultHealthInterval is how often a HealthMonitor probes.
const DefaultHealthInterval = 500 * time.Millisecond

// maxDetection is how long a HealthMonitor may take to call a dead server down. NewHealthMonitor refuses settings that
// make it slower: a monitor that tells of an outage when everybody knows is none.
const maxDetection = 30 * time.Second

// HealthState is what a HealthMonitor thinks of a server.
type HealthState int

// The states. The zero value is ServerUnknown: no probe has ended yet.
const (
	ServerUnknown HealthState = iota
	// ServerUp: the last probes were answered.
	ServerUp
	// ServerSuspect: the last probe failed, too few of them in a row to be sure. Or the server answers and does not let
	// the monitor in, for as long as that lasts.
	ServerSuspect
	// ServerDown: HealthThresholds.DownAfter probes in a row have failed.
	ServerDown
)

// String returns unknown, up, suspect or down.
func (s HealthState) String() string {
	switch s {
	case ServerUp:
		return "up"
	case ServerSuspect:
		return "suspect"
	case ServerDown:
		return "down"
	}
	return "unknown"
}

// Role is what a server is in its cluster.
type Role int

// The roles. The zero value is RoleUnknown: no probe was answered yet.
const (
	RoleUnknown Role = iota
	RolePrimary
	RoleStandby
)

// String returns unknown, primary or standby.
func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleStandby:
		return "standby"
	}
	return "unknown"
}

// HealthThresholds say when a HealthMonitor changes its mind. A zero field has the default that its comment names; a
// negative one switches its alert off, where the field is one of an alert.
type HealthThresholds struct {
	// ProbeLimit is how long a probe may take in all, making its connection included; 0 is 1 s. At the end of it the probe
	// has failed.
	ProbeLimit time.Duration
	// DownAfter is how many probes in a row must fail before the server counts as down; 0 is 3. The first failure makes
	// it suspect.
	DownAfter int
	// UpAfter is how many probes in a row must pass before a server that was down counts as up; 0 is 2. From suspect one
	// is enough.
	UpAfter int

	// RaiseAfter is in how many probes in a row a threshold must be passed before its alert is raised; 0 is 3.
	RaiseAfter int
	// ClearAfter is in how many probes in a row it must be kept before the alert is cleared; 0 is 5.
	ClearAfter int

	// IdleShare is the share of open connections that may be idle, from 0 to 1; 0 is 0.8. More means that the pool is
	// larger than its load. It is not judged while no more than MinOpen are open.
	IdleShare float64
	// MinOpen is how many connections must be open; 0 is 1.
	MinOpen int
	// Wait is how long requests may wait for a connection of the pool; 0 is 1 s.
	Wait time.Duration
	// Ping is how long an empty round trip may take; 0 is 2 s. It can be longer than ProbeLimit: an unanswered ping
	// counts as long as it has gone unanswered.
	Ping time.Duration
	// Query is Ping for a small query; 0 is 3 s.
	Query time.Duration
	// Lag is how far a standby's data may be behind; 0 is 30 s. A lag that cannot be known passes it, too, once it has
	// been unknown for so long.
	Lag time.Duration
}

// DefaultHealthThresholds returns the defaults, spelt out.
func DefaultHealthThresholds() HealthThresholds { return HealthThresholds{}.withDefaults() }

func (t HealthThresholds) withDefaults() HealthThresholds {
	setDefault(&t.ProbeLimit, time.Second)
	setDefault(&t.DownAfter, 3)
	setDefault(&t.UpAfter, 2)
	setDefault(&t.RaiseAfter, 3)
	setDefault(&t.ClearAfter, 5)
	setDefault(&t.IdleShare, 0.8)
	setDefault(&t.MinOpen, 1)
	setDefault(&t.Wait, time.Second)
	setDefault(&t.Ping, 2*time.Second)
	setDefault(&t.Query, 3*time.Second)
	setDefault(&t.Lag, 30*time.Second)
	return t
}

func (t HealthThresholds) validate(interval time.Duration) error {
	switch {
	case interval < 0:
		return fmt.Errorf("%w: health interval %s is negative", ErrInvalidConfig, interval)
	case t.ProbeLimit < 0, t.DownAfter < 0, t.UpAfter < 0, t.RaiseAfter < 0, t.ClearAfter < 0:
		return fmt.Errorf("%w: health thresholds: ProbeLimit %s, DownAfter %d, UpAfter %d, RaiseAfter %d, ClearAfter %d: none may be negative",
			ErrInvalidConfig, t.ProbeLimit, t.DownAfter, t.UpAfter, t.RaiseAfter, t.ClearAfter)
	case t.IdleShare > 1:
		return fmt.Errorf("%w: health thresholds: IdleShare %g is a share and cannot be above 1 (0.8 is 80 %%)", ErrInvalidConfig, t.IdleShare)
	}
	if d := detectionBound(interval, t.ProbeLimit, t.DownAfter); d > maxDetection {
		return fmt.Errorf("%w: health: with a probe every %s, a limit of %s and DownAfter %d a dead server would be called down after up to %s, more than %s: lower one of them",
			ErrInvalidConfig, interval, t.ProbeLimit, t.DownAfter, d, maxDetection)
	}
	return nil
}

// HealthSnapshot is what a HealthMonitor knew at one moment.
type HealthSnapshot struct {
	// At is when the last probe ended; zero before the first.
	At time.Time
	// State is the verdict, and Since when it was reached.
	State HealthState
	Since time.Time
	// Role is that of the last answer; a server that is down may come back in another.
	Role Role
	// Err is why the last probe failed; nil if it passed.
	Err error
	// Pool is the pool's state, known also while the server is down.
	Pool PoolStats
	// Ping and Query are how long an empty round trip and a small query took. While there is no answer: for how long there
	// has been none.
	Ping, Query time.Duration
	// WAL is where a primary writes; 0 on a standby.
	WAL LSN
	// Lag is a standby's; nil on a primary, and before the first answer.
	Lag *Lag
	// Alerts are those that are open, in the order of their kinds.
	Alerts []HealthAlert

	answeredAt time.Time // when the last probe that passed ended
}

// AlertKind names a threshold.
type AlertKind string

// The kinds.
const (
	AlertIdle    AlertKind = "pool_idle" // HealthThresholds.IdleShare
	AlertMinOpen AlertKind = "pool_open" // HealthThresholds.MinOpen
	AlertWait    AlertKind = "pool_wait" // HealthThresholds.Wait
	AlertPing    AlertKind = "ping"      // HealthThresholds.Ping
	AlertQuery   AlertKind = "query"     // HealthThresholds.Query
	AlertLag     AlertKind = "lag"       // HealthThresholds.Lag
)

// HealthAlert is a threshold that was passed often enough.
type HealthAlert struct {
	Kind AlertKind
	// Since is when the alert was raised.
	Since time.Time
	// Text says what was measured when it was raised, and what was allowed.
	Text string
}

// HealthEventKind says which field of a HealthEvent matters.
type HealthEventKind string

// The kinds of events.
const (
	EventState    HealthEventKind = "state"    // From, To
	EventRole     HealthEventKind = "role"     // FromRole, ToRole
	EventRaised   HealthEventKind = "raised"   // Alert
	EventCleared  HealthEventKind = "cleared"  // Alert
	EventRecycled HealthEventKind = "recycled" // Text: the pool's connections are being replaced
)

// HealthEvent is a change that a HealthMonitor saw.
type HealthEvent struct {
	Kind             HealthEventKind
	At               time.Time
	From, To         HealthState
	FromRole, ToRole Role
	Alert            HealthAlert
	// Text says why, for people.
	Text string
}

// PoolStats is the state of a pool.
type PoolStats struct {
	// MaxOpen is how many connections there may be; Open how many there are, the ones being made included; Idle and InUse
	// how many of them are free and taken.
	MaxOpen, Open, Idle, InUse int
	// Waiting is how many requests wait for a connection at this moment.
	Waiting int
	// Waits is how many requests have had to wait since the pool was opened, WaitTime for how long altogether, and
	// GaveUp how many gave up.
	Waits    int64
	WaitTime time.Duration
	GaveUp   int64
	// Wait is the mean wait of the requests that ended one since the probe before; if none did while some wait, for how
	// long that has been so.
	Wait time.Duration
}
