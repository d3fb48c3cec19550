package contract

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// stage is what the steps of one migration find; the zero value finds nothing wrong.
type stage struct {
	in       MigrateInput
	plan     PlanMigrationResult
	trial    MigrationTrial
	backup   Verdict
	apply    ApplyMigrationResult
	applyErr error
	gate     []CheckResult
	gateErr  error
	revert   ApplyMigrationResult
	revErr   error
	fails    string // the step that cannot be done at all

	called []string
}

var errStep = errors.New("no way")

func (s *stage) step(name string) error {
	s.called = append(s.called, name)
	if s.fails == name {
		return errStep
	}
	return nil
}

func (s *stage) run() (MigrateResult, error) {
	return RunMigration(s.in, MigrationSteps{
		Plan:     func() (PlanMigrationResult, error) { return s.plan, s.step("plan") },
		Rehearse: func(MigrationPlan) (MigrationTrial, error) { return s.trial, s.step("rehearse") },
		Backup: func() (VerifiedBackup, error) {
			return VerifiedBackup{BackupID: "b1", Verdict: s.backup}, s.step("backup")
		},
		Mark: func(string) (RestorePoint, error) { return RestorePoint{Name: "p1", LSN: "0/1"}, s.step("mark") },
		Apply: func(MigrationPlan) (ApplyMigrationResult, error) {
			return s.apply, errors.Join(s.step("apply"), s.applyErr)
		},
		Check: func(MigrationHealth, int64) (CheckMigratedResult, error) {
			return CheckMigratedResult{s.gate}, errors.Join(s.step("check"), s.gateErr)
		},
		Revert: func(MigrationPlan) (ApplyMigrationResult, error) {
			return s.revert, errors.Join(s.step("revert"), s.revErr)
		},
	})
}

// newStage is a plan of two files, of which the way down was rehearsed.
func newStage() *stage {
	return &stage{
		in: MigrateInput{MigrationSource: MigrationSource{Cluster: "orders", Database: "shop"}},
		plan: PlanMigrationResult{Plan: MigrationPlan{Hash: "h", From: 3, To: 5, Files: []MigrationPlanned{
			{Version: 4, Reversible: true}, {Version: 5},
		}}},
		trial: MigrationTrial{Reversed: true}, backup: Pass,
		apply:  ApplyMigrationResult{State: MigrationState{Version: 5, Applied: []int64{4, 5}}},
		gate:   []CheckResult{{ID: "version", Verdict: Pass}},
		revert: ApplyMigrationResult{State: MigrationState{Version: 3, Pending: []int64{4, 5}}},
	}
}

// halved fails at the second file.
func (s *stage) halved() {
	s.apply = ApplyMigrationResult{Failure: "division by zero", State: MigrationState{Version: 4, Applied: []int64{4}, Pending: []int64{5}}}
}

const restoreLine = "lifeboat restore orders --to-name p1 --target-dir DIR"

// Each row is one way in which a migration can go: its outcome, what is told and offered, and the steps that were taken.
func TestRunMigration(t *testing.T) {
	prepared := "plan rehearse backup mark "
	for name, c := range map[string]struct {
		set     func(*stage)
		outcome string
		verdict Verdict
		steps   string
		says    []string
		next    []string // parts of lines, in order
		hides   string   // what no line may offer
	}{
		"applied": {func(*stage) {}, MigrationApplied, Pass, prepared + "apply check", []string{"version 5"}, nil, ""},
		"nothing": {func(s *stage) { s.plan.Plan.Files = nil }, MigrationNothing, Pass, "plan", []string{"version 3"}, nil, ""},
		"lint": {
			func(s *stage) { s.plan.Plan.Unsafe = []string{"error x"} }, MigrationRefused, Fail, "plan", []string{"not changed", "error x"}, []string{"mend"}, "restore",
		},
		"lint allowed": {
			func(s *stage) { s.plan.Plan.Unsafe, s.in.AllowUnsafe = []string{"error x"}, true }, MigrationApplied, Pass, prepared + "apply check", nil, nil, "",
		},
		"check": {
			func(s *stage) { s.plan.Checks = []CheckResult{{ID: "lock", Verdict: Fail, Observed: "held"}} }, MigrationRefused, Fail, "plan", []string{"lock: held"}, nil, "restore",
		},
		"check that could not be made": {
			func(s *stage) { s.plan.Checks = []CheckResult{{ID: "drift", Verdict: Skipped}} }, MigrationApplied, Pass, prepared + "apply check", nil, nil, "",
		},
		"rehearsal": {
			func(s *stage) { s.trial.Failure = "no such table" }, MigrationRefused, Fail, "plan rehearse", []string{"not changed", "no such table"}, nil, "restore",
		},
		"rehearsal only": {
			func(s *stage) { s.in.RehearseOnly = true }, MigrationRehearsed, Pass, "plan rehearse", []string{"not changed"}, []string{"migrate apply orders --source DIR --database shop --plan-hash h"}, "",
		},
		"backup that is not sound": {
			func(s *stage) { s.backup = Partial }, MigrationRefused, Fail, "plan rehearse backup", []string{"not changed", "b1", "PARTIAL"}, []string{"lifeboat verify orders b1"}, "",
		},
		"without rehearsal and backup": {
			func(s *stage) { s.in.SkipRehearsal, s.in.SkipBackup = true, true }, MigrationApplied, Pass, "plan apply check", nil, nil, "",
		},
		"first file failed": {
			func(s *stage) {
				s.apply = ApplyMigrationResult{Failure: "division by zero", State: MigrationState{Version: 3, Pending: []int64{4, 5}}}
			}, MigrationUnchanged, Fail, prepared + "apply", []string{"division by zero", "Nothing", "version 3"}, []string{"migrate apply"}, "down",
		},
		"second file failed, down": {
			(*stage).halved, MigrationReverted, Fail, prepared + "apply revert", []string{"division by zero", "back to version 3"}, []string{"migrate apply"}, "restore",
		},
		"second file failed, down not rehearsed": {
			func(s *stage) { s.halved(); s.trial.Reversed = false }, MigrationPartial, Fail, prepared + "apply",
			[]string{"division by zero", "version 4", "1 of 2", "not rehearsed"},
			[]string{"migrate apply", "migrate down orders --source DIR --database shop --to 3", restoreLine},
			"",
		},
		"second file failed, no rehearsal, no backup": {
			func(s *stage) { s.halved(); s.in.SkipRehearsal, s.in.SkipBackup = true, true }, MigrationPartial, Fail, "plan apply",
			[]string{"version 4"},
			[]string{"migrate apply", "migrate down"},
			"restore",
		},
		"second file failed, and so did going down": {
			func(s *stage) {
				s.halved()
				s.revert = ApplyMigrationResult{Failure: "destroys data", State: MigrationState{Version: 4, Applied: []int64{4}, Pending: []int64{5}}}
			}, MigrationPartial, Fail, prepared + "apply revert", []string{"going down failed: destroys data"}, []string{"migrate apply", "migrate down", restoreLine}, "",
		},
		"going down ended without an answer": {
			func(s *stage) { s.halved(); s.revErr = errStep }, MigrationPartial, Fail, prepared + "apply revert", []string{"without an answer: no way"}, []string{"migrate apply", restoreLine}, "",
		},
		"stopped within a file": {
			func(s *stage) {
				s.apply = ApplyMigrationResult{Failure: "duplicate key", State: MigrationState{
					Version: 4, Applied: []int64{4}, Pending: []int64{5}, HalfWay: "version 5: 1 of 2 statements are done", Next: "mend the cause and apply again",
				}}
			}, MigrationPartial, Fail, prepared + "apply", []string{"1 of 2 statements"}, []string{"mend the cause", "migrate apply", restoreLine}, "migrate down",
		},
		"no way down": {
			func(s *stage) {
				s.trial.Reversed = false
				s.gate = []CheckResult{{ID: "invalid indexes", Verdict: Fail, Observed: "new: i"}}
			}, MigrationUnhealthy, Fail, prepared + "apply check", []string{"invalid indexes: new: i", "2 of 2"}, []string{restoreLine}, "migrate down",
		},
		"gate, down": {
			func(s *stage) { s.gate = []CheckResult{{ID: "archiver", Verdict: Fail, Observed: "2 new failures"}} },
			MigrationReverted, Fail, prepared + "apply check revert",
			[]string{"archiver: 2 new failures", "back to version 3"},
			nil, "restore",
		},
		"gate without an answer": {
			func(s *stage) { s.gateErr = errStep }, MigrationUnhealthy, CouldNotVerify, prepared + "apply check", []string{"no way"}, []string{"migrate status", restoreLine}, "",
		},
		"apply without an answer": {
			func(s *stage) { s.applyErr = errStep }, MigrationUnknown, CouldNotVerify, prepared + "apply", []string{"no way"}, []string{"migrate status", restoreLine}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage()
			c.set(s)
			r, err := s.run()
			if err != nil || r.Outcome != c.outcome || r.Verdict != c.verdict {
				t.Fatalf("%q, %s, %v; want %q, %s", r.Outcome, r.Verdict, err, c.outcome, c.verdict)
			}
			if got := strings.Join(s.called, " "); got != c.steps {
				t.Errorf("steps are %q, want %q", got, c.steps)
			}
			for _, part := range c.says {
				if !strings.Contains(r.Explanation, part) {
					t.Errorf("explanation lacks %q: %s", part, r.Explanation)
				}
			}
			rest := r.Next
			for _, part := range c.next {
				i := slices.IndexFunc(rest, func(line string) bool { return strings.Contains(line, part) })
				if i < 0 {
					t.Fatalf("next lacks %q: %q", part, r.Next)
				}
				rest = rest[i+1:]
			}
			if c.hides != "" && strings.Contains(strings.Join(r.Next, "\n"), c.hides) {
				t.Errorf("next offers %q: %q", c.hides, r.Next)
			}
		})
	}
}

// Before the database is changed, a step that cannot be done ends the run with its error, and nothing is applied.
func TestRunMigration_EndsBefore(t *testing.T) {
	for _, step := range []string{"plan", "rehearse", "backup", "mark"} {
		s := newStage()
		s.fails = step
		if _, err := s.run(); !errors.Is(err, errStep) || slices.Contains(s.called, "apply") {
			t.Errorf("%s: %v, steps %v", step, err, s.called)
		}
	}
}

func TestMigrateInput_CheckPayload(t *testing.T) {
	for text, refused := range map[string]bool{
		"select 1;":                                                              false,
		"alter table users add password text;":                                   false,
		"comment on column users.password is 'hash';":                            false,
		"create role app login password 'x';":                                    true,
		"alter role app PASSWORD E'x';":                                          true,
		"create subscription s connection 'host=a password=b' publication p;":    true,
		"create user mapping for app server s options (user 'a', password 'b');": true,
		strings.Repeat("x", MaxMigrationBytes/2):                                 false,
		strings.Repeat("x", MaxMigrationBytes):                                   true,
		strings.Repeat("\n", MaxMigrationBytes/2+1):                              true, // two bytes each in JSON
	} {
		in := MigrateInput{MigrationSource: MigrationSource{Files: []MigrationFile{{Name: "1_a.up.sql", Text: text}}}}
		err := in.CheckPayload()
		if (err != nil) != refused {
			t.Errorf("%.40q: %v", text, err)
		}
		if err != nil && !strings.Contains(err.Error(), "--local") {
			t.Errorf("no remedy: %v", err)
		}
	}
}

func TestVerifiedOf(t *testing.T) {
	r := VerifyResult{Backups: []VerifiedBackup{{BackupID: "a", Verdict: Pass}}}
	if got := VerifiedOf(r, "a"); !reflect.DeepEqual(got, r.Backups[0]) {
		t.Errorf("of a: %+v", got)
	}
	if got := VerifiedOf(r, "b"); got.Verdict != CouldNotVerify {
		t.Errorf("of a backup that was not looked at: %+v", got)
	}
}
