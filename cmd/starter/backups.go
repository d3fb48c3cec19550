package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

func newBackupsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "backups CLUSTER",
		Short: "List the backups",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.listBackups(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printBackups(list)
		},
	}
}

// openRepository opens the repository of a cluster for reading, and makes sure that it knows the cluster.
func (a *app) openRepository(ctx context.Context, cluster string) (*repo.Repository, activities.Cluster, error) {
	_, c, err := a.cluster(cluster)
	if err != nil {
		return nil, c, err
	}
	r, err := c.OpenRepository(ctx, false)
	return r, c, err
}

func (a *app) listBackups(ctx context.Context, cluster string) (contract.BackupList, error) {
	list := contract.BackupList{Cluster: cluster, Backups: []contract.ListedBackup{}}
	r, _, err := a.openRepository(ctx, cluster)
	if err != nil {
		return list, err
	}
	manifests, err := r.Manifests(ctx, cluster)
	if err != nil {
		return list, err
	}
	verified, err := activities.ListVerified(ctx, r, cluster)
	if err != nil {
		return list, err
	}
	for _, m := range manifests {
		list.Backups = append(list.Backups, listed(m, verified))
	}
	if len(manifests) > 0 {
		return list, nil
	}
	known, err := r.Clusters(ctx)
	if err == nil && !slices.Contains(known, cluster) {
		a.note("the repository %s knows no cluster %s; it has: %v", r, cluster, known)
	}
	return list, err
}

func listed(m *repo.Manifest, verified map[string]contract.Verified) contract.ListedBackup {
	out := contract.ListedBackup{BackupResult: activities.BackupResult(m)}
	if v, ok := verified[m.BackupID]; ok {
		out.Verified = &v
	}
	return out
}

func (a *app) printBackups(list contract.BackupList) error {
	if a.json {
		return a.printJSON(list)
	}
	if len(list.Backups) == 0 {
		return a.lines(func(p *printer) { p.line("no backups of %s", list.Cluster) })
	}
	return a.table(func(p *printer) {
		p.line("BACKUP\tTYPE\tFINISHED\tSIZE\tSTORED\tTIMELINE\tWAL\tVERIFIED")
		for _, b := range list.Backups {
			p.line("%s\t%s\t%s\t%s\t%s\t%d\t%s..%s\t%s", b.BackupID, b.Type, when(&b.FinishedAt), size(b.SourceBytes),
				size(b.StoredBytes), b.Timeline, b.StartLSN, b.StopLSN, proof(b.Verified))
		}
	})
}

func proof(v *contract.Verified) string {
	if v == nil {
		return "never"
	}
	return fmt.Sprintf("%s L%d %s", v.Verdict, v.Level, when(&v.At))
}

// shownBackup is a backup in detail.
type shownBackup struct {
	contract.ListedBackup
	Program        string            `json:"program"`
	WALSegmentSize pg.SegmentSize    `json:"walSegmentSize"`
	DataChecksums  bool              `json:"dataChecksums"`
	ServerManifest bool              `json:"serverManifest"`
	Superuser      string            `json:"superuser"`
	Tablespaces    []repo.Tablespace `json:"tablespaces"`
	Settings       map[string]int32  `json:"settings"`
	// Configuration of the source that came along (R4); absent in backups that have none.
	Configuration *repo.Configuration `json:"configuration,omitempty"`
}

func newShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show CLUSTER BACKUP",
		Short: "Show one backup in detail; BACKUP may be latest",
		Args:  arguments("CLUSTER", "BACKUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			shown, err := a.showBackup(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.printShown(shown)
		},
	}
}

func (a *app) showBackup(ctx context.Context, cluster, id string) (*shownBackup, error) {
	r, _, err := a.openRepository(ctx, cluster)
	if err != nil {
		return nil, err
	}
	m, err := findBackup(ctx, r, cluster, id)
	if err != nil {
		return nil, err
	}
	verified, err := activities.ListVerified(ctx, r, cluster)
	if err != nil {
		return nil, err
	}
	return &shownBackup{
		ListedBackup: listed(m, verified), Program: m.Program, WALSegmentSize: m.WALSegmentSize, DataChecksums: m.DataChecksums,
		ServerManifest: m.ServerManifest, Superuser: m.Superuser, Tablespaces: append([]repo.Tablespace{}, m.Tablespaces...),
		Configuration: m.Configuration,
		Settings: map[string]int32{
			"max_connections": m.MaxConnections, "max_worker_processes": m.MaxWorkerProcesses, "max_wal_senders": m.MaxWALSenders,
			"max_prepared_transactions": m.MaxPreparedXacts, "max_locks_per_transaction": m.MaxLocksPerXact,
		},
	}, nil
}

func findBackup(ctx context.Context, r *repo.Repository, cluster, id string) (*repo.Manifest, error) {
	if id != "latest" {
		m, err := r.Manifest(ctx, cluster, id)
		if err != nil {
			return nil, &hinted{err, "`lifeboat backups " + cluster + "` lists them"}
		}
		return m, nil
	}
	all, err := r.Manifests(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &hinted{fmt.Errorf("cluster %s has no backup in %s", cluster, r), "take one with `lifeboat backup " + cluster + "`"}
	}
	return all[len(all)-1], nil
}

func (a *app) printShown(b *shownBackup) error {
	if a.json {
		return a.printJSON(b)
	}
	err := a.table(func(p *printer) {
		p.line("backup\t%s", b.BackupID)
		p.line("cluster\t%s, system identifier %s, PostgreSQL %s", b.Cluster, b.SystemIdentifier, b.PostgresVersion)
		p.line("type\t%s", b.Type)
		p.line("taken\t%s to %s, %.1f s, by %s", when(&b.StartedAt), when(&b.FinishedAt), b.Seconds, b.Program)
		p.line("run\t%s", b.WorkflowID)
		p.line("WAL\t%s to %s on timeline %d, segments of %s", b.StartLSN, b.StopLSN, b.Timeline, size(int64(b.WALSegmentSize)))
		p.line("content\t%s in %d files, %d chunks", size(b.SourceBytes), b.Files, b.Chunks)
		p.line("stored\t%s new, in %d new chunks", size(b.StoredBytes), b.NewChunks)
		p.line("page checksums\t%v", b.DataChecksums)
		p.line("backup_manifest\t%v", b.ServerManifest)
		p.line("superuser\t%s", b.Superuser)
		for _, t := range b.Tablespaces {
			p.line("tablespace\t%d at %s", t.OID, t.Location)
		}
		printConfiguration(p, b.Configuration)
		p.line("verified\t%s", proof(b.Verified))
	})
	return err
}
