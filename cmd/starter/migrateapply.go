package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newMigrateApplyCommand(a *app) *cobra.Command {
	var f migrateFlags
	var r runFlags
	var in contract.MigrateInput
	cmd := &cobra.Command{
		Use:   "apply CLUSTER",
		Short: "Apply what is pending, with a rehearsal before and a way back",
		Long: "Apply what is pending: plan, check, rehearse on a restored clone, take a verified backup, name a restore point, apply,\n" +
			"and look at the server afterwards. Exits 0, 1 if it failed (the result says what is in the database), 3 if a check or\n" +
			"the rehearsal said no, 5 if it was refused; with 3 and 5 the database was not changed.",
		Args: arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.To = f.target(cmd)
			return a.migrate(cmd.Context(), &f, r, in, args[0])
		},
	}
	f.register(cmd)
	f.registerTo(cmd, "default: the newest")
	fl := cmd.Flags()
	fl.StringVar(&in.PlanHash, "plan-hash", "", "refuse any other plan than this one")
	fl.BoolVar(&in.SkipRehearsal, "no-rehearsal", false, "do not rehearse on a clone")
	fl.BoolVar(&in.SkipBackup, "no-backup", false, "take no backup and name no restore point: there is no way back by a restore")
	fl.BoolVar(&in.AllowUnsafe, "allow-unsafe", false, "go on in spite of findings that are errors")
	fl.BoolVar(&in.AllowDestructiveDown, "allow-destructive", false, "after a failure, go down also if that destroys what was written since")
	fl.StringVar(&in.AppVersion, "app-version", "", "release or commit that the files belong to, for the history")
	r.register(cmd)
	return cmd
}

func newMigrateRehearseCommand(a *app) *cobra.Command {
	var f migrateFlags
	var r runFlags
	in := contract.MigrateInput{RehearseOnly: true}
	cmd := &cobra.Command{
		Use:   "rehearse CLUSTER",
		Short: "Restore the newest backup and run the plan there: times, locks, rewrites",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.To = f.target(cmd)
			return a.migrate(cmd.Context(), &f, r, in, args[0])
		},
	}
	f.register(cmd)
	f.registerTo(cmd, "default: the newest")
	cmd.Flags().BoolVar(&in.AllowUnsafe, "allow-unsafe", false, "go on in spite of findings that are errors")
	r.register(cmd)
	return cmd
}

func (a *app) migrate(ctx context.Context, f *migrateFlags, r runFlags, in contract.MigrateInput, cluster string) error {
	src, err := f.files(cluster)
	if err != nil {
		return err
	}
	src.AppVersion = in.AppVersion
	in.MigrationSource = src
	if err := errors.Join(in.Validate(), r.check()); err != nil {
		return &usageError{err}
	}
	if r.local {
		return a.migrateHere(ctx, in)
	}
	if err := in.CheckPayload(); err != nil {
		return &usageError{err}
	}
	what := "Migration of "
	if in.RehearseOnly {
		what = "Rehearsal of a migration of "
	}
	var res contract.MigrateResult
	return a.start(ctx, r, start{
		workflow: contract.MigrateWorkflow, verb: "migrate", cluster: cluster, input: in, summary: what + cluster,
	}, &res, func() error { return a.printMigrate(res) })
}

func (a *app) migrateHere(ctx context.Context, in contract.MigrateInput) error {
	set, err := a.settings(in.Cluster)
	if err != nil {
		return err
	}
	run, end := a.localRun("migrate", in.Cluster)
	res, err := activities.NewRunner(set).Migrate(ctx, in, run)
	end()
	if err != nil {
		return err
	}
	return a.printMigrate(res)
}

// migrateError is the exit of a migration that was printed.
func migrateError(r contract.MigrateResult) error {
	switch r.Outcome {
	case contract.MigrationNothing, contract.MigrationRehearsed, contract.MigrationApplied:
		return nil
	case contract.MigrationRefused:
		return &verdictExit{contract.Fail}
	}
	hint := "`lifeboat migrate status` tells what is applied"
	if len(r.Next) > 0 {
		hint = r.Next[0]
	}
	return &hinted{&coded{fmt.Errorf("migration of %s %s: %s", r.Cluster, r.Outcome, r.Explanation), contract.ErrorFailed}, hint}
}

func (a *app) printMigrate(r contract.MigrateResult) error {
	if a.json {
		return errors.Join(a.printJSON(r), migrateError(r))
	}
	return errors.Join(a.lines(func(p *printer) {
		p.line("%s  %s: %s", a.paint(r.Verdict), r.Cluster, r.Outcome)
		p.line("  %s", r.Explanation)
		printMigrateFindings(p, r.Plan, r.Checks)
		if t := r.Rehearsal; t != nil {
			printTrial(p, t)
		}
		if r.RestorePoint != nil {
			p.line("  backup %s, restore point %s at %s", r.BackupID, r.RestorePoint.Name, r.RestorePoint.LSN)
		}
		for _, file := range r.Files {
			p.line("  %s in %.3f s, %d attempts", file.Name, file.Seconds, file.Attempts)
		}
		for _, step := range r.Skipped {
			p.line("  left out: %s", step)
		}
		for _, line := range r.Next {
			p.line("  next: %s", line)
		}
	}), migrateError(r))
}

func printTrial(p *printer, t *contract.MigrationTrial) {
	p.line("  rehearsed on a clone of backup %s in %.1f s", t.BackupID, t.Seconds)
	for _, f := range t.Files {
		p.line("    %s in %.3f s", f.Name, f.Seconds)
		for _, lock := range f.Locks {
			p.line("      lock %s", lock)
		}
		for _, table := range f.Rewrites {
			p.line("      rewrites %s", table)
		}
	}
	if t.LeftBehind != "" {
		p.line("    parts of the clone may still be in %s", t.LeftBehind)
	}
	if t.Reversed {
		p.line("    and back again")
	} else if t.NotReversed != "" {
		p.line("    not back again: %s", t.NotReversed)
	}
}
