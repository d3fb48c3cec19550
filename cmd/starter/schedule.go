package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/schedule"
)

func newScheduleCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedule",
		Short: "Temporal Schedules from the configuration: apply, list, pause, resume, trigger",
		Long: "What `schedules:` of lifeboat.yaml asks for is started by Temporal, once `apply` has told it. Schedules of others are\n" +
			"never touched. See docs/schedules.md for the policy of each verb.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newScheduleApplyCommand(a), newScheduleListCommand(a), newSchedulePauseCommand(a, true), newSchedulePauseCommand(a, false),
		newScheduleTriggerCommand(a))
	return cmd
}

func newScheduleApplyCommand(a *app) *cobra.Command {
	var planOnly bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make Temporal's schedules those of the configuration",
		Long: "Make Temporal's schedules those of the configuration: create, change and remove. What is paused stays paused. Twice\n" +
			"is once: the second run changes nothing. Exits 5, and changes nothing, if a name is taken by somebody else's schedule.",
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.scheduleApply(cmd.Context(), planOnly) },
	}
	cmd.Flags().BoolVar(&planOnly, "plan", false, "print what would be done, and do nothing")
	return cmd
}

func newSchedulePauseCommand(a *app, pause bool) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "pause CLUSTER [VERB]", Short: "Pause the schedules of a cluster, or one; what runs goes on",
		Args: clusterAndVerb(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pause && strings.TrimSpace(reason) == "" {
				return usagef("--reason is required: whoever finds the schedule paused must learn why")
			}
			return a.schedulePause(cmd.Context(), args, pause, reason)
		},
	}
	if !pause {
		cmd.Use, cmd.Short = "resume CLUSTER [VERB]", "Resume paused schedules; what was due meanwhile is not made up for"
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever looks at the schedule next")
	return cmd
}

func newScheduleTriggerCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "trigger CLUSTER VERB",
		Short: "Start a scheduled run now, also of a paused schedule",
		Args:  clusterAndVerb(true),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.scheduleTrigger(cmd.Context(), args) },
	}
}

// clusterAndVerb takes CLUSTER and, required or not, a VERB that there is.
func clusterAndVerb(required bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		names := []string{"CLUSTER", "VERB"}
		if len(args) < 2 && !required {
			names = names[:1]
		}
		if err := arguments(names...)(cmd, args); err != nil || len(args) < 2 {
			return err
		}
		if !slices.Contains(schedule.Verbs(), assemble.ScheduleVerb(args[1])) {
			return fmt.Errorf("unknown verb %q: it is one of %s", args[1], strings.Join(verbNames(), ", "))
		}
		return nil
	}
}

func verbNames() []string {
	var out []string
	for _, v := range schedule.Verbs() {
		out = append(out, string(v))
	}
	return out
}

// reconciliation is Temporal's schedules beside those of the configuration.
type reconciliation struct {
	*activities.Schedules
	connection *connection
	taskQueue  string
	plan       schedule.Plan
	// desired are those of the configuration, by id.
	desired map[string]schedule.Schedule
	skipped map[string]schedule.Skipped
	have    map[string]schedule.Existing
}

// reconcile compares. The caller closes the connection.
func (a *app) reconcile(ctx context.Context) (*reconciliation, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	r := &reconciliation{
		taskQueue: cfg.Worker.TaskQueue, desired: map[string]schedule.Schedule{}, skipped: map[string]schedule.Skipped{},
		have: map[string]schedule.Existing{},
	}
	desired, skipped, err := schedule.Desired(assemble.Schedules(cfg), schedule.Options{TaskQueue: r.taskQueue})
	if err != nil {
		return nil, &hinted{&configError{err}, "mend it under schedules in " + cfg.File()}
	}
	if r.connection, err = a.dial(ctx); err != nil {
		return nil, err
	}
	r.Schedules = activities.NewSchedules(r.connection)
	existing, err := schedule.Read(ctx, r, cfg.ClusterNames())
	if err != nil {
		r.connection.Close()
		return nil, err
	}
	for _, d := range desired {
		r.desired[d.ID] = d
	}
	for _, s := range skipped {
		r.skipped[schedule.ID(s.Mark.Cluster, s.Mark.Verb)] = s
	}
	for _, e := range existing {
		r.have[e.ID] = e
	}
	r.plan = schedule.MakePlan(desired, skipped, existing, r.taskQueue)
	return r, nil
}

// scheduleChange is a line of a plan, as it is printed.
type scheduleChange struct {
	Schedule    string                `json:"schedule"`
	Cluster     string                `json:"cluster"`
	Verb        schedule.Verb         `json:"verb"`
	Action      schedule.Action       `json:"action"`
	Times       string                `json:"times"`
	Differences []schedule.Difference `json:"differences"`
	Reason      string                `json:"reason"`
	Paused      bool                  `json:"paused"`
}

// scheduleReport is what `schedule apply` prints.
type scheduleReport struct {
	TaskQueue string           `json:"taskQueue"`
	Applied   bool             `json:"applied"`
	Created   int              `json:"created"`
	Updated   int              `json:"updated"`
	Deleted   int              `json:"deleted"`
	Unchanged int              `json:"unchanged"`
	Skipped   int              `json:"skipped"`
	Changes   []scheduleChange `json:"changes"`
}

func (a *app) scheduleApply(ctx context.Context, planOnly bool) error {
	r, err := a.reconcile(ctx)
	if err != nil {
		return err
	}
	defer r.connection.Close()
	if planOnly {
		return errors.Join(a.printScheduleReport(r.report(r.plan.Changes, false)), scheduleError(r.plan.Conflicts()))
	}
	done, err := schedule.Execute(ctx, r, r.plan)
	if err = scheduleError(err); err != nil && len(done) == 0 {
		return err
	}
	return errors.Join(a.printScheduleReport(r.report(done, true)), err)
}

// scheduleError gives an error of schedules its code and hint.
func scheduleError(err error) error {
	var conflict *schedule.ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return &hinted{&coded{err, contract.ErrorRefused}, conflict.Remedy()}
	case strings.Contains(err.Error(), contract.AttributeCluster):
		return &hinted{err, "the namespace lacks Lifeboat's search attributes: lifeboat-worker adds them, or tells in its log how to"}
	}
	return err
}

// report tells of a plan, or of what was done of one and what needed nothing.
func (r *reconciliation) report(done []schedule.Change, applied bool) scheduleReport {
	out := scheduleReport{TaskQueue: r.taskQueue, Applied: applied, Changes: []scheduleChange{}}
	for _, c := range r.plan.Changes {
		made := slices.ContainsFunc(done, func(d schedule.Change) bool { return d.ID == c.ID && d.Action == c.Action })
		switch {
		case c.Action == schedule.Unchanged:
			out.Unchanged++
		case c.Action == schedule.Skip:
			out.Skipped++
		case applied && !made:
			continue // it is in the error
		case c.Action == schedule.Create:
			out.Created++
		case c.Action == schedule.Update:
			out.Updated++
		case c.Action == schedule.Delete:
			out.Deleted++
		}
		line := scheduleChange{
			Schedule: c.ID, Cluster: c.Mark.Cluster, Verb: c.Mark.Verb, Action: c.Action, Times: c.Schedule.Text,
			Differences: c.Differences, Reason: c.Reason, Paused: c.Paused,
		}
		if s, ok := r.skipped[c.ID]; ok && c.Action == schedule.Skip {
			line.Times = s.Text
		}
		if line.Differences == nil {
			line.Differences = []schedule.Difference{}
		}
		out.Changes = append(out.Changes, line)
	}
	return out
}

func (a *app) printScheduleReport(r scheduleReport) error {
	if a.json {
		return a.printJSON(r)
	}
	return a.lines(func(p *printer) {
		for _, c := range r.Changes {
			p.line("%-9s  %s", c.Action, strings.Join(nonEmpty(c.Schedule, c.Times, c.Reason, pausedWord(c.Paused)), "  "))
			for _, d := range c.Differences {
				p.line("           %s: %s -> %s", d.Property, d.Is, d.Shall)
			}
		}
		word := "to do"
		if r.Applied {
			word = "done"
		}
		p.line("%s: %d created, %d changed, %d removed; %d as they were, %d not in this version", word, r.Created, r.Updated, r.Deleted, r.Unchanged, r.Skipped)
	})
}

func pausedWord(paused bool) string {
	if paused {
		return "(paused)"
	}
	return ""
}

func nonEmpty(all ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// owned finds the schedules of a cluster, or the one of a verb, that Temporal has.
func (r *reconciliation) owned(args []string) ([]string, error) {
	cluster, verbs := args[0], schedule.Verbs()
	if len(args) > 1 {
		verbs = []schedule.Verb{assemble.ScheduleVerb(args[1])}
	}
	var ids []string
	for _, v := range verbs {
		id := schedule.ID(cluster, v)
		if _, ok := r.have[id]; ok {
			ids = append(ids, id)
		} else if s, ok := r.skipped[id]; ok && len(args) > 1 {
			return nil, &hinted{&coded{fmt.Errorf("there is no schedule %s: %s", id, s.Reason), contract.ErrorConfiguration}, "`lifeboat schedule list` shows which there are"}
		}
	}
	if len(ids) == 0 {
		return nil, &hinted{
			&coded{fmt.Errorf("there is no schedule of %s in Temporal", strings.Join(args, " ")), contract.ErrorConfiguration},
			"write it under schedules in lifeboat.yaml and run `lifeboat schedule apply`; `lifeboat schedule list` shows which there are",
		}
	}
	return ids, nil
}

func (a *app) schedulePause(ctx context.Context, args []string, pause bool, reason string) error {
	r, err := a.reconcile(ctx)
	if err != nil {
		return err
	}
	defer r.connection.Close()
	ids, err := r.owned(args)
	if err != nil {
		return err
	}
	changed := []string{}
	for _, id := range ids {
		if r.have[id].Paused == pause {
			continue
		}
		if err := r.SetPaused(ctx, id, pause, pauseNote(pause, reason, time.Now()), schedule.Ours(r.taskQueue)); err != nil {
			return scheduleError(fmt.Errorf("schedule %s: %w", id, err))
		}
		changed = append(changed, id)
	}
	word := "resumed"
	if pause {
		word = "paused"
	}
	if a.json {
		return a.printJSON(map[string]any{"paused": pause, "changed": changed})
	}
	return a.lines(func(p *printer) {
		for _, id := range ids {
			if slices.Contains(changed, id) {
				p.line("%s %s", word, id)
			} else {
				p.line("%s was %s already", id, word)
			}
		}
	})
}

// pauseNote tells who did it, why and when.
func pauseNote(pause bool, reason string, now time.Time) string {
	word, who := "resumed", "somebody"
	if pause {
		word = "paused"
	}
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	text := fmt.Sprintf("%s by %s at %s", word, who, now.UTC().Format(time.RFC3339))
	if reason != "" {
		text = reason + " (" + text + ")"
	}
	return text
}

const (
	// triggerPatience is how long the run of a trigger may take to show.
	triggerPatience = 30 * time.Second
	triggerPoll     = 200 * time.Millisecond
)

func (a *app) scheduleTrigger(ctx context.Context, args []string) error {
	r, err := a.reconcile(ctx)
	if err != nil {
		return err
	}
	defer r.connection.Close()
	ids, err := r.owned(args)
	if err != nil {
		return err
	}
	id := ids[0]
	if err := schedule.Ours(r.taskQueue)(r.have[id]); err != nil {
		return scheduleError(err)
	}
	before, _, err := r.Seen(ctx, id)
	if err != nil {
		return err
	}
	if len(before.Running) > 0 { // Temporal would drop the start without a word
		return &runError{before.Running[0], &hinted{
			&coded{fmt.Errorf("schedule %s: its run %s is still going", id, before.Running[0]), codeRunning}, "wait for it, or end it",
		}}
	}
	if err := r.Trigger(ctx, id); err != nil {
		return fmt.Errorf("trigger schedule %s: %w", id, err)
	}
	run, err := r.newRun(ctx, id, before)
	if err != nil {
		return err
	}
	a.warnNoWorker(ctx, r.connection, r.taskQueue)
	return a.printStarted(run)
}

// newRun waits until Temporal tells of a run that it did not know before.
func (r *reconciliation) newRun(ctx context.Context, id string, before schedule.Seen) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, triggerPatience)
	defer cancel()
	tick := time.NewTicker(triggerPoll)
	defer tick.Stop()
	for {
		now, _, err := r.Seen(ctx, id)
		if err == nil {
			for _, s := range now.Started {
				if !slices.ContainsFunc(before.Started, func(old schedule.Started) bool { return old.RunID == s.RunID }) {
					return s.WorkflowID, nil
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", &hinted{
				fmt.Errorf("schedule %s was triggered, and no run shows after %v", id, triggerPatience),
				"`lifeboat schedule list` shows it once it is there",
			}
		}
	}
}
