package workflows

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"

	"lifeboat/internal/contract"
)

const migrateInput = `{"cluster":"orders","database":"shop","files":[{"name":"1_a.up.sql","text":"select 1;"},{"name":"2_b.up.sql","text":"select 2;"}]}`

// migrationFakes are what the activities of Migrate return.
type migrationFakes struct {
	planned  contract.PlanMigrationResult
	trial    contract.MigrationTrial
	point    contract.RestorePoint
	applied  contract.ApplyMigrationResult
	checked  contract.CheckMigratedResult
	reverted contract.ApplyMigrationResult
}

func newMigrationFakes() migrationFakes {
	pass := []contract.CheckResult{{ID: "version", Verdict: contract.Pass, Expected: "version 2", Observed: "version 2"}}
	return migrationFakes{
		planned: contract.PlanMigrationResult{
			Plan: contract.MigrationPlan{
				Hash: "0123456789abcdef", From: -1, To: 2, Unsafe: []string{}, Warnings: []string{}, Destroys: []string{},
				Files: []contract.MigrationPlanned{
					{Version: 1, Name: "1_a.up.sql", Checksum: "c1", Transactional: true, Statements: 1, Reversible: true},
					{Version: 2, Name: "2_b.up.sql", Checksum: "c2", Transactional: true, Statements: 1},
				},
			},
			Checks: []contract.CheckResult{{ID: "server", Verdict: contract.Pass, Expected: "a primary", Observed: "a primary"}},
			Before: contract.MigrationHealth{InvalidIndexes: []string{"old"}, ArchiverFailures: 3},
		},
		trial: contract.MigrationTrial{
			BackupID: "20261123T074500Z-full", Reversed: true, Seconds: 1.5,
			Files: []contract.RehearsedFile{{Version: 1, Name: "1_a.up.sql", Seconds: 1.5, Locks: []string{"AccessExclusiveLock on t"}, Rewrites: []string{"t"}}},
		},
		point: contract.RestorePoint{Name: "migrate-0123456789ab", LSN: "0/5000060"},
		applied: contract.ApplyMigrationResult{
			State: contract.MigrationState{Version: 2, Applied: []int64{1, 2}, Pending: []int64{}},
			Files: []contract.AppliedMigration{{Version: 1, Name: "1_a.up.sql"}, {Version: 2, Name: "2_b.up.sql"}},
		},
		checked:  contract.CheckMigratedResult{Checks: pass},
		reverted: contract.ApplyMigrationResult{State: contract.MigrationState{Version: -1, Applied: []int64{}, Pending: []int64{1, 2}}, Files: []contract.AppliedMigration{}},
	}
}

// fails lets the second file fail.
func (f *migrationFakes) fails() {
	f.applied.Failure = "2_b.up.sql: statement 1: division by zero"
	f.applied.State = contract.MigrationState{Version: 1, Applied: []int64{1}, Pending: []int64{2}}
}

func (f *migrationFakes) register(all *fakes, r activityRegistry) {
	fake(all, r, contract.PlanMigrationActivity, func(contract.MigrateInput) contract.PlanMigrationResult { return f.planned })
	fake(all, r, contract.RehearseMigrationActivity, func(contract.RehearseMigrationInput) contract.MigrationTrial { return f.trial })
	fake(all, r, contract.MarkRestorePointActivity, func(contract.MarkRestorePointInput) contract.RestorePoint { return f.point })
	fake(all, r, contract.ApplyMigrationActivity, func(contract.ApplyMigrationInput) contract.ApplyMigrationResult { return f.applied })
	fake(all, r, contract.CheckMigratedActivity, func(contract.CheckMigratedInput) contract.CheckMigratedResult { return f.checked })
	fake(all, r, contract.RevertMigrationActivity, func(contract.RevertMigrationInput) contract.ApplyMigrationResult { return f.reverted })
}

func wantOutcome(outcome string) func(*testing.T, *fakes, client.WorkflowRun) {
	return func(t *testing.T, _ *fakes, run client.WorkflowRun) {
		t.Helper()
		var r contract.MigrateResult
		if err := run.Get(t.Context(), &r); err != nil || r.Outcome != outcome {
			t.Errorf("outcome is %q, want %q (%v)", r.Outcome, outcome, err)
		}
	}
}

// sound makes the verification of the backup before a migration pass.
func (f *fakes) sound() {
	f.verified.Verdict = contract.Pass
	f.verified.Backups[0].Verdict, f.verified.Backups[0].Findings = contract.Pass, nil
}

// All steps run in order, each where it must, and the result has what each found.
func TestMigrate(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.sound()
	r.execute(contract.MigrateWorkflow, migrateInput)
	got := resultOf[contract.MigrateResult](r)
	m := r.fakes.migration
	if got.Outcome != contract.MigrationApplied || got.Verdict != contract.Pass || got.WorkflowID != "run-1" || got.Database != "shop" ||
		got.BackupID != r.fakes.backup.BackupID || *got.RestorePoint != m.point || !reflect.DeepEqual(*got.Rehearsal, m.trial) ||
		!reflect.DeepEqual(got.Files, m.applied.Files) || len(got.Checks) != 2 {
		t.Errorf("result is %+v", got)
	}
	checkList(t, "activities", r.fakes.where(), "PlanMigration lifeboat", "PrepareDrill lifeboat", "PlanRestore lifeboat@db1",
		"LayFiles lifeboat@db1", "RehearseMigration lifeboat@db1", "CleanUpDrill lifeboat@db1", "PlanBackup lifeboat", "TakeBackup lifeboat",
		"VerifyBackups lifeboat", "MarkRestorePoint lifeboat", "ApplyMigration lifeboat", "CheckMigrated lifeboat")
	rehearsed := inputOf[contract.RehearseMigrationInput](t, r.fakes, contract.RehearseMigrationActivity)
	applied := inputOf[contract.ApplyMigrationInput](t, r.fakes, contract.ApplyMigrationActivity)
	if rehearsed.PlanHash != m.planned.Plan.Hash || !reflect.DeepEqual(applied.Plan, m.planned.Plan) || len(applied.Files) != 2 || applied.Database != "shop" {
		t.Errorf("rehearsed %+v, applied %+v", rehearsed, applied)
	}
	checked := inputOf[contract.CheckMigratedInput](t, r.fakes, contract.CheckMigratedActivity)
	if checked.Version != 2 || !reflect.DeepEqual(checked.Before, m.planned.Before) {
		t.Errorf("the gate was given %+v", checked)
	}
	_, details := r.shown()
	for _, text := range []string{"### Migrate of orders", "database shop", "✅ rehearse", "1 rewrites", "✅ apply", "➖ go down", "**Verdict: PASS**", "at version 2"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

// A failure is a result: the way down is taken, and shown.
func TestMigrateGoesDown(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.sound()
	r.fakes.migration.fails()
	r.execute(contract.MigrateWorkflow, migrateInput)
	got := resultOf[contract.MigrateResult](r)
	if got.Outcome != contract.MigrationReverted || got.Verdict != contract.Fail || got.State.Version != -1 {
		t.Errorf("result is %+v", got)
	}
	_, details := r.shown()
	for _, text := range []string{"division by zero", "✅ go down", "➖ health gate", "**Verdict: FAIL**"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

// Whatever ends a rehearsal, the clone is removed, and the database is not touched.
func TestMigrateRemovesTheClone(t *testing.T) {
	for name, before := range map[string]func(r *run) func(context.Context) error{
		"failed":    func(*run) func(context.Context) error { return always(typed(contract.ErrorFailed, "no space")) },
		"cancelled": func(r *run) func(context.Context) error { return untilCancelled(r.CancelWorkflow) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t, Options{})
			r.fakes.before[contract.RehearseMigrationActivity] = before(r)
			r.execute(contract.MigrateWorkflow, migrateInput)
			if r.GetWorkflowError() == nil {
				t.Error("the run succeeded")
			}
			if r.fakes.attempts(contract.CleanUpDrillActivity) != 1 || r.fakes.attempts(contract.ApplyMigrationActivity) != 0 {
				t.Errorf("activities %v", r.fakes.where())
			}
		})
	}
}

// A server that is gone while the plan is applied leaves a state that nobody knows, which is said; cancelling it is a cancelled run.
func TestMigrateUnknown(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.sound()
	r.fakes.before[contract.ApplyMigrationActivity] = always(errors.New("connection refused"))
	r.execute(contract.MigrateWorkflow, migrateInput)
	got := resultOf[contract.MigrateResult](r)
	if got.Outcome != contract.MigrationUnknown || got.Verdict != contract.CouldNotVerify || !strings.Contains(strings.Join(got.Next, " "), "--to-name "+r.fakes.migration.point.Name) ||
		!strings.Contains(got.Explanation, "connection refused") {
		t.Errorf("result is %+v", got)
	}
	r = newRun(t, Options{})
	r.fakes.sound()
	r.fakes.before[contract.ApplyMigrationActivity] = untilCancelled(r.CancelWorkflow)
	r.execute(contract.MigrateWorkflow, migrateInput)
	r.cancelled()
	if _, details := r.shown(); !strings.Contains(details, "migrate status") {
		t.Errorf("details do not say how to find out:\n%s", details)
	}
}

func TestMigrateInput(t *testing.T) {
	big := `{"cluster":"orders","files":[{"name":"1_a.up.sql","text":"` + strings.Repeat("x", contract.MaxMigrationBytes) + `"}]}`
	for input, text := range map[string]string{
		`{"cluster":"orders"}`: `field "files" is required`,
		`{"cluster":"orders","files":[{"name":"1_a.up.sql","text":"alter role app password 'x'"}]}`:                        "password",
		`{"cluster":"orders","files":[{"name":"1_a.up.sql","sql":""}]}`:                                                    `unknown field "sql"`,
		`{"cluster":"orders","rehearseOnly":true,"skipRehearsal":true,"files":[{"name":"1_a.up.sql","text":"select 1;"}]}`: "contradict",
		big: "--local",
	} {
		r := newRun(t, Options{})
		r.execute(contract.MigrateWorkflow, input)
		r.failure(contract.ErrorInvalidInput, text)
		if calls := r.fakes.where(); len(calls) != 0 {
			t.Errorf("activities ran: %v", calls)
		}
	}
}
