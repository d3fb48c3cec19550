package main

import (
	"context"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newBackupCommand(a *app) *cobra.Command {
	var in contract.BackupInput
	var f runFlags
	cmd := &cobra.Command{
		Use:   "backup CLUSTER",
		Short: "Take a backup",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cluster = args[0]
			if err := in.Validate(); err != nil {
				return &usageError{err}
			}
			if err := f.check(); err != nil {
				return err
			}
			var res contract.BackupResult
			if f.local {
				res, err := a.backupHere(cmd.Context(), in)
				if err != nil {
					return err
				}
				return a.printBackup(res)
			}
			return a.start(cmd.Context(), f, start{
				workflow: contract.BackupWorkflow, verb: "backup", cluster: in.Cluster,
				input: in, summary: "Backup of " + in.Cluster,
			}, &res, func() error { return a.printBackup(res) })
		},
	}
	cmd.Flags().StringVar(&in.Type, "type", contract.TypeFull, "full; incremental and logical come with a later version")
	f.register(cmd)
	return cmd
}

// register adds the flags.
func (f *runFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.local, "local", false, "run here, without Temporal")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "start the workflow and do not wait for it")
	cmd.Flags().StringVar(&f.id, "workflow-id", "", "name of the workflow's run (default: lifeboat-VERB-CLUSTER-TIME-RANDOM)")
}

func (a *app) backupHere(ctx context.Context, in contract.BackupInput) (contract.BackupResult, error) {
	set, err := a.settings(in.Cluster)
	if err != nil {
		return contract.BackupResult{}, err
	}
	run, end := a.localRun("backup", in.Cluster)
	defer end()
	return activities.NewRunner(set).TakeBackup(ctx, contract.TakeBackupInput{Cluster: in.Cluster, Type: in.Type}, run)
}

func (a *app) printBackup(r contract.BackupResult) error {
	if a.json {
		return a.printJSON(r)
	}
	return a.lines(func(p *printer) {
		p.line("backup %s of %s (%s): %s in %.1f s", r.BackupID, r.Cluster, r.Type, size(r.SourceBytes), r.Seconds)
		p.line("  %d files, %d chunks, of which %d are new; %s stored", r.Files, r.Chunks, r.NewChunks, size(r.StoredBytes))
		p.line("  PostgreSQL %s, timeline %d, WAL %s to %s, finished %s", r.PostgresVersion, r.Timeline, r.StartLSN, r.StopLSN, when(&r.FinishedAt))
	})
}
