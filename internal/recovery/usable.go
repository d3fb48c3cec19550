package recovery

import (
	"context"
	"errors"
	"strings"

	"lifeboat/internal/repo"
)

// usable reads the manifests of all visible backups, oldest first. A damaged one must not keep anybody from restoring
// what others hold: of these the newest from which the target can be reached is as right as it would have been, only
// slower; the plan warns. With none but damaged ones that is the error.
func usable(ctx context.Context, opts PlanOptions) (out []*repo.Manifest, damage, err error) {
	ids, err := opts.Repo.BackupIDs(ctx, opts.Cluster)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if repo.CheckBackupID(id) != nil {
			continue // a stray object: it names no backup
		}
		m, err := opts.Repo.Manifest(ctx, opts.Cluster, id)
		switch {
		case err == nil:
			out = append(out, m)
		case repo.IsDamage(err):
			damage = errors.Join(damage, err)
		case errors.Is(err, repo.ErrNoBackup): // removed meanwhile
		default:
			return nil, nil, err
		}
	}
	if len(out) == 0 {
		return nil, nil, damage
	}
	return out, damage, nil
}

// warn adds what a person should know of a plan that is whole but for that.
func (p *Plan) warn(damage error) {
	if damage == nil {
		return
	}
	p.Warnings = append(p.Warnings, "backups that cannot be used were passed over: "+strings.ReplaceAll(damage.Error(), "\n", "; "))
}
