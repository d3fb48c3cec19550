package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

func newMigratePlanCommand(a *app) *cobra.Command {
	var f migrateFlags
	var down bool
	cmd := &cobra.Command{
		Use:   "plan CLUSTER",
		Short: "Say what a migration would do; touch nothing",
		Long:  "Say what a migration would do, and what speaks against its statements; touch nothing.\nExits 0, 3 if a finding is an error, 5 if files and database do not fit.",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := migrate.PlanOptions{Direction: migrate.Up, To: f.target(cmd)}
			if down {
				opts.Direction = migrate.Down
			}
			return a.migratePlan(cmd.Context(), &f, args[0], opts)
		},
	}
	f.registerDirect(cmd)
	f.registerTo(cmd, "default: the newest; with --down one version down, -1 all the way")
	cmd.Flags().BoolVar(&down, "down", false, "plan the way down")
	return cmd
}

func (a *app) migratePlan(ctx context.Context, f *migrateFlags, cluster string, opts migrate.PlanOptions) error {
	m, end, err := a.migrator(f, cluster)
	if err != nil {
		return err
	}
	defer end()
	plan, err := m.Plan(ctx, opts)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(plan)
	} else {
		_, err = fmt.Fprint(a.stdout, plan.String())
	}
	if err == nil && len(plan.Unsafe()) > 0 {
		err = &verdictExit{contract.Fail}
	}
	return err
}

func newMigrateCheckCommand(a *app) *cobra.Command {
	var f migrateFlags
	var opts migrate.CheckOptions
	cmd := &cobra.Command{
		Use:   "check CLUSTER",
		Short: "Ask the server whether a migration could be applied now; change nothing",
		Long: "Ask the server whether a migration could be applied now: files and versions, lint, drift, privileges, who is in the way.\n" +
			"Nothing is changed. Exits 0, 3 if a check failed, 4 if one could not be made.",
		Args: arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, end, err := a.migrator(&f, args[0])
			if err != nil {
				return err
			}
			defer end()
			opts.To = f.target(cmd)
			report, err := m.Check(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return a.printMigrateCheck(report)
		},
	}
	f.registerDirect(cmd)
	f.registerTo(cmd, "default: the newest")
	cmd.Flags().BoolVar(&opts.AllowUnsafe, "allow-unsafe", false, "pass in spite of findings that are errors")
	cmd.Flags().StringVar(&opts.PlanHash, "plan-hash", "", "fail for any other plan than this one")
	return cmd
}

func (a *app) printMigrateCheck(r *migrate.CheckReport) error {
	verdict := contract.Verdict(r.Verdict)
	if a.json {
		return errors.Join(a.printJSON(r), verdictError(verdict))
	}
	return errors.Join(a.lines(func(p *printer) {
		p.line("%s", a.paint(verdict))
		for _, item := range r.Items {
			p.line("  %s  %s: %s", item.Verdict, item.Name, item.Detail)
			if item.Remedy != "" {
				p.line("        %s", item.Remedy)
			}
		}
	}), verdictError(verdict))
}

func printMigrateFindings(p *printer, plan contract.MigrationPlan, checks []contract.CheckResult) {
	for _, c := range checks {
		p.line("  %s  %s: %s", c.Verdict, c.ID, c.Observed)
	}
	for _, text := range append(append([]string{}, plan.Unsafe...), plan.Warnings...) {
		p.line("  %s", text)
	}
	for _, what := range plan.Destroys {
		p.line("  destroys %s", what)
	}
}

func newMigrateStatusCommand(a *app) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use:   "status CLUSTER",
		Short: "Show what is applied, what is pending, and what stopped half-way",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, end, err := a.migrator(&f, args[0])
			if err != nil {
				return err
			}
			defer end()
			s, err := m.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.printMigrateStatus(s)
		},
	}
	f.registerDirect(cmd)
	return cmd
}

func (a *app) printMigrateStatus(s *migrate.Status) error {
	if a.json {
		return a.printJSON(s)
	}
	if err := a.lines(func(p *printer) {
		p.line("version %s", contract.VersionText(s.Version))
		for _, x := range s.Problems {
			p.line("  problem: %s", x)
		}
		if s.Open != nil {
			p.line("  half-way: version %d: %s", s.Open.Version, s.Open.Text)
			p.line("  next: %s", s.Open.Next)
		}
		for _, b := range s.Running {
			p.line("  at work: %s", b)
		}
	}); err != nil {
		return err
	}
	return a.table(func(p *printer) {
		for _, m := range s.Migrations {
			way := "no way down"
			if m.Reversible {
				way = "reversible"
			}
			p.line("  %d\t%s\t%s\t%s\t%s", m.Version, m.State, when(m.AppliedAt), way, m.Title)
		}
	})
}

func newMigrateDownCommand(a *app) *cobra.Command {
	var f migrateFlags
	var opts migrate.ApplyOptions
	cmd := &cobra.Command{
		Use:   "down CLUSTER",
		Short: "Go back one version, or to --to",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, end, err := a.migrator(&f, args[0])
			if err != nil {
				return err
			}
			defer end()
			opts.To = f.target(cmd)
			res, err := m.Down(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return a.printMigrateDown(res)
		},
	}
	f.registerDirect(cmd)
	f.registerTo(cmd, "default: one version down; -1 goes all the way")
	cmd.Flags().BoolVar(&opts.AllowDestructive, "allow-destructive", false, "let the way down destroy data: only a backup brings it back")
	cmd.Flags().BoolVar(&opts.AllowUnsafe, "allow-unsafe", false, "go on in spite of findings that are errors")
	cmd.Flags().StringVar(&opts.PlanHash, "plan-hash", "", "refuse any other plan than this one")
	return cmd
}

func (a *app) printMigrateDown(r *migrate.Result) error {
	if a.json {
		return a.printJSON(r)
	}
	return a.lines(func(p *printer) {
		p.line("version %s", contract.VersionText(r.Version))
		for _, f := range r.Done {
			p.line("  %s in %.3f s", f.Name, f.Took.Seconds())
		}
	})
}

func newMigrateRepairCommand(a *app) *cobra.Command {
	var f migrateFlags
	var opts migrate.RepairOptions
	var resolve string
	cmd := &cobra.Command{
		Use:   "repair CLUSTER",
		Short: "Find out what a migration left that stopped half-way, and mend it with --execute",
		Long:  "Find out, by the catalogs, what a migration left that stopped half-way. Without --execute nothing is changed.\nExits 0, or 3 if something is left that has to be repaired or decided.",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch opts.Resolve = migrate.Resolution(resolve); opts.Resolve {
			case "", migrate.ResolveDone, migrate.ResolveNotRun, migrate.ResolveVersionTable, migrate.ResolveHistory:
			default:
				return usagef("--resolve is %q: use done, not-run, version-table or history", resolve)
			}
			m, end, err := a.migrator(&f, args[0])
			if err != nil {
				return err
			}
			defer end()
			report, err := m.Repair(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return a.printMigrateRepair(report)
		},
	}
	f.registerDirect(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&opts.Execute, "execute", false, "do what is proposed")
	fl.StringVar(&resolve, "resolve", "", "decide what the catalogs cannot tell: done or not-run for a statement, version-table or history where these disagree")
	fl.Int64SliceVar(&opts.AcceptEdited, "accept-edited", nil, "versions whose files may stay as they are now")
	return cmd
}

func (a *app) printMigrateRepair(r *migrate.RepairReport) error {
	var open error
	if r.Items == nil {
		r.Items = []migrate.RepairItem{} // a list, also in JSON
	}
	for _, item := range r.Items {
		if !item.Executed && item.Kind != "other-index" {
			open = &verdictExit{contract.Fail}
		}
	}
	if a.json {
		return errors.Join(a.printJSON(r), open)
	}
	return errors.Join(a.lines(func(p *printer) {
		if len(r.Items) == 0 {
			p.line("nothing to repair")
		}
		for _, item := range r.Items {
			p.line("%s %s version %d, statement %d: %s: %s", item.Kind, item.File, item.Version, item.Statement, item.Outcome, item.Evidence)
			state := "proposed"
			switch {
			case item.Executed:
				state = "done"
			case item.NeedsDecision:
				state = "needs a decision (--resolve, --accept-edited)"
			}
			p.line("  %s: %s", state, item.Proposal)
			for _, sql := range item.SQL {
				p.line("    %s", sql)
			}
		}
	}), open)
}
