package contract

import (
	"fmt"
	"slices"
	"strings"
)

// MigrationSteps are the steps of a migration, wherever they run: as activities of a workflow, or in this process. Each
// is called at most once. An error says that a step could not be done, in all its attempts; what a step found is a result.
type MigrationSteps struct {
	Plan func() (PlanMigrationResult, error)
	// Rehearse restores a clone, runs the plan there, and removes the clone whatever happens.
	Rehearse func(MigrationPlan) (MigrationTrial, error)
	// Backup takes a backup and verifies it.
	Backup func() (VerifiedBackup, error)
	Mark   func(planHash string) (RestorePoint, error)
	Apply  func(MigrationPlan) (ApplyMigrationResult, error)
	Check  func(before MigrationHealth, version int64) (CheckMigratedResult, error)
	Revert func(MigrationPlan) (ApplyMigrationResult, error)
}

// RunMigration is the order of a migration, and what follows from what its steps found. An error means that it ended
// before the database was changed; everything after is a result, which says what is in the database.
func RunMigration(in MigrateInput, steps MigrationSteps) (MigrateResult, error) {
	m := &migration{in: in, steps: steps, res: MigrateResult{
		Cluster: in.Cluster, Database: in.Database, Next: []string{}, Checks: []CheckResult{}, Files: []AppliedMigration{}, Skipped: []string{},
	}}
	planned, err := steps.Plan()
	if err != nil {
		return m.res, err
	}
	m.res.Plan, m.res.Checks = planned.Plan, planned.Checks
	if ready, err := m.prepare(planned); err != nil || !ready {
		return m.res, err
	}
	m.apply(planned)
	return m.res, nil
}

// migration is one run under way.
type migration struct {
	in    MigrateInput
	steps MigrationSteps
	res   MigrateResult
}

func (m *migration) end(outcome string, verdict Verdict, format string, args ...any) {
	m.res.Outcome, m.res.Verdict, m.res.Explanation = outcome, verdict, fmt.Sprintf(format, args...)
}

// prepare does everything that does not change the database, and tells whether to go on.
func (m *migration) prepare(planned PlanMigrationResult) (ready bool, err error) {
	plan := planned.Plan
	if len(plan.Files) == 0 {
		m.end(MigrationNothing, Pass, "The database is at version %s, and no file is pending.", VersionText(plan.From))
		return false, nil
	}
	if text := migrationProblem(planned, m.in.AllowUnsafe); text != "" {
		m.end(MigrationRefused, Fail, "The database was not changed: %s.", text)
		m.next("mend that and start again")
		return false, nil
	}
	if ready, err = m.rehearse(plan); err != nil || !ready {
		return false, err
	}
	if m.in.RehearseOnly {
		m.end(MigrationRehearsed, Pass, "The plan ran on a clone; the database was not changed.")
		m.next(m.command("apply") + " --plan-hash " + plan.Hash)
		return false, nil
	}
	return m.secure(plan)
}

// migrationProblem decides after planning: why a run must not go on; "" if it may.
func migrationProblem(p PlanMigrationResult, allowUnsafe bool) string {
	var lines []string
	if !allowUnsafe {
		lines = append(lines, p.Plan.Unsafe...)
	}
	for _, c := range p.Checks {
		if c.Verdict == Fail {
			lines = append(lines, c.ID+": "+c.Observed)
		}
	}
	return strings.Join(lines, "; ")
}

func (m *migration) rehearse(plan MigrationPlan) (ready bool, err error) {
	if m.in.SkipRehearsal {
		m.res.Skipped = append(m.res.Skipped, "rehearsal")
		return true, nil
	}
	trial, err := m.steps.Rehearse(plan)
	if err != nil {
		return false, err
	}
	m.res.Rehearsal = &trial
	if trial.Failure != "" {
		m.end(MigrationRefused, Fail, "The database was not changed: on a clone the plan failed: %s.", trial.Failure)
		m.next("mend that and start again")
		return false, nil
	}
	return true, nil
}

// secure makes a way back.
func (m *migration) secure(plan MigrationPlan) (ready bool, err error) {
	if m.in.SkipBackup {
		m.res.Skipped = append(m.res.Skipped, "backup", "restore point")
		return true, nil
	}
	b, err := m.steps.Backup()
	if err != nil {
		return false, err
	}
	if m.res.BackupID = b.BackupID; b.Verdict != Pass {
		problem := "see `lifeboat verify`"
		if len(b.Findings) > 0 {
			problem = b.Findings[0].Problem
		}
		m.end(MigrationRefused, Fail, "The database was not changed: backup %s is no way back, its verification says %s: %s.", b.BackupID, b.Verdict, problem)
		m.next(fmt.Sprintf("lifeboat verify %s %s", m.in.Cluster, b.BackupID))
		return false, nil
	}
	point, err := m.steps.Mark(plan.Hash)
	if err != nil {
		return false, err
	}
	m.res.RestorePoint = &point
	return true, nil
}

func (m *migration) apply(planned PlanMigrationResult) {
	plan := planned.Plan
	applied, err := m.steps.Apply(plan)
	if err != nil {
		m.end(MigrationUnknown, CouldNotVerify, "Applying ended without an answer: %v. Each file that runs in one transaction is applied as a whole or not at all.", err)
		m.next(m.command("status"))
		m.wayBack()
		return
	}
	m.res.Files, m.res.State = applied.Files, &applied.State
	switch {
	case applied.Failure == "":
		m.gate(planned)
	case len(applied.State.Applied) == 0 && applied.State.HalfWay == "":
		m.end(MigrationUnchanged, Fail, "%s. Nothing of the plan remains: the database is at version %s, as before.", applied.Failure, VersionText(applied.State.Version))
		m.next(m.command("apply") + ", after the cause is mended")
	default:
		m.goBack(plan, MigrationPartial, applied.Failure)
	}
}

// gate looks at the server after all was applied.
func (m *migration) gate(planned PlanMigrationResult) {
	plan := planned.Plan
	checked, err := m.steps.Check(planned.Before, plan.To)
	if err != nil {
		m.end(MigrationUnhealthy, CouldNotVerify, "All of the plan is applied, and the server could not be checked afterwards: %v.", err)
		m.next(m.command("status"))
		m.wayBack()
		return
	}
	m.res.Checks = append(slices.Clone(m.res.Checks), checked.Checks...)
	var problems []string
	for _, c := range checked.Checks {
		if c.Verdict == Fail {
			problems = append(problems, c.ID+": "+c.Observed)
		}
	}
	if len(problems) > 0 {
		m.goBack(plan, MigrationUnhealthy, "the gate after the migration said no: "+strings.Join(problems, "; "))
		return
	}
	m.end(MigrationApplied, Pass, "The database is at version %s.", VersionText(plan.To))
}

// goBack goes down if that was rehearsed, and tells the other ways if it was not, or fails.
func (m *migration) goBack(plan MigrationPlan, outcome, failure string) {
	st := m.res.State
	where := fmt.Sprintf("the database is at version %s, %d of %d files are applied", VersionText(st.Version), len(st.Applied), len(plan.Files))
	if st.HalfWay != "" {
		where = st.HalfWay
	}
	switch {
	case st.HalfWay != "": // going down would begin at a state that no file describes
	case m.res.Rehearsal == nil || !m.res.Rehearsal.Reversed:
		where += "; the way down was not rehearsed, so it was not taken"
	default:
		reverted, err := m.steps.Revert(plan)
		if err == nil && reverted.Failure == "" {
			m.res.State = &reverted.State
			m.end(MigrationReverted, Fail, "%s. The way down, as rehearsed, brought the database back to version %s.", failure, VersionText(reverted.State.Version))
			m.next(m.command("apply") + ", after the cause is mended")
			return
		}
		if err != nil {
			where += fmt.Sprintf("; going down ended without an answer: %v", err)
		} else {
			m.res.State = &reverted.State
			where += "; going down failed: " + reverted.Failure
		}
	}
	m.end(outcome, Fail, "%s. State: %s.", failure, where)
	if st.Next != "" {
		m.next(st.Next)
	}
	if outcome == MigrationPartial {
		m.next(m.command("apply") + ", after the cause is mended: it goes on where it stopped")
	}
	if st.HalfWay == "" && reversible(plan, st.Applied) {
		m.next(fmt.Sprintf("%s --to %d", m.command("down"), plan.From))
	}
	m.wayBack()
}

func reversible(plan MigrationPlan, applied []int64) bool {
	for _, f := range plan.Files {
		if slices.Contains(applied, f.Version) && !f.Reversible {
			return false
		}
	}
	return len(applied) > 0
}

// wayBack tells the restore to just before, if there is a point to restore to.
func (m *migration) wayBack() {
	if p := m.res.RestorePoint; p != nil {
		m.next(fmt.Sprintf("lifeboat restore %s --to-name %s --target-dir DIR", m.in.Cluster, p.Name))
	}
}

func (m *migration) next(line string) { m.res.Next = append(m.res.Next, line) }

func (m *migration) command(verb string) string {
	text := fmt.Sprintf("lifeboat migrate %s %s --source DIR", verb, m.in.Cluster)
	if m.in.Database != "" {
		text += " --database " + m.in.Database
	}
	return text
}

// VerifiedOf is what a verification says of one backup. One that it does not name is COULD_NOT_VERIFY.
func VerifiedOf(r VerifyResult, backupID string) VerifiedBackup {
	for _, b := range r.Backups {
		if b.BackupID == backupID {
			return b
		}
	}
	return VerifiedBackup{BackupID: backupID, Verdict: CouldNotVerify}
}
