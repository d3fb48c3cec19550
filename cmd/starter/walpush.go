package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/wal"
)

func newWALPushCommand(a *app) *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "wal-push PATH --cluster CLUSTER",
		Short: "Archive one WAL file: for archive_command",
		Long: "Archive one WAL file. For postgresql.conf:\n\n" +
			"  archive_command = 'lifeboat wal-push %p --cluster CLUSTER --config /etc/lifeboat/lifeboat.yaml'\n\n" +
			"Exits 0 only when the repository has the file durably.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := a.settings(cluster)
			if err != nil {
				return err
			}
			c, ok := set.Clusters[cluster]
			if !ok {
				return &activities.ConfigurationError{Message: fmt.Sprintf("cluster %q is not in the configuration", cluster)}
			}
			r, err := c.OpenRepository(cmd.Context(), true)
			if err != nil {
				return err
			}
			_, err = wal.Push(cmd.Context(), wal.PushOptions{Repo: r, Cluster: cluster, Path: args[0], Compression: c.Compression})
			return err
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster whose WAL it is")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}
