package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/config"
	"lifeboat/internal/contract"
)

func newDrillCommand(a *app) *cobra.Command {
	var in contract.DrillInput
	var to, checks, id string
	var detach bool
	cmd := &cobra.Command{
		Use:   "drill CLUSTER",
		Short: "Rehearse a disaster: restore, replay, start, check, measure, clean up, report",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cluster = args[0]
			if to != "" {
				at, err := contract.ParseTime(to, time.Now())
				if err != nil {
					return &usageError{err}
				}
				in.Target = contract.Target{Kind: "time", Value: at.Format(time.RFC3339Nano)}
			}
			var err error
			if in.Checks, err = a.readChecks(checks); err != nil {
				return &usageError{err}
			}
			if err := in.Validate(); err != nil {
				return &usageError{err}
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			var res contract.DrillResult
			wid, err := a.run(cmd.Context(), c, start{workflow: contract.DrillWorkflow, verb: "drill", cluster: in.Cluster, id: id,
				input: in, summary: "Drill of " + in.Cluster}, detach, &res)
			if err != nil {
				return err
			}
			if detach {
				return a.printStarted(wid)
			}
			if err := a.printDrill(res); err != nil {
				return err
			}
			return verdictError(res.Verdict)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Scenario, "scenario", contract.ScenarioRestore, "what happens")
	f.StringVar(&to, "to", "", "target time, RFC 3339 with a zone or \"5 minutes ago\" (default: between two canary rows)")
	f.StringVar(&in.Backup, "backup", "", "restore from this backup")
	f.StringVar(&in.DisasterAt, "disaster-at", "", "when the data was lost, for the RPO (default: the target's time)")
	f.StringVar(&checks, "checks", "", "file with checks to run besides those of the configuration")
	f.BoolVar(&detach, "detach", false, "do not wait")
	f.StringVar(&id, "workflow-id", "", "name of the run")
	return cmd
}

// readChecks reads a file of checks: the key `checks`, as under a cluster of the configuration.
func (a *app) readChecks(path string) ([]contract.SQLCheck, error) {
	if path == "" {
		return nil, nil
	}
	list, err := config.ReadChecks(path, a.env)
	if err != nil {
		return nil, err
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
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tdrill %s of %s, level %d\n", r.Verdict, r.DrillID, r.Cluster, r.Level)
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%s\tL%d\t%s\t%s\n", c.Verdict, c.Level, c.ID, c.Observed)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s := r.RTO.Spans
	fmt.Fprintf(a.stdout, "RTO %.1f s (objective %.0f s): fetch %.1f, replay %.1f, start %.1f, and checks %.1f\n",
		r.RTO.Measured, r.RTO.Target, s.Fetch, s.Replay, s.Start, s.Check)
	if r.RPO.Measured != nil {
		fmt.Fprintf(a.stdout, "RPO %.3f s (objective %.0f s)\n", *r.RPO.Measured, r.RPO.Target)
	}
	_, err := fmt.Fprintf(a.stdout, "report %s\n", r.Report)
	return err
}

// verdictError ends the program with the exit code of a verdict that is not PASS.
type verdictExit struct{ verdict contract.Verdict }

func (e *verdictExit) Error() string { return "the verdict is " + string(e.verdict) }

func verdictError(v contract.Verdict) error {
	if v == contract.Pass {
		return nil
	}
	return &verdictExit{v}
}
