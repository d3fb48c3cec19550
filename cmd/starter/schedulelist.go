package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/contract"
	"lifeboat/internal/schedule"
)

// listedSchedule is one schedule, as the configuration has it and as it runs.
type listedSchedule struct {
	Schedule string        `json:"schedule"`
	Cluster  string        `json:"cluster"`
	Verb     schedule.Verb `json:"verb"`
	Times    string        `json:"times"`
	TimeZone string        `json:"timeZone"`
	// State is active, paused, skipped (not in this version), absent (not applied), extra (not configured) or conflict.
	State string `json:"state"`
	// Note is why it is paused, or what else Temporal has as its note.
	Note string `json:"note"`
	// Verdict and Reason are those of the last run; SKIPPED for what this version cannot do. Empty: not known yet.
	Verdict contract.Verdict `json:"verdict"`
	Reason  string           `json:"reason"`
	Last    *listedRun       `json:"last"` // null: none yet
	Next    *time.Time       `json:"next"` // null: none will be started
	// MissedCatchUp and SkippedOverlap are Temporal's counters since the schedule was made.
	MissedCatchUp  int                `json:"missedCatchUp"`
	SkippedOverlap int                `json:"skippedOverlap"`
	Findings       []schedule.Finding `json:"findings"`
}

// listedRun is the newest run of a schedule.
type listedRun struct {
	WorkflowID  string          `json:"workflowId"`
	ScheduledAt time.Time       `json:"scheduledAt"`
	StartedAt   time.Time       `json:"startedAt"`
	Status      schedule.Status `json:"status"`
}

// scheduleList is what `schedule list` prints.
type scheduleList struct {
	// Verdict is FAIL if a finding says that a schedule does not run as configured, else PASS. It is not about what the
	// runs said.
	Verdict   contract.Verdict `json:"verdict"`
	Schedules []listedSchedule `json:"schedules"`
}

func newScheduleListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list [CLUSTER]",
		Short: "Show each schedule with its last and next run, and what is overdue",
		Long: "Show each schedule with its last run's verdict, its next run, and findings. Exits 3 if a schedule does not run as\n" +
			"configured: a start is overdue, a run blocks the next, or Temporal's schedules are not those of the configuration. What\n" +
			"the runs themselves said does not change the exit code: `lifeboat status` is about that.",
		Args: optional("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.scheduleList(cmd.Context(), args) },
	}
}

func (a *app) scheduleList(ctx context.Context, args []string) error {
	if len(args) > 0 {
		cfg, err := a.loadConfig()
		if err != nil {
			return err
		}
		if _, err := cfg.Cluster(args[0]); err != nil {
			return &configError{err}
		}
	}
	r, err := a.reconcile(ctx)
	if err != nil {
		return err
	}
	defer r.connection.Close()
	out := scheduleList{Verdict: contract.Pass, Schedules: []listedSchedule{}}
	for _, c := range r.plan.Changes {
		if len(args) > 0 && c.Mark.Cluster != args[0] {
			continue
		}
		one, err := r.look(ctx, c, time.Now())
		if err != nil {
			return err
		}
		for _, f := range one.Findings {
			if f.Urgent() {
				out.Verdict = contract.Fail
			}
		}
		out.Schedules = append(out.Schedules, one)
	}
	if err := a.printScheduleList(out); err != nil {
		return err
	}
	return verdictError(out.Verdict)
}

// look finds out how one schedule fares.
func (r *reconciliation) look(ctx context.Context, c schedule.Change, now time.Time) (listedSchedule, error) {
	one := listedSchedule{
		Schedule: c.ID, Cluster: c.Mark.Cluster, Verb: c.Mark.Verb, Times: c.Schedule.Text, TimeZone: c.Schedule.TimeZone,
		Note: c.Note, Findings: []schedule.Finding{}, State: "active",
	}
	if f, drifts := c.Drift(); drifts {
		one.Findings = append(one.Findings, f)
	}
	switch c.Action {
	case schedule.Skip:
		one.State, one.Verdict, one.Reason, one.Times = "skipped", contract.Skipped, c.Reason, r.skipped[c.ID].Text
		return one, nil
	case schedule.Create:
		one.State = "absent"
		return one, nil
	case schedule.Conflict:
		one.State = "conflict"
		return one, nil
	case schedule.Delete:
		e := r.have[c.ID]
		one.State, one.Times, one.TimeZone = "extra", e.Text, e.TimeZone
	}
	seen, ok, err := r.Seen(ctx, c.ID)
	if err != nil || !ok {
		return one, err
	}
	if seen.Paused {
		one.State = "paused"
	}
	one.MissedCatchUp, one.SkippedOverlap = seen.MissedCatchUp, seen.SkippedOverlap
	if !seen.Next.IsZero() {
		next := seen.Next.UTC()
		one.Next = &next
	}
	if d, ok := r.desired[c.ID]; ok {
		one.Findings = append(one.Findings, schedule.Overdue(d, seen, now)...)
	}
	return one, r.lastRun(ctx, &one, seen)
}

func (r *reconciliation) lastRun(ctx context.Context, one *listedSchedule, seen schedule.Seen) error {
	newest := schedule.Started{}
	for _, s := range seen.Started {
		if s.WorkflowID != "" && s.StartedAt.After(newest.StartedAt) {
			newest = s
		}
	}
	if newest.WorkflowID == "" {
		return nil
	}
	run, err := r.RunOf(ctx, newest)
	if err != nil {
		return err
	}
	one.Last = &listedRun{newest.WorkflowID, newest.ScheduledAt.UTC(), newest.StartedAt.UTC(), run.Status}
	one.Verdict, one.Reason = run.Verdict()
	return nil
}

func (a *app) printScheduleList(l scheduleList) error {
	if a.json {
		return a.printJSON(l)
	}
	err := a.table(func(p *printer) {
		p.line("CLUSTER\tVERB\tTIMES\tSTATE\tLAST\tVERDICT\tNEXT")
		for _, s := range l.Schedules {
			last, verdict := "-", string(s.Verdict)
			if s.Last != nil {
				last = when(&s.Last.StartedAt)
				if verdict == "" {
					verdict = string(s.Last.Status)
				}
			}
			if verdict == "" {
				verdict = "-"
			}
			times := s.Times
			if s.TimeZone != "" && s.TimeZone != "UTC" {
				times += " " + s.TimeZone
			}
			p.line("%s\t%s\t%s\t%s\t%s\t%s\t%s", s.Cluster, s.Verb, times, s.State, last, verdict, when(s.Next))
		}
	})
	if err != nil {
		return err
	}
	return a.lines(func(p *printer) {
		for _, s := range l.Schedules {
			if s.Reason != "" {
				p.line("%s: %s: %s", s.Schedule, orElse(string(s.Verdict), "last run"), oneLine(s.Reason))
			}
			if s.Note != "" {
				p.line("%s: %s: %s", s.Schedule, s.State, oneLine(s.Note))
			}
			for _, f := range s.Findings {
				p.line("%s: %s: %s", s.Schedule, strings.ToUpper(string(f.Kind)), f.Text)
			}
		}
		if len(l.Schedules) == 0 {
			p.line("no schedules: write them under schedules in lifeboat.yaml and run `lifeboat schedule apply`")
		}
	})
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
