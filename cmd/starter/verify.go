package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newVerifyCommand(a *app) *cobra.Command {
	var f runFlags
	level := contract.DefaultVerifyLevel
	cmd := &cobra.Command{
		Use:   "verify CLUSTER [BACKUP|latest|all]",
		Short: "Verify a backup, or all, up to a level of the ladder",
		Long: "Verify a backup (by default the latest), or with `all` every visible backup, all WAL, and every object of the cluster.\n\n" +
			"  0  every pack that the backup needs is there, and long enough\n" +
			"  1  every object holds what was written\n" +
			"  2  WAL is continuous from the backup's start to the frontier, and says what its records say\n" +
			"  3  page checksums\n" +
			"  4  pg_verifybackup accepts the restored files\n" +
			"  5  a server starts, replays to a commit in the archive, and has just what was committed there\n\n" +
			"Each level includes those below. Exits 0 for PASS, 3 for FAIL, 4 for PARTIAL and COULD_NOT_VERIFY.",
		Example: "  lifeboat verify orders\n  lifeboat verify orders all --level 3\n" +
			"  lifeboat verify orders --local --repository file:///var/lib/lifeboat",
		Args: verifyArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			in := contract.VerifyInput{Cluster: args[0], Backup: contract.VerifyLatest, Level: &level}
			if len(args) > 1 {
				in.Backup = args[1]
			}
			if err := in.Validate(); err != nil {
				return &usageError{err}
			}
			if err := f.check(); err != nil {
				return err
			}
			if a.repository != "" && !f.local {
				return usagef("workers verify by their own configuration: give --local with --repository")
			}
			return a.verify(cmd.Context(), f, in)
		},
	}
	cmd.Flags().IntVar(&level, "level", level, "the last level to run, 0 to 5")
	f.register(cmd)
	return cmd
}

func verifyArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 2 {
		return arguments("CLUSTER", "BACKUP")(cmd, args)
	}
	return arguments("CLUSTER")(cmd, args)
}

func (a *app) verify(ctx context.Context, f runFlags, in contract.VerifyInput) error {
	var res contract.VerifyResult
	show := func() error {
		if err := a.printVerify(res); err != nil {
			return err
		}
		return verdictError(res.Verdict)
	}
	if f.local {
		var err error
		if res, err = a.verifyHere(ctx, in); err != nil {
			return err
		}
		return show()
	}
	return a.start(ctx, f, start{
		workflow: contract.VerifyWorkflow, verb: "verify", cluster: in.Cluster, input: in,
		summary: fmt.Sprintf("Verify %s of %s up to level %d", in.Backup, in.Cluster, in.UpTo()),
	}, &res, show)
}

func (a *app) verifyHere(ctx context.Context, in contract.VerifyInput) (contract.VerifyResult, error) {
	set, err := a.known(ctx, in.Cluster)
	if err != nil {
		return contract.VerifyResult{}, err
	}
	run, end := a.localRun("verify", in.Cluster)
	defer end()
	return activities.NewRunner(set).VerifyBackups(ctx, in, run)
}

func (a *app) printVerify(r contract.VerifyResult) error {
	if a.json {
		return a.printJSON(r)
	}
	return a.lines(func(p *printer) {
		p.line("%s  %s, level %d", a.paint(r.Verdict), r.Cluster, r.Level)
		for _, b := range r.Backups {
			name := "backup " + b.BackupID
			if b.BackupID == "" {
				name = "objects that no backup needs"
			}
			p.line("  %s  %s, level %d", b.Verdict, name, b.Level)
			for _, f := range b.Findings {
				p.line("    L%d  %s", f.Level, findingLine(f))
			}
		}
	})
}

// findingLine names the place and what is wrong there.
func findingLine(f contract.VerifyFinding) string {
	text := ""
	if f.Object != "" {
		text += f.Object + ": "
	}
	if f.File != "" {
		text += f.File
		if f.Block != nil {
			text += fmt.Sprintf(", block %d", *f.Block)
		}
		text += ": "
	}
	return text + f.Problem
}
