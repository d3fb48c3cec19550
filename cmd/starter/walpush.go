package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/config"
	"lifeboat/internal/repo"
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
	r, err := openToArchive(ctx, c)
	if err != nil {
		return fmt.Errorf("archive %s: %w", filepath.Base(path), err)
	}
	_, err = wal.Push(ctx, wal.PushOptions{Repo: r, Cluster: cluster, Path: path, Compression: c.Compression})
	return err
}

// openToArchive opens the repository, and creates it only where nothing can have gone missing. A folder that is empty,
// or that is missing from an empty one, looks just like a file system that is not mounted: WAL that was acknowledged
// there would be lost to every restore. The first backup, which a person or a schedule watches, creates it there.
func openToArchive(ctx context.Context, c activities.Cluster) (*repo.Repository, error) {
	r, err := c.OpenRepository(ctx, false)
	if err == nil {
		return r, nil
	}
	folder, perr := config.FilePath(c.RepositoryURL)
	if perr != nil {
		return nil, err
	}
	fresh := errors.Is(err, repo.ErrNoRepository) // a store, whose header is not written yet
	if errors.Is(err, os.ErrNotExist) {
		beside, derr := os.ReadDir(filepath.Dir(folder))
		fresh = derr == nil && len(beside) > 0
	}
	if fresh {
		return c.OpenRepository(ctx, true)
	}
	return nil, &hinted{err, "mount the file system that holds it; if the repository is new, take the first backup: it creates it"}
}
