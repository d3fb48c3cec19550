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
	result, err := t.backup(ctx, in)
	outcome := fmt.Sprintf("Backup %s is in the repository.", result.BackupID)
	if why := t.skip(ctx, err); why != "" {
		at := workflow.Now(ctx).UTC()
		result = contract.BackupResult{Cluster: in.Cluster, Type: in.Type, StartedAt: at, FinishedAt: at, Skipped: why}
		outcome, err = skippedOutcome(why), nil
	}
	result.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	if err := t.finish(ctx, outcome, err); err != nil {
		return none, err
	}
	return result, nil
}

// backup finds out where the backup is taken, and takes it there.
func (t *tracker) backup(ctx workflow.Context, in contract.BackupInput) (contract.BackupResult, error) {
	var where contract.PlanBackupResult
	// Runs from before there were hosts to choose from took any worker.
	if workflow.GetVersion(ctx, changePlanBackup, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		var err error
		where, err = execute[contract.PlanBackupInput, contract.PlanBackupResult](ctx, t.options, call{
			activity: contract.PlanBackupActivity,
			summary:  "choose the host for the backup of " + in.Cluster,
		}, contract.PlanBackupInput{Cluster: in.Cluster})
		if err != nil {
			return contract.BackupResult{}, err
		}
	}
	return phase(ctx, t, phaseBackup, call{
		activity: contract.TakeBackupActivity, host: where.Host, queue: where.Queue,
		summary: fmt.Sprintf("%s backup of %s", in.Type, in.Cluster),
	}, contract.TakeBackupInput{Cluster: in.Cluster, Type: in.Type, Queue: where.Queue}, backupFigures)
}

// changePlanBackup names the change that put PlanBackup before TakeBackup.
const changePlanBackup = "plan-backup"

func backupFigures(r contract.BackupResult) string {
	pages := ""
	if r.CorruptPages+r.UnsurePages > 0 {
		pages = fmt.Sprintf("⚠ %d corrupt pages, %d unsure", r.CorruptPages, r.UnsurePages)
	}
	return parts("backup "+r.BackupID, formatBytes(r.SourceBytes)+" read", formatBytes(r.StoredBytes)+" stored",
		fmt.Sprintf("%d of %d chunks new", r.NewChunks, r.Chunks), pages)
}
