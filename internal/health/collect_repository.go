package health

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// repository opens the repository, tries it, and reads how far backups and WAL in it go.
func (o *Options) repository(ctx context.Context, s *Snapshot) {
	r, err := o.Open(ctx)
	if err != nil {
		f := o.failure(err)
		s.Repository.Failed = &f
		s.cannotSee(Failure{"the repository could not be opened", ""}, AreaStore, AreaIdentity, AreaExposure, AreaBackups)
		return
	}
	if err := r.Probe(ctx); err != nil {
		f := o.failure(err)
		s.Repository.Broken = &f
	}
	if err := o.archive(ctx, r, s); err != nil {
		s.cannotSee(o.failure(err), AreaIdentity, AreaExposure, AreaBackups)
	}
}

// archive reads what there is of the cluster. A cluster that the repository does not know has nothing.
func (o *Options) archive(ctx context.Context, r *repo.Repository, s *Snapshot) error {
	v, err := wal.Look(ctx, r, o.Cluster)
	if errors.Is(err, repo.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	proofs, err := o.Proofs(ctx, r)
	if err != nil {
		return fmt.Errorf("read the verifications of %s: %w", o.Cluster, err)
	}
	s.Repository.Identity, s.Coverage = &v.Inventory.Identity, &v.Coverage
	for _, m := range v.Manifests {
		b := Backup{ID: m.BackupID, FinishedAt: m.FinishedAt, Corrupt: m.CorruptPages()}
		if p, ok := proofs[m.BackupID]; ok {
			b.Proof = &p
		}
		s.Backups = append(s.Backups, b)
	}
	// Their ids sort by the second only.
	slices.SortStableFunc(s.Backups, func(a, b Backup) int { return a.FinishedAt.Compare(b.FinishedAt) })
	return nil
}

// disks measures the file systems that this host sees, each once.
func (o *Options) disks(s *Snapshot) {
	type place struct{ role, path string }
	var places []place
	if o.DataDirectory != "" {
		places = append(places, place{"data directory", o.DataDirectory}, place{"pg_wal", filepath.Join(o.DataDirectory, "pg_wal")})
	}
	if o.RepositoryPath != "" {
		places = append(places, place{"repository", o.RepositoryPath})
	}
	seen := map[uint64]bool{}
	for _, p := range places {
		var st unix.Stat_t
		var fs unix.Statfs_t
		err := unix.Stat(p.path, &st)
		if err == nil {
			err = unix.Statfs(p.path, &fs)
		}
		switch {
		case errors.Is(err, unix.ENOENT) && p.role == "repository":
			continue // told by the rules on the repository
		case err != nil:
			s.cannotSee(o.failure(fmt.Errorf("ask how much room the %s %s has: %w", p.role, p.path, err)), AreaDisk)
		case !seen[st.Dev]:
			seen[st.Dev] = true
			s.Disks = append(s.Disks, Disk{p.role, p.path, int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize})
		}
	}
}
