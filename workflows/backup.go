package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// backup is workflow Backup: one backup of one cluster. A retried attempt is a new backup (R6), and nothing of this
// run is visible in the repository until its manifest is written, so there is nothing to undo when it fails or is
// cancelled.
func (o Options) backup(ctx workflow.Context, raw converter.RawValue) (contract.BackupResult, error) {
	var none contract.BackupResult
	in, err := decode[contract.BackupInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	if in.Type == "" {
		in.Type = contract.TypeFull
	}
	t, err := o.track(ctx, in.Cluster, "Type: "+in.Type, phaseBackup)
	if err != nil {
		return none, err
	}
	result, err := phase(ctx, t, phaseBackup, call{
		activity: contract.TakeBackupActivity,
		summary:  fmt.Sprintf("%s backup of %s", in.Type, in.Cluster),
	}, contract.TakeBackupInput(in), backupFigures)
	result.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	if err := t.finish(ctx, fmt.Sprintf("Backup %s is in the repository.", result.BackupID), err); err != nil {
		return none, err
	}
	return result, nil
}

func backupFigures(r contract.BackupResult) string {
	pages := ""
	if r.CorruptPages+r.UnsurePages > 0 {
		pages = fmt.Sprintf("⚠ %d corrupt pages, %d unsure", r.CorruptPages, r.UnsurePages)
	}
	return parts("backup "+r.BackupID, formatBytes(r.SourceBytes)+" read", formatBytes(r.StoredBytes)+" stored",
		fmt.Sprintf("%d of %d chunks new", r.NewChunks, r.Chunks), pages)
}
