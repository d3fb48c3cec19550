package schedule

import (
	"fmt"
	"slices"
	"time"
)

// Started is one run that a schedule started.
type Started struct {
	// ScheduledAt is when it was due, jitter included; of a run that was triggered, when that was.
	ScheduledAt time.Time
	StartedAt   time.Time
	WorkflowID  string
	RunID       string
}

// Seen is what Temporal tells of a schedule's past.
type Seen struct {
	// CreatedAt and UpdatedAt: starts from before either are not owed.
	CreatedAt, UpdatedAt time.Time
	Paused               bool
	// Started are the last ten or so runs, in any order.
	Started []Started
	// Running are the ids of those that have not ended.
	Running []string
	// Next is zero if there is none.
	Next time.Time
	// MissedCatchUp and SkippedOverlap count, since the schedule was made, starts that came too late and that met a run.
	MissedCatchUp, SkippedOverlap int
}

// FindingKind is a kind of Finding.
type FindingKind string

// The kinds of findings.
const (
	// FindingOverdue: the newest start that is due was not made.
	FindingOverdue FindingKind = "overdue"
	// FindingOverrun: it was not made because the run before is still going.
	FindingOverrun FindingKind = "overrun"
	// FindingMissed: earlier starts were not made, and one was made since. It is for the record.
	FindingMissed FindingKind = "missed"

	// The kinds of Change.Drift.
	FindingAbsent   FindingKind = "absent"
	FindingDiffers  FindingKind = "differs"
	FindingExtra    FindingKind = "extra"
	FindingConflict FindingKind = "conflict"
)

// Finding is something that should have been started and was not, or that will not be.
type Finding struct {
	Kind FindingKind `json:"kind"`
	// Since is the first start that was due and was not made; zero for drift.
	Since time.Time `json:"since,omitzero"`
	// Count is how many were not made, up to a thousand; 0 for drift.
	Count int `json:"count,omitempty"`
	// Text is the evidence and the remedy, for people.
	Text string `json:"text"`
}

// Urgent tells that the verb does not run as configured now, as opposed to a hole in its past.
func (f Finding) Urgent() bool { return f.Kind != FindingMissed }

// mostMissed bounds counting.
const mostMissed = 1000

// Grace is how long after it was due, jitter included, a start counts as overdue: five minutes, for Temporal to start it
// and tell so; less for intervals that are shorter, of which two may be late.
func (s Schedule) Grace() time.Duration {
	return min(5*time.Minute, 2*s.When.shortestGap()+10*time.Second)
}

// Overdue tells which starts of a schedule were due at now and were not made. It goes by the schedule's own times and not
// by Temporal's counters, which only ever rise, and know nothing of a time in which Temporal did not run. A start counts as
// made if any run was started at its time or after it, by hand too. A paused schedule owes nothing. s is as the
// configuration has it: a time zone that cannot be loaded makes it an error of Desired before.
func Overdue(s Schedule, seen Seen, now time.Time) []Finding {
	zone, err := time.LoadLocation(zoneName(s.TimeZone))
	if seen.Paused || err != nil {
		return nil
	}
	since := seen.CreatedAt
	if seen.UpdatedAt.After(since) {
		since = seen.UpdatedAt
	}
	started := slices.Clone(seen.Started)
	slices.SortFunc(started, func(a, b Started) int { return a.ScheduledAt.Compare(b.ScheduledAt) })

	var out []Finding
	due, ok := s.When.Before(now.Add(-s.Jitter-s.Grace()), zone)
	newest := since
	if len(started) > 0 && started[len(started)-1].ScheduledAt.After(since) {
		newest = started[len(started)-1].ScheduledAt
	}
	if ok && due.After(newest) {
		first, count := s.owed(newest, due, zone)
		out = append(out, s.late(first, count, seen.Running))
	}
	return append(out, s.missed(started, since, zone)...)
}

func (s Schedule) late(first time.Time, count int, running []string) Finding {
	at := first.UTC().Format(time.RFC3339)
	if len(running) > 0 {
		return Finding{FindingOverrun, first, count, fmt.Sprintf("%s is still going, so that the start due at %s was not made: see whether it hangs, or waits for a worker; else give it more time between two starts", running[0], at)}
	}
	return Finding{FindingOverdue, first, count, fmt.Sprintf("the start due at %s was not made: start it by `lifeboat schedule trigger %s %s`, and see whether Temporal runs", at, s.Mark.Cluster, s.Mark.Verb)}
}

// missed finds the holes between the runs that are known.
func (s Schedule) missed(started []Started, since time.Time, zone *time.Location) []Finding {
	total, first := 0, time.Time{}
	for i := 1; i < len(started); i++ {
		after := started[i-1].ScheduledAt
		if after.Before(since) {
			after = since
		}
		// The run itself stands for the newest start at its time or before.
		slot, ok := s.When.Before(started[i].ScheduledAt, zone)
		if !ok || !slot.After(after) {
			continue
		}
		at, count := s.owed(after, slot.Add(-time.Nanosecond), zone)
		if count > 0 && total == 0 {
			first = at
		}
		total += count
	}
	if total == 0 {
		return nil
	}
	return []Finding{{FindingMissed, first, total, fmt.Sprintf("%d earlier starts, from %s on, were not made: Temporal did not run or the schedule was paused for longer than the catch-up window, or a run took too long", total, first.UTC().Format(time.RFC3339))}}
}

// owed finds the first start after one time and not after another, and how many there are.
func (s Schedule) owed(after, until time.Time, zone *time.Location) (first time.Time, count int) {
	for count < mostMissed {
		at, ok := s.When.Before(until, zone)
		if !ok || !at.After(after) {
			break
		}
		first, count, until = at, count+1, at.Add(-time.Nanosecond)
	}
	return first, count
}
