package schedule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// IDPrefix begins the id of every schedule of Lifeboat's: lifeboat-CLUSTER-VERB.
const IDPrefix = "lifeboat-"

// ID names the schedule of a verb of a cluster.
func ID(cluster string, v Verb) string { return IDPrefix + cluster + "-" + string(v) }

// Mark is the memo by which Lifeboat knows its own schedules. TaskQueue tells apart what several configurations in one
// Temporal namespace made: each has its own queue, as workers of one queue must know all its clusters.
type Mark struct {
	Cluster   string `json:"cluster"`
	Verb      Verb   `json:"verb"`
	TaskQueue string `json:"taskQueue"`
}

// When is when a schedule starts something: at the times of a calendar, or at multiples of Every since the Unix epoch.
type When struct {
	Calendar *Calendar // nil: Every
	Every    time.Duration
	// Other is what an existing schedule has besides, in words: Lifeboat never makes such.
	Other string
}

// String is the same for two that mean the same times.
func (w When) String() string {
	text := "never"
	switch {
	case w.Calendar != nil:
		text = w.Calendar.String()
	case w.Every > 0:
		text = "every " + w.Every.String()
	}
	if w.Other != "" {
		text += " and " + w.Other
	}
	return text
}

// Before is the newest start that is due at t or before it, without jitter.
func (w When) Before(t time.Time, zone *time.Location) (time.Time, bool) {
	switch {
	case w.Calendar != nil:
		return w.Calendar.Before(t, zone)
	case w.Every > 0:
		return time.Unix(0, t.UnixNano()-t.UnixNano()%int64(w.Every)).UTC(), true
	}
	return time.Time{}, false
}

func (w When) shortestGap() time.Duration {
	if w.Calendar != nil {
		return w.Calendar.shortestGap()
	}
	return w.Every
}

// Schedule is one recurring run. As Desired makes it, it is complete.
type Schedule struct {
	ID   string
	Mark Mark
	// Text is the configuration's own words for When.
	Text string
	When When
	// TimeZone is an IANA name; "UTC" by default.
	TimeZone string
	Jitter   time.Duration
	Overlap  Overlap
	CatchUp  time.Duration
	// PauseOnFailure is never asked for: a schedule that stops at the first failure is how backups end unnoticed.
	PauseOnFailure bool

	Workflow string
	// Input is one JSON object.
	Input     string
	TaskQueue string
	Summary   string
	Remark    string
}

// Wish is one line of a configuration: how often a verb runs.
type Wish struct {
	Verb Verb
	// Cron is five fields, or Every is above 0. Neither: the verb is not wanted.
	Cron  string
	Every time.Duration
	// Text is what was written.
	Text string
}

// Cluster is what a configuration wants of one cluster.
type Cluster struct {
	Name string
	// TimeZone is an IANA name; "" is UTC.
	TimeZone string
	Wishes   []Wish
}

// Any tells whether the configuration asks for anything.
func (c Cluster) Any() bool {
	return slices.ContainsFunc(c.Wishes, func(w Wish) bool { return w.Cron != "" || w.Every != 0 })
}

// Skipped is a wish that this version cannot fulfil. It has no schedule.
type Skipped struct {
	Mark   Mark
	Text   string
	Reason string
}

// Options are what all clusters share.
type Options struct {
	TaskQueue string
}

// Desired turns wishes into schedules, in the order of clusters and verbs. A wish for what the
// contract refuses is Skipped.
func Desired(clusters []Cluster, opts Options) ([]Schedule, []Skipped, error) {
	var out []Schedule
	var skipped []Skipped
	for _, c := range clusters {
		zone := c.TimeZone
		if zone == "" {
			zone = time.UTC.String()
		}
		if _, err := time.LoadLocation(zone); err != nil {
			return nil, nil, fmt.Errorf("cluster %s: time zone %q: %w", c.Name, zone, err)
		}
		for _, w := range c.Wishes {
			if w.Cron == "" && w.Every == 0 {
				continue
			}
			s, reason, err := w.schedule(c.Name, zone, opts)
			if err != nil {
				return nil, nil, fmt.Errorf("cluster %s: schedule of %s: %w", c.Name, w.Verb, err)
			}
			if reason != "" {
				skipped = append(skipped, Skipped{s.Mark, w.Text, reason})
				continue
			}
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Schedule) int { return a.Mark.compare(b.Mark) })
	slices.SortFunc(skipped, func(a, b Skipped) int { return a.Mark.compare(b.Mark) })
	return out, skipped, nil
}

func (w Wish) schedule(cluster, zone string, opts Options) (s Schedule, skipped string, err error) {
	info, ok := infoOf(w.Verb)
	if !ok {
		return s, "", fmt.Errorf("unknown verb")
	}
	s = Schedule{
		ID: ID(cluster, w.Verb), Mark: Mark{cluster, w.Verb, opts.TaskQueue}, Text: w.Text, When: When{Every: w.Every},
		TimeZone: zone, Overlap: info.policy.overlap, CatchUp: info.policy.catchUp, Workflow: info.workflow,
		TaskQueue: opts.TaskQueue, Summary: fmt.Sprintf("Scheduled %s of %s", info.summary, cluster), Remark: info.remark,
	}
	if w.Cron != "" {
		if s.When.Calendar, err = ParseCron(w.Cron); err != nil {
			return s, "", err
		}
	} else if w.Every < time.Second || w.Every%time.Second != 0 {
		return s, "", fmt.Errorf("interval %v: Temporal takes whole seconds", w.Every)
	}
	s.Jitter = min(info.policy.jitter, s.When.shortestGap()/10).Truncate(time.Second)
	in := info.input(cluster)
	if err := in.Validate(); err != nil {
		what, _, _ := strings.Cut(err.Error(), " is not available in this version")
		return s, "not in this version: " + what, nil
	}
	data, err := json.Marshal(in)
	s.Input = string(data)
	return s, "", err
}

// compare orders by cluster, then by the order of the verbs.
func (m Mark) compare(other Mark) int {
	if c := strings.Compare(m.Cluster, other.Cluster); c != 0 {
		return c
	}
	all := Verbs()
	if c := slices.Index(all, m.Verb) - slices.Index(all, other.Verb); c != 0 {
		return c
	}
	return strings.Compare(string(m.Verb), string(other.Verb))
}
