package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
			list, damage, err := a.listBackups(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return errors.Join(a.printBackups(list), damage)
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
	if err != nil {
		return nil, c, err
	}
	return r, c, a.requireKnown(ctx, r, cluster)
}

// requireKnown refuses a cluster that the repository of the command line does not know: without a configuration a slip of
// the finger would look like a cluster without backups. With one, a new cluster is unknown before its first backup.
func (a *app) requireKnown(ctx context.Context, r *repo.Repository, cluster string) error {
	if a.repository == "" {
		return nil
	}
	known, err := r.Clusters(ctx)
	if err != nil || slices.Contains(known, cluster) {
		return err
	}
	hint := "it holds none yet"
	if len(known) > 0 {
		hint = "it knows " + strings.Join(known, ", ")
	}
	return &hinted{&configError{fmt.Errorf("the repository %s knows no cluster %s", r, cluster)}, hint}
}

// known is settings, for commands whose work opens the repository by itself.
func (a *app) known(ctx context.Context, cluster string) (activities.Settings, error) {
	set, c, err := a.cluster(cluster)
	if err != nil || a.repository == "" {
		return set, err
	}
	r, err := c.OpenRepository(ctx, false)
	if repo.IsDamage(err) {
		return set, nil // what works there tells of it
	}
	if err == nil {
		err = a.requireKnown(ctx, r, cluster)
	}
	return set, err
}

// listBackups lists what can be read, and tells of manifests that cannot: who has to restore must see the other backups.
func (a *app) listBackups(ctx context.Context, cluster string) (list contract.BackupList, damage, err error) {
	list = contract.BackupList{Cluster: cluster, Backups: []contract.ListedBackup{}}
	r, _, err := a.openRepository(ctx, cluster)
	if err != nil {
		return list, nil, err
	}
	ids, err := r.BackupIDs(ctx, cluster)
	if err != nil {
		return list, nil, err
	}
	verified, err := activities.ListVerified(ctx, r, cluster)
	if err != nil {
		return list, nil, err
	}
	for _, id := range ids {
		m, err := r.Manifest(ctx, cluster, id)
		switch {
		case err == nil:
			list.Backups = append(list.Backups, listed(m, verified))
		case repo.IsDamage(err):
			damage = &hinted{err, fmt.Sprintf("`lifeboat verify %s all` names all that is damaged", cluster)}
		case !errors.Is(err, repo.ErrNoBackup): // one that was removed meanwhile
			return list, nil, err
		}
	}
	return list, damage, nil
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
				size(b.StoredBytes), b.Timeline, b.StartLSN, b.StopLSN, soundness(b))
		}
	})
}

func proof(v *contract.Verified) string {
	if v == nil {
		return "never"
	}
	return fmt.Sprintf("%s L%d %s", v.Verdict, v.Level, when(&v.At))
}

// soundness is the newest proof, and what the backup itself found.
func soundness(b contract.ListedBackup) string {
	if text := pageTrouble(b.BackupResult); text != "" {
		return proof(b.Verified) + ", " + text
	}
	return proof(b.Verified)
}

// shownBackup is a backup in detail.
type shownBackup struct {
	contract.ListedBackup
	Program        string         `json:"program"`
	WALSegmentSize pg.SegmentSize `json:"walSegmentSize"`
	DataChecksums  bool           `json:"dataChecksums"`
	ServerManifest bool           `json:"serverManifest"`
	// SynthesizedManifest: Lifeboat made the backup_manifest of what it read.
	SynthesizedManifest bool              `json:"synthesizedManifest"`
	Superuser           string            `json:"superuser"`
	Tablespaces         []repo.Tablespace `json:"tablespaces"`
	Settings            map[string]int32  `json:"settings"`
	PageCheck           *repo.PageCheck   `json:"pageCheck"` // null: not checked
	// Configuration of the source that came along (R4); null in backups that have none.
	Configuration *repo.Configuration `json:"configuration"`
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
		ServerManifest: m.ServerManifest, SynthesizedManifest: m.SynthesizedManifest, Superuser: m.Superuser, Tablespaces: append([]repo.Tablespace{}, m.Tablespaces...),
		PageCheck: m.PageCheck, Configuration: m.Configuration,
		Settings: map[string]int32{
			"max_connections": m.MaxConnections, "max_worker_processes": m.MaxWorkerProcesses, "max_wal_senders": m.MaxWALSenders,
			"max_prepared_transactions": m.MaxPreparedXacts, "max_locks_per_transaction": m.MaxLocksPerXact,
		},
	}, nil
}

func manifestOrigin(server, synthesized bool) string {
	switch {
	case server:
		return "the server's own"
	case synthesized:
		return "made by Lifeboat of what it read from the data directory"
	}
	return "none"
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
		p.line("type\t%s", kindOf(b.BackupResult))
		p.line("taken\t%s to %s, %.1f s, by %s", when(&b.StartedAt), when(&b.FinishedAt), b.Seconds, b.Program)
		p.line("run\t%s", b.WorkflowID)
		p.line("WAL\t%s to %s on timeline %d, segments of %s", b.StartLSN, b.StopLSN, b.Timeline, size(int64(b.WALSegmentSize)))
		p.line("content\t%s in %d files, %d chunks", size(b.SourceBytes), b.Files, b.Chunks)
		p.line("stored\t%s new, in %d new chunks; %s changed", size(b.StoredBytes), b.NewChunks, size(b.ChangedBytes))
		printPages(p, b)
		p.line("backup_manifest\t%s", manifestOrigin(b.ServerManifest, b.SynthesizedManifest))
		p.line("superuser\t%s", b.Superuser)
		for _, t := range b.Tablespaces {
			p.line("tablespace\t%d at %s", t.OID, t.Location)
		}
		printConfiguration(p, b.Configuration)
		p.line("verified\t%s", proof(b.Verified))
	})
	return err
}

// printPages tells what page checksums said while the backup was taken, and names the first pages that failed.
func printPages(p *printer, b *shownBackup) {
	c := b.PageCheck
	switch {
	case !b.DataChecksums:
		p.line("page checksums\toff in this cluster")
		return
	case c == nil:
		p.line("page checksums\tnot checked while the backup was taken; `lifeboat verify --level 3` does")
		return
	}
	p.line("page checksums\t%d pages checked, %d corrupt, %d unsure, %d torn (replay mends these)", c.Checked, c.Corrupt, c.Unsure, c.Torn)
	const most = 20
	shown := 0
	for _, page := range c.Pages {
		if page.State == repo.PageTorn {
			continue
		}
		if shown++; shown > most {
			p.line("\tand %d more: --json lists them", c.Corrupt+c.Unsure-most)
			return
		}
		p.line("%s page\tblock %d of %s: %s", page.State, page.Block, page.File, page.Problem)
	}
}
