package recovery

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lifeboat/internal/pg"
)

// Kind says what a Target names.
type Kind string

// The kinds of targets that PostgreSQL knows (runtime-config-wal, "Recovery Target").
const (
	Time      Kind = "time"      // the last transaction that ended at or before it (R19)
	LSN       Kind = "lsn"       // the record at it is the last that is replayed
	XID       Kind = "xid"       // the transaction that is the last to be committed
	Name      Kind = "name"      // a pg_create_restore_point
	Immediate Kind = "immediate" // as soon as the backup is consistent
	Latest    Kind = "latest"    // the end of the gap-free WAL at the time of the plan (R3)
)

// Target is what a restore aims at. The zero value is Latest.
type Target struct {
	Kind Kind `json:"kind"`
	// Value is the text form of what Kind names: a time in RFC 3339 with a zone, an LSN, an xid, a name.
	Value string `json:"value,omitempty"`
	// Exclusive stops just before what is named, not just after it. For Time: transactions at exactly that time are left
	// out. PostgreSQL knows it for Time, LSN and XID only (recovery_target_inclusive).
	Exclusive bool `json:"exclusive,omitempty"`
}

// goal is a Target that was understood.
type goal struct {
	Target
	time time.Time
	lsn  pg.LSN
	xid  uint32
}

// parse understands a target, or says what is wrong with it.
func (t Target) parse() (goal, error) {
	g := goal{Target: t}
	var err error
	switch t.Kind {
	case "":
		g.Kind = Latest
	case Latest, Immediate:
	case Time:
		if g.time, err = time.Parse(time.RFC3339Nano, t.Value); err != nil {
			return g, fmt.Errorf("target time %q: write it with a zone, as 2026-11-23T07:45:00.123456Z", t.Value)
		}
		// PostgreSQL counts microseconds; rounding up could let in what came later.
		g.time = g.time.UTC().Truncate(time.Microsecond)
		if y := g.time.Year(); y < 1 || y > 9999 { // PostgreSQL has no year 0, and the plan's text no fifth digit
			return g, fmt.Errorf("target time %q: in UTC it is of the year %d, want 1 to 9999", t.Value, y)
		}
		g.Value = g.time.Format("2006-01-02T15:04:05.999999Z")
	case LSN:
		if g.lsn, err = pg.ParseLSN(t.Value); err != nil {
			return g, fmt.Errorf("target lsn: %w", err)
		}
		g.Value = g.lsn.String()
	case XID:
		n, err := strconv.ParseUint(t.Value, 10, 32)
		if err != nil || n < 3 {
			return g, fmt.Errorf("target xid %q: write the number of a transaction, 3 or more", t.Value)
		}
		g.xid = uint32(n)
		g.Value = strconv.FormatUint(n, 10)
	case Name:
		if t.Value == "" || len(t.Value) > 63 || strings.ContainsRune(t.Value, 0) {
			return g, fmt.Errorf("target name %q: a restore point's name has 1 to 63 bytes", t.Value)
		}
	default:
		return g, fmt.Errorf("target kind %q: use time, lsn, xid, name, immediate or latest", t.Kind)
	}
	if t.Value != "" && (g.Kind == Latest || g.Kind == Immediate) {
		return g, fmt.Errorf("target %s takes no value", g.Kind)
	}
	if t.Exclusive && (g.Kind == Latest || g.Kind == Immediate || g.Kind == Name) {
		return g, fmt.Errorf("target %s cannot be exclusive: only a time, an lsn or an xid can", g.Kind)
	}
	return g, nil
}

// String says it for people.
func (t Target) String() string {
	s := strings.TrimSpace(string(t.Kind) + " " + t.Value)
	if t.Kind == "" {
		s = string(Latest)
	}
	if t.Exclusive {
		s += " (exclusive)"
	}
	return s
}

// Action is what the server does at the target. The zero value is Promote.
type Action string

// The actions.
const (
	Promote  Action = "promote"  // end recovery on a new timeline and take writes
	Pause    Action = "pause"    // stay readable at the target
	Shutdown Action = "shutdown" // stop, ready to be recovered further
)

func (a Action) check() (Action, error) {
	switch a {
	case "":
		return Promote, nil
	case Promote, Pause, Shutdown:
		return a, nil
	}
	return a, fmt.Errorf("action %q: use promote, pause or shutdown", a)
}

// RefusedError says that a restore was refused for safety, before anything was changed.
type RefusedError struct {
	Reason string
	Hint   string // what the person can do instead; may be empty
}

// Error gives the reason and the hint.
func (e *RefusedError) Error() string {
	if e.Hint == "" {
		return "refused: " + e.Reason
	}
	return "refused: " + e.Reason + "; " + e.Hint
}

func refuse(hint, format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...), Hint: hint}
}
