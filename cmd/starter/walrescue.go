package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"lifeboat/internal/recovery"
)

// rescueResult is what wal-rescue prints with --json.
type rescueResult struct {
	Cluster       string                 `json:"cluster"`
	DataDirectory string                 `json:"dataDirectory"`
	SystemID      string                 `json:"systemIdentifier"`
	Timeline      uint32                 `json:"timeline"`
	EndLSN        string                 `json:"endLsn"`
	Pushed        []recovery.RescuedFile `json:"pushed"`
}

func newWALRescueCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "wal-rescue CLUSTER --data-directory DIR",
		Short: "Save the last WAL of a crashed, stopped server",
		Long: "Store in the repository what a crashed, stopped server's pg_wal has and the repository has not: every whole segment, and\n" +
			"of the one in which its WAL ends the part that is valid, so that a restore to latest keeps its last commits. Changes nothing\n" +
			"in the data directory, and may be repeated. Refuses a running server, and one that is not the cluster's.",
		Example: "  lifeboat wal-rescue orders --data-directory /var/lib/postgresql/17/main",
		Args:    arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.walRescue(cmd.Context(), args[0], dir)
		},
	}
	cmd.Flags().StringVar(&dir, "data-directory", "", "data directory of the stopped server")
	_ = cmd.MarkFlagRequired("data-directory")
	return cmd
}

func (a *app) walRescue(ctx context.Context, cluster, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return usagef("--data-directory: %w", err)
	}
	_, c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return fmt.Errorf("rescue the WAL in %s: %w", dir, err)
	}
	opts := recovery.RescueOptions{Repo: r, Cluster: cluster, DataDir: dir, Compression: c.Compression}
	if !a.json && !a.quiet {
		opts.Pushed = func(f recovery.RescuedFile) { fmt.Fprintf(a.stderr, "stored %s, %s of WAL\n", f.Name, size(f.Bytes)) }
	}
	res, err := recovery.Rescue(ctx, opts)
	if err != nil {
		return err
	}
	out := rescueResult{
		Cluster: cluster, DataDirectory: dir, SystemID: res.SystemID.String(), Timeline: uint32(res.Timeline),
		EndLSN: res.EndLSN.String(), Pushed: res.Pushed,
	}
	if out.Pushed == nil {
		out.Pushed = []recovery.RescuedFile{}
	}
	if a.json {
		return a.printJSON(out)
	}
	return a.lines(func(p *printer) {
		if len(out.Pushed) == 0 {
			p.line("nothing to rescue: the repository has all WAL of %s, up to %s on timeline %d", dir, out.EndLSN, out.Timeline)
			return
		}
		p.line("rescued %d WAL files of %s: the repository now has its WAL up to %s on timeline %d", len(out.Pushed), cluster, out.EndLSN, out.Timeline)
	})
}
