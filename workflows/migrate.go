package workflows

import (
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// Phases of a migration, besides those of a drill and a backup.
const (
	phaseMigrationPlan = "plan migration"
	phaseRehearse      = "rehearse"
	phaseRestorePoint  = "restore point"
	phaseApply         = "apply"
	phaseGate          = "health gate"
	phaseRevert        = "go down"
)

// migrate is workflow Migrate. The order of its steps is contract.RunMigration's, as without Temporal. From applying on
// the run ends with a result that says what is in the database; a cancellation ends the step that it meets, and what
// follows from there is still done.
func (o Options) migrate(ctx workflow.Context, raw converter.RawValue) (contract.MigrateResult, error) {
	var none contract.MigrateResult
	in, err := decode[contract.MigrateInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	//workflowcheck:ignore // marshalling a list of strings does the same each time
	if err := in.CheckPayload(); err != nil {
		return none, invalidInput(err.Error())
	}
	t, err := o.track(ctx, in.Cluster, migrationSubject(in), migrationPhases(in)...)
	if err != nil {
		return none, err
	}
	m := &migrationRun{ctx: ctx, t: t, in: in}
	began := workflow.Now(ctx).UTC()
	res, err := contract.RunMigration(in, contract.MigrationSteps{
		Plan: m.plan, Rehearse: m.rehearse, Backup: m.backup, Mark: m.mark, Apply: m.apply, Check: m.check, Revert: m.revert,
	})
	res.StartedAt, res.FinishedAt = began, workflow.Now(ctx).UTC()
	res.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	t.progress.Verdict = res.Verdict
	outcome := migrationOutcome(res)
	if err == nil && res.Outcome == contract.MigrationUnknown && ctx.Err() != nil {
		err = temporal.NewCanceledError()
	}
	err = t.finish(ctx, outcome, err)
	if temporal.IsCanceledError(err) {
		t.progress.Outcome = "Cancelled. The database was not changed."
		if res.Outcome != "" {
			t.progress.Outcome = "Cancelled. " + outcome
		}
		t.show(ctx)
	}
	if err != nil {
		return none, err
	}
	return res, nil
}

// migrationRun is one migration under way. The steps are closures of one run, whose context it holds.
type migrationRun struct {
	ctx workflow.Context
	t   *tracker
	in  contract.MigrateInput
}

func migrationSubject(in contract.MigrateInput) string {
	to := "the newest version"
	if in.To != nil {
		to = fmt.Sprintf("version %d", *in.To)
	}
	text := fmt.Sprintf("%d files, to %s", len(in.Files), to)
	if in.Database != "" {
		text += ", database " + in.Database
	}
	if in.RehearseOnly {
		text += ", rehearsal only"
	}
	return text
}

func migrationPhases(in contract.MigrateInput) []string {
	list := []string{phaseMigrationPlan}
	if !in.SkipRehearsal {
		list = append(list, phasePrepare, phasePlan, phaseFiles, phaseRehearse, phaseCleanUp)
	}
	if in.RehearseOnly {
		return list
	}
	if !in.SkipBackup {
		list = append(list, phaseBackup, phaseVerify, phaseRestorePoint)
	}
	return append(list, phaseApply, phaseGate, phaseRevert)
}

func (m *migrationRun) plan() (contract.PlanMigrationResult, error) {
	return phase(m.ctx, m.t, phaseMigrationPlan, call{
		activity: contract.PlanMigrationActivity, summary: "plan and check the migration of " + m.in.Cluster,
	}, m.in, func(r contract.PlanMigrationResult) string {
		return parts(fmt.Sprintf("%d files", len(r.Plan.Files)),
			contract.VersionText(r.Plan.From)+" → "+contract.VersionText(r.Plan.To), fmt.Sprintf("plan %.12s", r.Plan.Hash))
	})
}

// rehearse makes a clone on one host, uses it, and removes it whatever happens, also when the run is cancelled.
func (m *migrationRun) rehearse(plan contract.MigrationPlan) (trial contract.MigrationTrial, err error) {
	id := contract.DrillID(workflow.Now(m.ctx).UTC(), workflow.GetInfo(m.ctx).WorkflowExecution.RunID)
	prepared, err := phase(m.ctx, m.t, phasePrepare, call{
		activity: contract.PrepareDrillActivity, summary: "choose a host for the clone of " + m.in.Cluster,
	}, contract.PrepareDrillInput{Cluster: m.in.Cluster, DrillID: id}, prepareFigures)
	if err != nil {
		return trial, err
	}
	if prepared.Host == "" || prepared.Queue == "" || prepared.TargetDir == "" {
		return trial, temporal.NewNonRetryableApplicationError(contract.PrepareDrillActivity+
			" named no host, queue or directory; are all workers of one version?", contract.ErrorConfiguration, nil)
	}
	host := onHost{prepared.Host, prepared.Queue}
	trial, err = m.rehearseOn(host, prepared, id, plan)
	lasting, release := workflow.NewDisconnectedContext(m.ctx)
	defer release()
	_, failed := phase(lasting, m.t, phaseCleanUp, host.call(contract.CleanUpDrillActivity, "remove the clone in "+prepared.TargetDir),
		contract.CleanUpDrillInput{TargetDir: prepared.TargetDir, DrillID: id}, cleanUpFigures)
	if failed != nil {
		trial.LeftBehind = fmt.Sprintf("%s on host %s: %s", prepared.TargetDir, prepared.Host, reason(failed))
	}
	return trial, err
}

func (m *migrationRun) rehearseOn(host onHost, prepared contract.PrepareDrillResult, id string, plan contract.MigrationPlan) (contract.MigrationTrial, error) {
	var none contract.MigrationTrial
	planned, _, err := m.t.plan(m.ctx, host, contract.PlanRestoreInput{
		Cluster: m.in.Cluster, TargetDir: prepared.TargetDir, Target: prepared.Target, Start: true,
	})
	if err != nil {
		return none, err
	}
	if _, err := m.t.layFiles(m.ctx, host, prepared.TargetDir, contract.LayFilesInput{Plan: planned.Plan, DrillID: id}); err != nil {
		return none, err
	}
	return phase(m.ctx, m.t, phaseRehearse, host.call(contract.RehearseMigrationActivity, "run the plan on the clone"),
		contract.RehearseMigrationInput{
			MigrationSource: m.in.MigrationSource, To: m.in.To, PlanHash: plan.Hash, Restore: planned.Plan, DrillID: id,
		}, trialFigures)
}

func trialFigures(r contract.MigrationTrial) string {
	if r.Failure != "" {
		return "failed on the clone: " + r.Failure
	}
	rewrites := 0
	for _, f := range r.Files {
		rewrites += len(f.Rewrites)
	}
	back := "not back again"
	if r.Reversed {
		back = "and back again"
	}
	return parts(formatSeconds(r.Seconds), fmt.Sprintf("%d rewrites", rewrites), formatBytes(r.WALBytes)+" of WAL", back)
}

func (m *migrationRun) backup() (contract.VerifiedBackup, error) {
	taken, err := m.t.backup(m.ctx, contract.BackupInput{Cluster: m.in.Cluster, Type: contract.TypeIncremental})
	if err != nil {
		return contract.VerifiedBackup{}, err
	}
	level := contract.DefaultVerifyLevel
	verified, err := phase(m.ctx, m.t, phaseVerify, call{
		activity: contract.VerifyBackupsActivity, summary: fmt.Sprintf("verify %s up to level %d", taken.BackupID, level),
	}, contract.VerifyInput{Cluster: m.in.Cluster, Backup: taken.BackupID, Level: &level}, verifyFigures)
	return contract.VerifiedOf(verified, taken.BackupID), err
}

func (m *migrationRun) mark(planHash string) (contract.RestorePoint, error) {
	return phase(m.ctx, m.t, phaseRestorePoint, call{
		activity: contract.MarkRestorePointActivity, summary: "name a restore point in " + m.in.Cluster,
	}, contract.MarkRestorePointInput{Cluster: m.in.Cluster, PlanHash: planHash},
		func(p contract.RestorePoint) string { return parts(p.Name, "at "+p.LSN) })
}

func (m *migrationRun) apply(plan contract.MigrationPlan) (contract.ApplyMigrationResult, error) {
	out, err := phase(m.ctx, m.t, phaseApply, call{
		activity: contract.ApplyMigrationActivity, summary: fmt.Sprintf("apply %d files to %s", len(plan.Files), m.in.Cluster),
	}, contract.ApplyMigrationInput{MigrationSource: m.in.MigrationSource, To: m.in.To, Plan: plan, AllowUnsafe: m.in.AllowUnsafe}, applyFigures)
	return out, plainly(err)
}

// plainly gives an error that is told in a result the words for people.
func plainly(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(reason(err))
}

func applyFigures(r contract.ApplyMigrationResult) string {
	text := fmt.Sprintf("%d of %d files", len(r.State.Applied), len(r.State.Applied)+len(r.State.Pending))
	return parts("version "+contract.VersionText(r.State.Version), text, r.Failure)
}

// check and revert are done also when the run is cancelled: the database was changed.
func (m *migrationRun) check(before contract.MigrationHealth, version int64) (contract.CheckMigratedResult, error) {
	lasting, release := workflow.NewDisconnectedContext(m.ctx)
	defer release()
	out, err := phase(lasting, m.t, phaseGate, call{
		activity: contract.CheckMigratedActivity, summary: "look at " + m.in.Cluster + " after the migration",
	}, contract.CheckMigratedInput{MigrationSource: m.in.MigrationSource, Before: before, Version: version}, gateFigures)
	return out, plainly(err)
}

func gateFigures(r contract.CheckMigratedResult) string {
	passed := 0
	for _, c := range r.Checks {
		if c.Verdict == contract.Pass {
			passed++
		}
	}
	return fmt.Sprintf("%d of %d checks passed", passed, len(r.Checks))
}

func (m *migrationRun) revert(plan contract.MigrationPlan) (contract.ApplyMigrationResult, error) {
	lasting, release := workflow.NewDisconnectedContext(m.ctx)
	defer release()
	out, err := phase(lasting, m.t, phaseRevert, call{
		activity: contract.RevertMigrationActivity, summary: "go down to version " + contract.VersionText(plan.From),
	}, contract.RevertMigrationInput{MigrationSource: m.in.MigrationSource, Plan: plan, AllowDestructive: m.in.AllowDestructiveDown}, applyFigures)
	return out, plainly(err)
}

// migrationOutcome tells the end, and what to do next, ready to run.
func migrationOutcome(r contract.MigrateResult) string {
	text := r.Explanation
	if len(r.Next) > 0 {
		text += " Next: " + strings.Join(r.Next, "; ") + "."
	}
	return text
}
