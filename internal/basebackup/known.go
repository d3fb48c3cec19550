package basebackup

import (
	"context"
	"errors"
	"slices"
	"time"

	"lifeboat/internal/repo"
)

// known is what the repository holds already and this backup need not store again. Everything is read and hashed all the
// same: what is known only says what to compare with (R6).
type known struct {
	parent    *repo.Snapshot  // of an incremental; nil of a full
	baselines []repo.Baseline // asked in turn, file by file
	own       []string        // intents of this workflow's earlier attempts, to be removed in the end
}

const (
	// mostResumed bounds how many dead attempts are asked, the newest first: each costs memory.
	mostResumed = 4
	// resumeWithin is how old a dead attempt may be of which a full takes chunks: a full is there to store everything
	// afresh, so that rot in old packs does not spread (R11).
	resumeWithin = 7 * 24 * time.Hour
)

// lookAround decides what this backup is, and what it builds on.
func (a *attempt) lookAround(ctx context.Context) (k known, err error) {
	if a.opts.Type == repo.Incremental {
		if k.parent, err = a.findParent(ctx); err != nil {
			return k, err
		}
	}
	if err := a.resume(ctx, &k); err != nil {
		return k, err
	}
	if k.parent != nil {
		// After the dead attempts: what they have of a file is as new as this backup, or nearly.
		k.baselines = append(k.baselines, k.parent)
	}
	return k, nil
}

// backupType is what the backup truly is: an incremental needs something to be incremental to.
func (k *known) backupType() repo.BackupType {
	if k.parent == nil {
		return repo.Full
	}
	return repo.Incremental
}

// parentID is "" for a full.
func (k *known) parentID() string {
	if k.parent == nil {
		return ""
	}
	return k.parent.Manifest.BackupID
}

// pages are the parent's pages of the file table.
func (k *known) pages() []repo.PageRef {
	if k.parent == nil {
		return nil
	}
	return k.parent.Manifest.Table.Pages
}

// findParent opens the newest visible backup of this server, of any type and on any timeline: each chunk is compared by
// its hash, so a parent from another branch only saves less. One that is damaged, or known to be, is passed over.
func (a *attempt) findParent(ctx context.Context) (*repo.Snapshot, error) {
	ids, err := a.opts.Repo.BackupIDs(ctx, a.opts.Cluster)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(ids) {
		snap, err := a.opts.Repo.OpenBackup(ctx, a.opts.Cluster, id)
		if err == nil && snap.Manifest.SystemID == a.server.systemID {
			return snap, nil
		}
		if err != nil && !repo.IsDamage(err) && !errors.Is(err, repo.ErrNoBackup) {
			return nil, err
		}
		a.opts.Logger.Warn("an earlier backup cannot be the parent of this one", "backup", id, "error", err)
	}
	a.opts.Logger.Warn("there is no earlier backup to be incremental to: this one is a full", "cluster", a.opts.Cluster)
	return nil, nil
}

// resume offers what earlier attempts stored before they died. This attempt holds the lease, so none of them can finish;
// the intents of its own workflow are its to remove afterwards.
func (a *attempt) resume(ctx context.Context, k *known) error {
	intents, err := a.opts.Repo.Intents(ctx, a.opts.Cluster)
	if err != nil {
		return err
	}
	for _, in := range slices.Backward(intents) {
		if in.Damage != nil {
			// It must not be taken for absent (R12), nor need it keep others from their work.
			a.opts.Logger.Warn("the intent of a dead attempt cannot be read, so nothing of it is used; remove that object when no backup runs",
				"backup", in.BackupID, "error", in.Damage)
			continue
		}
		if in.WorkflowID == a.opts.WorkflowID {
			k.own = append(k.own, in.BackupID)
		}
		if len(k.baselines) == mostResumed || !resumable(in, k.backupType(), a.started) {
			continue
		}
		base, err := a.opts.Repo.ResumeBaseline(ctx, a.opts.Cluster, in.BackupID)
		if err != nil {
			return err
		}
		k.baselines = append(k.baselines, base)
	}
	return nil
}

// resumable tells whether a backup of this type may build on a dead attempt. A full shares with no backup (R11), so not
// with an attempt that shared with one either.
func resumable(in repo.Intent, t repo.BackupType, now time.Time) bool {
	return t == repo.Incremental || in.Type == string(repo.Full) && now.Sub(in.StartedAt) < resumeWithin
}
