package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newBackupCommand(a *app) *cobra.Command {
	var in contract.BackupInput
	var f runFlags
	var patience time.Duration
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
			if cmd.Flags().Changed("wal-timeout") && (!f.local || patience <= 0) {
				return usagef("--wal-timeout is a duration above 0, and goes with --local: a worker has its own")
			}
			var res contract.BackupResult
			if f.local {
				res, err := a.backupHere(cmd.Context(), in, patience)
				if err != nil {
					return err
				}
				return a.printBackup(in, res)
			}
			return a.start(cmd.Context(), f, start{
				workflow: contract.BackupWorkflow, verb: "backup", cluster: in.Cluster,
				input: in, summary: "Backup of " + in.Cluster,
			}, &res, func() error { return a.printBackup(in, res) })
		},
	}
	cmd.Flags().StringVar(&in.Type, "type", contract.TypeFull, "full, or incremental: stores only what the newest backup has not; logical comes with a later version")
	cmd.Flags().DurationVar(&patience, "wal-timeout", 0, "with --local: how long to wait, without any progress, for the backup's WAL (default 1m0s)")
	f.register(cmd)
	return cmd
}

// register adds the flags.
func (f *runFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.local, "local", false, "run here, without Temporal")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "start the workflow and do not wait for it")
	cmd.Flags().StringVar(&f.id, "workflow-id", "", "name of the workflow's run (default: lifeboat-VERB-CLUSTER-TIME-RANDOM)")
}

func (a *app) backupHere(ctx context.Context, in contract.BackupInput, patience time.Duration) (contract.BackupResult, error) {
	set, err := a.settings(in.Cluster)
	if err != nil {
		return contract.BackupResult{}, err
	}
	if patience > 0 {
		set.WALTimeout = patience
	}
	run, end := a.localRun("backup", in.Cluster)
	defer end()
	return activities.NewRunner(set).TakeBackup(ctx, contract.TakeBackupInput{Cluster: in.Cluster, Type: in.Type}, run)
}

// printBackup prints a backup that was taken. Corrupt pages are told on stderr and do not change the exit code: the backup is
// there and restores. That it is not sound is what `lifeboat verify` ends with 3 for.
func (a *app) printBackup(in contract.BackupInput, r contract.BackupResult) error {
	if in.Type == contract.TypeIncremental && r.Type == contract.TypeFull {
		a.note("%s had no backup to be incremental to: this one is a full", r.Cluster)
	}
	if text := pageTrouble(r); text != "" && !a.json { // also with --quiet
		fmt.Fprintf(a.stderr, "WARNING: backup %s is kept, but it has %s; `lifeboat show %s %s` names them\n", r.BackupID, text, r.Cluster, r.BackupID)
	}
	if a.json {
		return a.printJSON(r)
	}
	return a.lines(func(p *printer) {
		p.line("backup %s of %s (%s): %s in %.1f s", r.BackupID, r.Cluster, kindOf(r), size(r.SourceBytes), r.Seconds)
		p.line("  %d files, %d chunks, of which %d are new; %s stored", r.Files, r.Chunks, r.NewChunks, size(r.StoredBytes))
		p.line("  PostgreSQL %s, timeline %d, WAL %s to %s, finished %s", r.PostgresVersion, r.Timeline, r.StartLSN, r.StopLSN, when(&r.FinishedAt))
	})
}

// kindOf tells the type, and of an incremental what it builds on.
func kindOf(r contract.BackupResult) string {
	if r.ParentID == "" {
		return r.Type
	}
	return r.Type + " to " + r.ParentID
}

// pageTrouble tells of pages that failed their checksum; "" if none did.
func pageTrouble(r contract.BackupResult) string {
	switch {
	case r.CorruptPages > 0 && r.UnsurePages > 0:
		return fmt.Sprintf("%d CORRUPT PAGES and %d that may be", r.CorruptPages, r.UnsurePages)
	case r.CorruptPages > 0:
		return fmt.Sprintf("%d CORRUPT PAGES", r.CorruptPages)
	case r.UnsurePages > 0:
		return fmt.Sprintf("%d pages that may be corrupt", r.UnsurePages)
	}
	return ""
}
