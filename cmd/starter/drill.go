package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
)

func newDrillCommand(a *app) *cobra.Command {
	var in contract.DrillInput
	var f runFlags
	var t targetFlags
	var checks string
	cmd := &cobra.Command{
		Use:   "drill CLUSTER",
		Short: "Rehearse a disaster: restore, replay, start, check, measure, clean up, report",
		Long: "Rehearse a disaster: restore into a place of its own, replay, start, check, measure, clean up, report.\n" +
			"Exits 0 for PASS, 3 for FAIL, 4 for PARTIAL and COULD_NOT_VERIFY.",
		Args: arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Cluster = args[0]
			if in.Target, err = t.target(time.Now()); err != nil {
				return err
			}
			if in.DisasterAt, err = absoluteTime("--disaster-at", in.DisasterAt); err != nil {
				return err
			}
			if in.Checks, err = a.readChecks(checks); err != nil {
				return err
			}
			if err := in.Validate(); err != nil {
				return &usageError{err}
			}
			if err := f.check(); err != nil {
				return err
			}
			return a.drill(cmd.Context(), f, in)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&in.Scenario, "scenario", contract.ScenarioRestore, "what happens")
	fl.StringVar(&in.Backup, "backup", "", "restore from this backup (default: the newest from which the target can be reached)")
	fl.Uint32Var(&in.Timeline, "timeline", 0, "follow this timeline (default: the one that the protected cluster is on)")
	fl.StringVar(&in.DisasterAt, "disaster-at", "", "when the data was lost, for the RPO (default: the target's time)")
	fl.StringVar(&checks, "checks", "", "file with checks to run besides those of the configuration")
	t.register(cmd, "between two canary rows that the drill writes")
	f.register(cmd)
	return cmd
}

// absoluteTime turns what a person typed into a time that means the same everywhere.
func absoluteTime(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	at, err := contract.ParseTime(text, time.Now())
	if err != nil {
		return "", usagef("%s: %w", flag, err)
	}
	return at.Format(time.RFC3339Nano), nil
}

func (a *app) drill(ctx context.Context, f runFlags, in contract.DrillInput) error {
	var res contract.DrillResult
	show := func() error {
		if err := a.printDrill(res); err != nil {
			return err
		}
		return verdictError(res.Verdict)
	}
	if f.local {
		var err error
		if res, err = a.drillHere(ctx, in); err != nil {
			return err
		}
		return show()
	}
	return a.start(ctx, f, start{
		workflow: contract.DrillWorkflow, verb: "drill", cluster: in.Cluster, input: in,
		summary: "Drill of " + in.Cluster,
	}, &res, show)
}

// localDriller is a Runner that can drill without Temporal.
type localDriller interface {
	Drill(ctx context.Context, in contract.DrillInput, run activities.Run) (contract.DrillResult, error)
}

func (a *app) drillHere(ctx context.Context, in contract.DrillInput) (contract.DrillResult, error) {
	set, err := a.settings(in.Cluster)
	if err != nil {
		return contract.DrillResult{}, err
	}
	runner, ok := any(activities.NewRunner(set)).(localDriller)
	if !ok {
		return contract.DrillResult{}, &usageError{errors.New("drill --local is not available in this version: run it through Temporal")}
	}
	run, end := a.localRun("drill", in.Cluster)
	defer end()
	return runner.Drill(ctx, in, run)
}

// readChecks reads a file of checks: the key `checks`, as under a cluster of the configuration.
func (a *app) readChecks(path string) ([]contract.SQLCheck, error) {
	if path == "" {
		return nil, nil
	}
	list, err := config.ReadChecks(path, a.env)
	if err != nil {
		return nil, &configError{err}
	}
	out := make([]contract.SQLCheck, len(list))
	for i, c := range list {
		out[i] = contract.SQLCheck{Name: c.Name, SQL: c.SQL, Expect: c.Expect}
	}
	return out, nil
}

func (a *app) printDrill(r contract.DrillResult) error {
	if a.json {
		return a.printJSON(r)
	}
	if err := a.lines(func(p *printer) {
		p.line("%s  drill %s of %s, scenario %s, level %d", a.paint(r.Verdict), r.DrillID, r.Cluster, r.Scenario, r.Level)
	}); err != nil {
		return err
	}
	if err := a.table(func(p *printer) {
		for _, c := range r.Checks {
			p.line("  %s\tL%d\t%s\t%s", c.Verdict, c.Level, c.ID, observed(c))
		}
	}); err != nil {
		return err
	}
	s := r.RTO.Spans
	return a.lines(func(p *printer) {
		p.line("RTO %.1f s (objective %.0f s): fetch %.1f, replay %.1f, start %.1f; checks %.1f",
			r.RTO.Measured, r.RTO.Target, s.Fetch, s.Replay, s.Start, s.Check)
		if r.RPO.Measured != nil {
			p.line("RPO %.3f s (objective %.0f s)", *r.RPO.Measured, r.RPO.Target)
		} else {
			p.line("RPO could not be measured (objective %.0f s)", r.RPO.Target)
		}
		p.line("report %s", r.Report)
	})
}

// observed is what a check saw, in one line, and what it should have seen unless it passed.
func observed(c contract.CheckResult) string {
	text := c.Observed
	if c.Verdict != contract.Pass && c.Expected != "" {
		text += " (expected " + c.Expected + ")"
	}
	return strings.Join(strings.Fields(text), " ")
}
