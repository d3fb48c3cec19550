package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/internal/wal"
)

const walFetchName = "wal-fetch"

// fetchError keeps wal-fetch's failures apart: PostgreSQL takes 1 to 125 for the end of WAL (R16).
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

func newWALFetchCommand(a *app) *cobra.Command {
	var cluster, need string
	cmd := &cobra.Command{
		Use:   walFetchName + " NAME DEST --cluster CLUSTER",
		Short: "Fetch one WAL file: for restore_command",
		Long: "Fetch one WAL file. Exits 0 when DEST has it, 1 only if the repository does not have it and the recovery does not\n" +
			"need it, and 126 or more for everything else, which stops the recovery.",
		Example: "  restore_command = 'lifeboat --repository file:///var/lib/lifeboat wal-fetch %f %p --cluster orders'",
		Args:    arguments("NAME", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.walFetch(cmd.Context(), cluster, need, args[0], args[1]); err != nil {
				return &fetchError{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster whose WAL it is")
	cmd.Flags().StringVar(&need, "need", "", "segments that the recovery cannot do without, as FIRST..LAST,...")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}

func (a *app) walFetch(ctx context.Context, cluster, need, name, dest string) error {
	ranges, err := wal.ParseNeed(need)
	if err != nil {
		return usagef("--need: %w", err)
	}
	_, c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return fmt.Errorf("fetch WAL %s: %w", name, err)
	}
	return wal.Fetch(ctx, wal.FetchOptions{Repo: r, Cluster: cluster, Name: name, Dest: dest, Need: ranges})
}
