package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/wal"
)

// fetchError keeps wal-fetch's failures apart: PostgreSQL takes 1 to 125 for the end of WAL (R16).
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

func newWALFetchCommand(a *app) *cobra.Command {
	var cluster, need string
	cmd := &cobra.Command{
		Use:   "wal-fetch NAME DEST --cluster CLUSTER",
		Short: "Fetch one WAL file: for restore_command",
		Long: "Fetch one WAL file. Exits 0 when DEST has it, 1 only if the repository does not have it and the recovery does not\n" +
			"need it, and 126 for everything else, which stops the recovery.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.walFetch(cmd, cluster, need, args); err != nil {
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

func (a *app) walFetch(cmd *cobra.Command, cluster, need string, args []string) error {
	ranges, err := wal.ParseNeed(need)
	if err != nil {
		return err
	}
	set, err := a.settings(cluster)
	if err != nil {
		return err
	}
	c, ok := set.Clusters[cluster]
	if !ok {
		return &activities.ConfigurationError{Message: fmt.Sprintf("cluster %q is not in the configuration", cluster)}
	}
	r, err := c.OpenRepository(cmd.Context(), false)
	if err != nil {
		return err
	}
	return wal.Fetch(cmd.Context(), wal.FetchOptions{Repo: r, Cluster: cluster, Name: args[0], Dest: args[1], Need: ranges})
}
