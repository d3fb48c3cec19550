package activities

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/recovery"
)

// PlanMigration says what a migration would do, and whether anything speaks against it. It changes nothing.
func (r *Runner) PlanMigration(ctx context.Context, in contract.MigrateInput, run Run) (contract.PlanMigrationResult, error) {
	none := contract.PlanMigrationResult{Checks: []contract.CheckResult{}}
	if err := in.Validate(); err != nil {
		return none, &InputError{err}
	}
	tell, silence := tellMigration(ctx, run)
	defer silence()
	m, err := r.Migrator(in.MigrationSource, tell)
	if err != nil {
		return none, err
	}
	plan, err := m.Plan(ctx, migrate.PlanOptions{To: in.To})
	if err != nil {
		return none, err
	}
	if in.PlanHash != "" && in.PlanHash != plan.Hash {
		return none, fmt.Errorf("%w: expected %.12s, now it is %.12s", migrate.ErrPlanChanged, in.PlanHash, plan.Hash)
	}
	report, err := m.Check(ctx, migrate.CheckOptions{PlanOptions: migrate.PlanOptions{To: in.To}, AllowUnsafe: true})
	if err != nil {
		return none, err
	}
	health, err := m.Health(ctx)
	if err != nil {
		return none, err
	}
	status, err := m.Status(ctx)
	if err != nil {
		return none, err
	}
	return contract.PlanMigrationResult{
		Plan: planOf(plan, status), Checks: checksBefore(report, health, status),
		Before: contract.MigrationHealth{InvalidIndexes: health.InvalidIndexes, ArchiverFailures: health.ArchiverFailures},
	}, nil
}

// checksBefore are what must be right before anything is begun. Lint is not among them: its findings are the plan's. The
// queries of others, which may hold data, are left out: what is told here gets into Temporal's history.
func checksBefore(report *migrate.CheckReport, h *migrate.Health, s *migrate.Status) []contract.CheckResult {
	list := []contract.CheckResult{}
	for _, item := range report.Items {
		c := contract.CheckResult{ID: item.Name, Verdict: contract.Verdict(item.Verdict), Observed: item.Detail}
		switch {
		case item.Name == "lint":
			continue
		case item.Verdict == migrate.Pass:
			c.Expected = item.Detail
		case item.Name == "lock" && len(s.Running) > 0:
			c.Observed = "another migrator is at work: " + blockerText(s.Running[0])
		case item.Name == "blockers":
			c.Observed = "old transactions hold locks on the plan's tables; `lifeboat migrate check` names them"
		}
		if c.Verdict == contract.Fail && item.Remedy != "" && item.Remedy != "see each" {
			c.Expected = item.Remedy
		}
		list = append(list, c)
	}
	return append(list, migrationCheck("archiver", !h.ArchiverFailing, "the last attempt succeeded",
		"the last attempt at archiving failed: a restore point would be out of reach"))
}

func migrationCheck(id string, ok bool, expected, problem string) contract.CheckResult {
	c := contract.CheckResult{ID: id, Verdict: contract.Pass, Expected: expected, Observed: expected}
	if !ok {
		c.Verdict, c.Observed = contract.Fail, problem
	}
	return c
}

// planOf shortens a plan for results.
func planOf(p *migrate.Plan, s *migrate.Status) contract.MigrationPlan {
	out := contract.MigrationPlan{
		Hash: p.Hash, From: p.From, To: p.To,
		Files: []contract.MigrationPlanned{}, Unsafe: []string{}, Warnings: []string{}, Destroys: []string{},
	}
	reversible := map[int64]bool{}
	for _, m := range s.Migrations {
		reversible[m.Version] = m.Reversible
	}
	for _, f := range p.Files {
		out.Files = append(out.Files, contract.MigrationPlanned{
			Version: f.Version, Name: f.Name, Checksum: f.Checksum, Transactional: f.Transactional,
			Statements: len(f.Statements), Reversible: reversible[f.Version],
		})
		out.Destroys = append(out.Destroys, f.Destroys...)
		for _, x := range f.Findings {
			list := &out.Warnings
			if x.Severity == migrate.SeverityError {
				list = &out.Unsafe
			}
			if len(*list) < contract.MaxMigrationFindings {
				*list = append(*list, x.String())
			}
		}
	}
	return out
}

// restorePointPatience is how long the WAL of a restore point may take to reach the repository.
const restorePointPatience = 5 * time.Minute

// MarkRestorePoint names a place in the WAL, and waits until the repository has it. Each attempt names one of its own:
// recovery to a name that is there twice would end at the first.
func (r *Runner) MarkRestorePoint(ctx context.Context, in contract.MarkRestorePointInput, run Run) (contract.RestorePoint, error) {
	var point contract.RestorePoint
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return point, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if err != nil {
		return point, err
	}
	conn, err := dbcore.Connect(ctx, c.Server)
	if err != nil {
		return point, fmt.Errorf("name a restore point: %w", err)
	}
	defer conn.Close()
	var random [3]byte
	_, _ = rand.Read(random[:])
	point.Name = fmt.Sprintf("migrate-%.12s-%s-%s", in.PlanHash, time.Now().UTC().Format("20060102T150405Z"), hex.EncodeToString(random[:]))
	if point.LSN, err = dbcore.One[string](ctx, conn, "select pg_create_restore_point($1)::text", point.Name); err != nil {
		return point, fmt.Errorf("name a restore point: %w (`lifeboat check --print-grants` prints what a superuser has to run)", err)
	}
	end, err := dbcore.One[string](ctx, conn, "select pg_switch_wal()::text")
	if err != nil {
		return point, fmt.Errorf("switch WAL after a restore point: %w (`lifeboat check --print-grants` prints what a superuser has to run)", err)
	}
	lsn, err := pg.ParseLSN(end)
	if err != nil {
		return point, err
	}
	run.Progress(contract.Progress{Phase: "restore point", Waiting: "the WAL of restore point " + point.Name + " in the repository"})
	return point, recovery.WaitArchived(ctx, rp, in.Cluster, lsn, restorePointPatience)
}

// ApplyMigration applies what is left of a plan. An attempt that was killed is gone on with: what it finished stays
// finished, and of a statement that nobody knows the end of, the catalogs are asked. What fails for good is told in the
// result, with what the database then says of itself.
func (r *Runner) ApplyMigration(ctx context.Context, in contract.ApplyMigrationInput, run Run) (contract.ApplyMigrationResult, error) {
	out := contract.ApplyMigrationResult{Files: []contract.AppliedMigration{}}
	tell, silence := tellMigration(ctx, run)
	defer silence()
	m, err := r.Migrator(in.MigrationSource, tell)
	if err != nil {
		return out, err
	}
	hash, err := remaining(ctx, m, in)
	if err == nil && hash != "" {
		var res *migrate.Result
		res, err = m.Apply(ctx, migrate.ApplyOptions{To: in.To, PlanHash: hash, AllowUnsafe: in.AllowUnsafe})
		out.Files = appliedFiles(res)
	}
	if errors.Is(err, migrate.ErrLocked) {
		// It may be the server's end of a killed attempt, which still finishes a statement: its outcome is worth the wait.
		return out, fmt.Errorf("wait for another migrator: %s", failureText(err))
	}
	if err != nil && ErrorType(err) == "" {
		return out, err // another attempt finds out, and goes on
	}
	if err != nil {
		out.Failure = failureText(err)
	}
	out.State, err = stateOf(ctx, m, in.Plan)
	return out, err
}

// remaining finds out what is left of a plan, and gives the hash of that; "" if nothing is left. Anything but the rest of
// the plan is ErrPlanChanged.
func remaining(ctx context.Context, m *migrate.Migrator, in contract.ApplyMigrationInput) (string, error) {
	plan, err := m.Plan(ctx, migrate.PlanOptions{To: in.To})
	if errors.Is(err, migrate.ErrDirty) {
		// A killed attempt left a statement of which nobody knows the end. Under the lock the catalogs can tell.
		if err := settle(ctx, m); err != nil {
			return "", err
		}
		plan, err = m.Plan(ctx, migrate.PlanOptions{To: in.To})
	}
	if err != nil {
		return "", err
	}
	if plan.Hash == in.Plan.Hash {
		return plan.Hash, nil
	}
	status, err := m.Status(ctx)
	if err != nil {
		return "", err
	}
	if !restOf(in.Plan, plan, status) {
		return "", fmt.Errorf("%w since it was made: neither is the database at %s, nor is it on this plan's way",
			migrate.ErrPlanChanged, contract.VersionText(in.Plan.From))
	}
	if len(plan.Files) == 0 {
		return "", nil
	}
	return plan.Hash, nil
}

// restOf tells whether plan is what is left of whole: its last files, unchanged, while the others are applied as planned.
func restOf(whole contract.MigrationPlan, plan *migrate.Plan, s *migrate.Status) bool {
	done := len(whole.Files) - len(plan.Files)
	if done < 0 {
		return false
	}
	for i, f := range plan.Files {
		if w := whole.Files[done+i]; w.Version != f.Version || w.Checksum != f.Checksum {
			return false
		}
	}
	for _, f := range whole.Files[:done] {
		applied := slices.ContainsFunc(s.History, func(h migrate.HistoryLine) bool {
			return h.Version == f.Version && h.Direction == string(migrate.Up) && h.State == "done" && h.Checksum == f.Checksum
		})
		current := slices.ContainsFunc(s.Migrations, func(m migrate.MigrationStatus) bool { return m.Version == f.Version && m.State == "applied" })
		if !applied || !current {
			return false
		}
	}
	return true
}

// settle lets repair decide by the catalogs what became of a statement. What only a person can decide stays an error.
func settle(ctx context.Context, m *migrate.Migrator) error {
	report, err := m.Repair(ctx, migrate.RepairOptions{Execute: true})
	if err != nil {
		return err
	}
	for _, item := range report.Items {
		if item.NeedsDecision && !item.Executed && item.Kind != "other-index" {
			return fmt.Errorf("%w: %s: %s; %s", migrate.ErrDirty, item.File, item.Evidence, item.Proposal)
		}
	}
	return nil
}

func appliedFiles(res *migrate.Result) []contract.AppliedMigration {
	out := []contract.AppliedMigration{}
	if res == nil {
		return out
	}
	for _, f := range res.Done {
		a := contract.AppliedMigration{Version: f.Version, Name: f.Name, Seconds: f.Took.Seconds(), Attempts: f.Attempts}
		for _, b := range f.Blockers {
			a.Blockers = append(a.Blockers, blockerText(b))
		}
		out = append(out, a)
	}
	return out
}

// failureText says why a migration failed, without the queries of those who were in the way.
func failureText(err error) string {
	var blocked *migrate.BlockedError
	if !errors.As(err, &blocked) {
		return err.Error()
	}
	who := "nobody was caught holding it"
	if len(blocked.Blockers) > 0 {
		names := make([]string, len(blocked.Blockers))
		for i, b := range blocked.Blockers {
			names[i] = blockerText(b)
		}
		who = "in the way: " + strings.Join(names, "; ")
	}
	return fmt.Sprintf("%v in %d attempts, %s: %v", migrate.ErrLockTimeout, blocked.Attempts, who, blocked.Err)
}

// stateOf asks the database what of a plan is applied.
func stateOf(ctx context.Context, m *migrate.Migrator, plan contract.MigrationPlan) (contract.MigrationState, error) {
	out := contract.MigrationState{Applied: []int64{}, Pending: []int64{}}
	s, err := m.Status(ctx)
	if err != nil {
		return out, err
	}
	out.Version = s.Version
	for _, f := range plan.Files {
		i := slices.IndexFunc(s.Migrations, func(m migrate.MigrationStatus) bool { return m.Version == f.Version })
		if i >= 0 && s.Migrations[i].State == "applied" {
			out.Applied = append(out.Applied, f.Version)
		} else {
			out.Pending = append(out.Pending, f.Version)
		}
	}
	if s.Open != nil {
		out.HalfWay, out.Next = fmt.Sprintf("version %d: %s", s.Open.Version, s.Open.Text), s.Open.Next
	}
	return out, nil
}

// CheckMigrated is the gate after a migration: the server answers, the version is the planned one, no index became
// INVALID, and no WAL failed to be archived meanwhile.
func (r *Runner) CheckMigrated(ctx context.Context, in contract.CheckMigratedInput, run Run) (contract.CheckMigratedResult, error) {
	out := contract.CheckMigratedResult{Checks: []contract.CheckResult{}}
	tell, silence := tellMigration(ctx, run)
	defer silence()
	m, err := r.Migrator(in.MigrationSource, tell)
	if err != nil {
		return out, err
	}
	health, err := m.Health(ctx)
	if err != nil {
		return out, err
	}
	status, err := m.Status(ctx)
	if err != nil {
		return out, err
	}
	out.Checks = checksAfter(in, health, status)
	return out, nil
}

func checksAfter(in contract.CheckMigratedInput, h *migrate.Health, s *migrate.Status) []contract.CheckResult {
	var fresh []string
	for _, name := range h.InvalidIndexes {
		if !slices.Contains(in.Before.InvalidIndexes, name) {
			fresh = append(fresh, name)
		}
	}
	failures := h.ArchiverFailures - in.Before.ArchiverFailures
	return []contract.CheckResult{
		migrationCheck("answers", !h.InRecovery, "the server answers as a primary", "the server is a standby"),
		migrationCheck("version", s.Version == in.Version && !s.Dirty, "version "+contract.VersionText(in.Version), "version "+contract.VersionText(s.Version)),
		migrationCheck("invalid indexes", len(fresh) == 0, "none that is new", "new: "+strings.Join(fresh, ", ")),
		migrationCheck("archiver", !h.ArchiverFailing || failures <= 0, "no new failure", fmt.Sprintf("%d new failures, the last attempt among them", failures)),
	}
}

// RevertMigration goes down to where a plan began. It may be repeated.
func (r *Runner) RevertMigration(ctx context.Context, in contract.RevertMigrationInput, run Run) (contract.ApplyMigrationResult, error) {
	out := contract.ApplyMigrationResult{Files: []contract.AppliedMigration{}}
	tell, silence := tellMigration(ctx, run)
	defer silence()
	m, err := r.Migrator(in.MigrationSource, tell)
	if err != nil {
		return out, err
	}
	to := in.Plan.From
	status, err := m.Status(ctx)
	if err != nil {
		return out, err
	}
	if status.Version != to {
		var res *migrate.Result
		res, err = m.Down(ctx, migrate.ApplyOptions{To: &to, AllowDestructive: in.AllowDestructive})
		out.Files = appliedFiles(res)
	}
	if err != nil && ErrorType(err) == "" {
		return out, err
	}
	if err != nil {
		out.Failure = failureText(err)
	}
	out.State, err = stateOf(ctx, m, in.Plan)
	return out, err
}
