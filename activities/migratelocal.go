package activities

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/contract"
)

// Migrate is workflow Migrate for `lifeboat migrate apply --local`, with Temporal down: the same steps in one process.
// An error says that the database was not changed, or that the run was interrupted.
func (r *Runner) Migrate(ctx context.Context, in contract.MigrateInput, run Run) (contract.MigrateResult, error) {
	if err := in.Validate(); err != nil {
		return contract.MigrateResult{}, &InputError{err}
	}
	began := time.Now().UTC()
	l := &localMigration{runner: r, ctx: ctx, in: in, run: run}
	res, err := contract.RunMigration(in, contract.MigrationSteps{
		Plan: l.plan, Rehearse: l.rehearse, Backup: l.backup, Mark: l.mark, Apply: l.apply, Check: l.check, Revert: l.revert,
	})
	res.StartedAt, res.FinishedAt, res.WorkflowID = began, time.Now().UTC(), run.WorkflowID
	return res, err
}

// localMigration is one migration under way. It belongs to one call, whose context it holds.
type localMigration struct {
	runner *Runner
	ctx    context.Context //nolint:containedctx // the steps are closures of one call
	in     contract.MigrateInput
	run    Run
}

func (l *localMigration) plan() (contract.PlanMigrationResult, error) {
	l.run.Progress(contract.Progress{Phase: "plan"})
	return l.runner.PlanMigration(l.ctx, l.in, l.run)
}

// rehearse makes a clone as a drill does, and removes it whatever happens.
func (l *localMigration) rehearse(plan contract.MigrationPlan) (trial contract.MigrationTrial, err error) {
	d := newLocalDrill(l.runner, contract.DrillInput{Cluster: l.in.Cluster, Scenario: contract.ScenarioRestore}, l.run)
	release, err := d.claim()
	if err != nil {
		return trial, err
	}
	defer release()
	defer func() {
		lasting, cancel := l.lasting()
		defer cancel()
		if failed := d.cleanUp(lasting); failed != nil {
			trial.LeftBehind = fmt.Sprintf("%s on host %s: %v", d.dir, l.runner.set.Host, failed)
		}
	}()
	prepared, err := l.runner.PrepareDrill(l.ctx, contract.PrepareDrillInput{Cluster: l.in.Cluster, DrillID: d.report.DrillID}, l.run)
	if err != nil {
		return trial, err
	}
	d.dir = prepared.TargetDir
	planned, err := l.runner.PlanRestore(l.ctx, contract.PlanRestoreInput{
		Cluster: l.in.Cluster, TargetDir: d.dir, Target: prepared.Target, Start: true,
	}, l.run)
	if err != nil {
		return trial, err
	}
	if _, err := l.runner.LayFiles(l.ctx, contract.LayFilesInput{Plan: planned.Plan, DrillID: d.report.DrillID}, l.run); err != nil {
		return trial, err
	}
	return l.runner.RehearseMigration(l.ctx, contract.RehearseMigrationInput{
		MigrationSource: l.in.MigrationSource, To: l.in.To, PlanHash: plan.Hash, Restore: planned.Plan, DrillID: d.report.DrillID,
	}, l.run)
}

func (l *localMigration) backup() (contract.VerifiedBackup, error) {
	var none contract.VerifiedBackup
	taken, err := l.runner.TakeBackup(l.ctx, contract.TakeBackupInput{Cluster: l.in.Cluster, Type: contract.TypeIncremental}, l.run)
	if err != nil {
		return none, err
	}
	level := contract.DefaultVerifyLevel
	verified, err := l.runner.VerifyBackups(l.ctx, contract.VerifyInput{Cluster: l.in.Cluster, Backup: taken.BackupID, Level: &level}, l.run)
	if err != nil {
		return none, err
	}
	return contract.VerifiedOf(verified, taken.BackupID), nil
}

func (l *localMigration) mark(planHash string) (contract.RestorePoint, error) {
	return l.runner.MarkRestorePoint(l.ctx, contract.MarkRestorePointInput{Cluster: l.in.Cluster, PlanHash: planHash}, l.run)
}

func (l *localMigration) apply(plan contract.MigrationPlan) (contract.ApplyMigrationResult, error) {
	in := contract.ApplyMigrationInput{MigrationSource: l.in.MigrationSource, To: l.in.To, Plan: plan, AllowUnsafe: l.in.AllowUnsafe}
	out, err := l.runner.ApplyMigration(l.ctx, in, l.run)
	if err == nil || l.ctx.Err() == nil {
		return out, err
	}
	// Interrupted: the server has the answer to what is applied.
	lasting, cancel := l.lasting()
	defer cancel()
	m, failed := l.runner.Migrator(in.MigrationSource, nil)
	if failed == nil {
		out.State, failed = stateOf(lasting, m, plan)
	}
	if failed != nil {
		return out, err
	}
	out.Failure = fmt.Sprintf("interrupted: %v", err)
	return out, nil
}

// lasting outlives an interruption.
func (l *localMigration) lasting() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(l.ctx), cleanUpTime)
}

func (l *localMigration) check(before contract.MigrationHealth, version int64) (contract.CheckMigratedResult, error) {
	l.run.Progress(contract.Progress{Phase: "gate"})
	in := contract.CheckMigratedInput{MigrationSource: l.in.MigrationSource, Before: before, Version: version}
	lasting, cancel := l.lasting()
	defer cancel()
	return l.runner.CheckMigrated(lasting, in, l.run)
}

func (l *localMigration) revert(plan contract.MigrationPlan) (contract.ApplyMigrationResult, error) {
	l.run.Progress(contract.Progress{Phase: "down"})
	in := contract.RevertMigrationInput{MigrationSource: l.in.MigrationSource, Plan: plan, AllowDestructive: l.in.AllowDestructiveDown}
	return l.runner.RevertMigration(l.ctx, in, l.run)
}
