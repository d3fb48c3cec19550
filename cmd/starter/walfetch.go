package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/wal"
)

const walFetchName = "wal-fetch"

// fetchError keeps wal-fetch's failures apart: PostgreSQL takes 1 to 125 for the end of WAL (R16).
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

type fetchFlags struct {
	cluster, need string
	patience      time.Duration
}

func newWALFetchCommand(a *app) *cobra.Command {
	var f fetchFlags
	cmd := &cobra.Command{
		Use:   walFetchName + " NAME DEST --cluster CLUSTER",
		Short: "Fetch one WAL file: for restore_command",
		Long: "Fetch one WAL file. Exits 0 when DEST has it, 1 only if the repository does not have it and the recovery does not\n" +
			"need it, and 126 or more for everything else, which stops the recovery.",
		Example: "  restore_command = 'lifeboat --repository file:///var/lib/lifeboat wal-fetch %f %p --cluster orders'",
		Args:    arguments("NAME", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.walFetch(cmd.Context(), f, args[0], args[1]); err != nil {
				return &fetchError{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "the cluster whose WAL it is")
	cmd.Flags().StringVar(&f.need, "need", "", "segments that the recovery cannot do without, as FIRST..LAST,...")
	cmd.Flags().DurationVar(&f.patience, "patience", 30*time.Second, "how long to try again after a failure")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}

func (a *app) walFetch(ctx context.Context, f fetchFlags, name, dest string) error {
	ranges, err := wal.ParseNeed(f.need)
	if err != nil {
		return usagef("--need: %w", err)
	}
	_, c, err := a.cluster(f.cluster)
	if err != nil {
		return err
	}
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return fmt.Errorf("fetch WAL %s: %w", name, err)
	}
	return wal.Fetch(ctx, wal.FetchOptions{Repo: r, Cluster: f.cluster, Name: name, Dest: dest, Need: ranges, Patience: f.patience})
}
