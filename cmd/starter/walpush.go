package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"lifeboat/internal/wal"
)

func newWALPushCommand(a *app) *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "wal-push PATH --cluster CLUSTER",
		Short: "Archive one WAL file: for archive_command",
		Long: "Archive one WAL file. Exits 0 only when the repository has the file durably; PostgreSQL keeps the file and tries again\n" +
			"until then. Says nothing unless something is wrong: what it says stands in PostgreSQL's log.",
		Example: "  archive_command = 'lifeboat wal-push %p --cluster orders --config /etc/lifeboat/lifeboat.yaml'",
		Args:    arguments("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.walPush(cmd.Context(), cluster, args[0])
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster whose WAL it is")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}

func (a *app) walPush(ctx context.Context, cluster, path string) error {
	_, c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	r, err := c.OpenRepository(ctx, true)
	if err != nil {
		return fmt.Errorf("archive %s: %w", filepath.Base(path), err)
	}
	_, err = wal.Push(ctx, wal.PushOptions{Repo: r, Cluster: cluster, Path: path, Compression: c.Compression})
	return err
}
