package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newHealthCommand(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "health CLUSTER",
		Short: "Check whether a cluster could be recovered now, and say what to mend",
		Long: "Check whether a cluster could be recovered now, and say what to mend: settings, archiving, replication, old\n" +
			"transactions, disks, the repository, the exposure against the RPO, the age and the verification of backups.\n" +
			"docs/health.md lists the findings. It changes nothing, but for an object that it writes to the repository and\n" +
			"deletes again. Typed, it tells what is seen now; run by a schedule, findings open and close over several checks.\n" +
			"Exits 0 for PASS, 3 if a critical finding is open, 4 if something could not be looked at.",
		Example: "  lifeboat health orders\n  lifeboat health orders --local --json",
		Args:    arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.health(cmd.Context(), f, contract.HealthCheckInput{Cluster: args[0]})
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) health(ctx context.Context, f runFlags, in contract.HealthCheckInput) error {
	var res contract.HealthCheckResult
	show := func() error {
		if err := a.printHealth(res); err != nil {
			return err
		}
		return verdictError(res.Verdict)
	}
	if !f.local {
		return a.start(ctx, f, start{
			workflow: contract.HealthWorkflow, verb: "health", cluster: in.Cluster, input: in,
			summary: "Check the health of " + in.Cluster,
		}, &res, show)
	}
	set, err := a.known(ctx, in.Cluster)
	if err != nil {
		return err
	}
	run, end := a.localRun("health", in.Cluster)
	res, err = activities.NewRunner(set).CheckHealth(ctx, in, run)
	end()
	if err != nil {
		return err
	}
	return show()
}

func (a *app) printHealth(r contract.HealthCheckResult) error {
	if a.json {
		return a.printJSON(r)
	}
	if err := a.table(func(p *printer) {
		for _, f := range r.Findings {
			p.line("%s\t%s\t%s", f.Severity, f.ID, f.Evidence)
			p.line("\t\t-> %s", f.Remedy)
		}
		for _, u := range together(r.NotLookedAt) {
			p.line("not looked at\t%s\t%s", u.Area, u.Reason)
			if u.Remedy != "" {
				p.line("\t\t-> %s", u.Remedy)
			}
		}
	}); err != nil {
		return err
	}
	return a.lines(func(p *printer) {
		p.line("%s  %s, %d findings, exposure %s", a.paint(r.Verdict), r.Cluster, len(r.Findings), span(r.ExposureSeconds))
	})
}

// together joins the areas that could not be looked at for the same reason.
func together(list []contract.HealthUnseen) []contract.HealthUnseen {
	var out []contract.HealthUnseen
	for _, u := range list {
		if n := len(out); n > 0 && out[n-1].Reason == u.Reason {
			out[n-1].Area = fmt.Sprintf("%s, %s", out[n-1].Area, strings.TrimSpace(u.Area))
			continue
		}
		out = append(out, u)
	}
	return out
}
