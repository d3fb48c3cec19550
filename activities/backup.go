package activities

import (
	"context"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
)

// TakeBackup takes one backup.
func (r *Runner) TakeBackup(ctx context.Context, in contract.TakeBackupInput, run Run) (contract.BackupResult, error) {
	var none contract.BackupResult
	if err := (&contract.BackupInput{Cluster: in.Cluster, Type: in.Type}).Validate(); err != nil {
		return none, &InputError{err}
	}
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, true)
	if err != nil {
		return none, err
	}
	from, err := r.source(ctx, in.Cluster, &c, in.Queue)
	if err != nil {
		return none, err
	}
	m, err := basebackup.Take(ctx, basebackup.Options{
		Repo: rp, Cluster: in.Cluster, Server: from.Server, DataDirectory: from.DataDirectory, Type: repo.BackupType(in.Type), WorkflowID: run.WorkflowID, Host: r.set.Host, Program: r.set.Program,
		Compression: c.Compression, WALTimeout: r.set.WALTimeout, CheckpointEvery: r.set.CheckpointEvery, Logger: r.set.Logger,
		Progress: func(p basebackup.Progress) {
			run.Progress(contract.Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Waiting: p.Waiting})
		},
	})
	if err != nil {
		return none, err
	}
	if err := keepConfiguration(ctx, rp, in.Cluster, c.Configuration, r.set.Program); err != nil {
		// The backup is there and stands for itself; the next one tries this again.
		r.set.Logger.Warn("the repository has no copy of the present configuration", "cluster", in.Cluster, "error", err)
	}
	return BackupResult(m), nil
}

// BackupResult is a manifest in the words of the contract.
func BackupResult(m *repo.Manifest) contract.BackupResult {
	return contract.BackupResult{
		Cluster: m.Cluster, BackupID: m.BackupID, Type: string(m.Type), ParentID: m.ParentID,
		SystemIdentifier: m.SystemID.String(), PostgresVersion: m.PostgresText, Timeline: uint32(m.Timeline),
		StartLSN: m.StartLSN.String(), StopLSN: m.StopLSN.String(), StartedAt: m.StartedAt, FinishedAt: m.FinishedAt,
		SourceBytes: m.SourceBytes, ChangedBytes: m.ChangedBytes, StoredBytes: m.StoredBytes,
		Chunks: m.Chunks, NewChunks: m.NewChunks, Files: m.Files,
		CorruptPages: m.CorruptPages(), UnsurePages: m.UnsurePages(), Seconds: m.Seconds, WorkflowID: m.WorkflowID,
	}
}
