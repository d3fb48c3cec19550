package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// verify is workflow Verify: one activity, whose findings are a result. A run that fails says nothing of the backups.
func (o Options) verify(ctx workflow.Context, raw converter.RawValue) (contract.VerifyResult, error) {
	var none contract.VerifyResult
	in, err := decode[contract.VerifyInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	if in.Backup == "" {
		in.Backup = contract.VerifyLatest
	}
	level := in.UpTo()
	in.Level = &level
	what := fmt.Sprintf("Backup: %s, up to level %d", in.Backup, level)
	t, err := o.track(ctx, in.Cluster, what, phaseVerify)
	if err != nil {
		return none, err
	}
	result, err := phase(ctx, t, phaseVerify, call{
		activity: contract.VerifyBackupsActivity,
		summary:  fmt.Sprintf("verify %s of %s up to level %d", in.Backup, in.Cluster, level),
	}, in, verifyFigures)
	outcome := verifyOutcome(result)
	if why := t.skip(ctx, err); why != "" {
		result = contract.VerifyResult{Cluster: in.Cluster, Verdict: contract.Skipped, Backups: []contract.VerifiedBackup{}, Skipped: why}
		outcome, err = skippedOutcome(why), nil
	}
	result.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	t.progress.Verdict = result.Verdict
	if err := t.finish(ctx, outcome, err); err != nil {
		return none, err
	}
	return result, nil
}

func verifyFigures(r contract.VerifyResult) string {
	findings := 0
	for _, b := range r.Backups {
		findings += len(b.Findings)
	}
	return parts(fmt.Sprintf("%d backups", len(r.Backups)), fmt.Sprintf("level %d", r.Level), fmt.Sprintf("%d findings", findings))
}

// verifyOutcome tells the first findings; the result has all.
func verifyOutcome(r contract.VerifyResult) string {
	text := fmt.Sprintf("Level %d.", r.Level)
	const most = 5
	told := 0
	for _, b := range r.Backups {
		for _, f := range b.Findings {
			if told++; told > most {
				return text + " More stands in the result."
			}
			text += " " + f.Object + f.File + ": " + f.Problem + "."
		}
	}
	return text
}
