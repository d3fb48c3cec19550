package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/drill"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// canaryPatience is how long the WAL of canary rows may take to reach the repository.
const canaryPatience = time.Minute

// PrepareDrill decides where a drill runs: here. Without a target it writes canary rows and aims between them.
func (r *Runner) PrepareDrill(ctx context.Context, in contract.PrepareDrillInput, run Run) (contract.PrepareDrillResult, error) {
	var none contract.PrepareDrillResult
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	dir := filepath.Join(r.set.WorkDir, drillPrefix+in.DrillID)
	if err := r.drillPlace(dir, in.DrillID); err != nil {
		return none, err
	}
	if err := os.MkdirAll(r.set.WorkDir, 0o755); err != nil {
		return none, fmt.Errorf("prepare the work directory: %w", err)
	}
	if run.RunID != "" {
		if err := writeClaim(dir, run); err != nil {
			return none, err
		}
	}
	out := contract.PrepareDrillResult{
		Host: r.set.Host, Queue: contract.HostQueue(r.set.TaskQueue, r.set.Host),
		TargetDir: dir, Target: in.Target, StartedAt: time.Now().UTC(),
	}
	switch in.Target.Kind {
	case "":
		rp, err := c.OpenRepository(ctx, false)
		if err != nil {
			return none, err
		}
		run.Progress(contract.Progress{Phase: "canary", Waiting: "the WAL of the canary rows in the repository"})
		canary, err := drill.WriteCanary(ctx, c.Server, rp, in.Cluster, in.DrillID, canaryPatience)
		if err != nil {
			return none, err
		}
		out.Canary = canary.ID
		out.Target = contract.Target{Kind: "time", Value: canary.Target.UTC().Format(time.RFC3339Nano)}
	case "time":
		at, err := contract.ParseTime(in.Target.Value, time.Now())
		if err != nil {
			return none, &InputError{err}
		}
		out.Target.Value = at.Format(time.RFC3339Nano)
	}
	return out, nil
}

const drillPrefix = "drill-"

// drillPlace refuses any place but a drill's own, directly in the work directory: what is done there ends servers and
// removes files.
func (r *Runner) drillPlace(dir, drillID string) error {
	if !filepath.IsAbs(r.set.WorkDir) {
		return &ConfigurationError{fmt.Sprintf("the work directory of this worker on host %s is %q: give an absolute path", r.set.Host, r.set.WorkDir)}
	}
	if name := drillPrefix + drillID; drillID == "" || filepath.Base(name) != name || filepath.Clean(dir) != filepath.Join(r.set.WorkDir, name) {
		return &recovery.RefusedError{Reason: fmt.Sprintf("%s is not the directory of drill %q in %s", dir, drillID, r.set.WorkDir)}
	}
	return nil
}

// ProveRecovery starts a server on laid files, replays, asserts, checks, and stops it.
func (r *Runner) ProveRecovery(ctx context.Context, in contract.ProveRecoveryInput, run Run) (contract.ProveRecoveryResult, error) {
	var none contract.ProveRecoveryResult
	p, err := decodePlan(in.Plan)
	if err != nil {
		return none, err
	}
	if err := r.drillPlace(p.TargetDir, in.DrillID); err != nil {
		return none, err
	}
	c, err := r.cluster(p.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if err != nil {
		return none, err
	}
	m, err := rp.Manifest(ctx, p.Cluster, p.BackupID)
	if err != nil {
		return none, err
	}
	var checks []verify.Check
	for _, k := range append(slices.Clone(c.Checks), in.Checks...) {
		checks = append(checks, verify.Check{Name: k.Name, SQL: k.SQL, Expect: k.Expect})
	}
	proof, err := drill.Prove(ctx, drill.ProveOptions{
		Plan: p, Manifest: m, CanaryID: in.Canary, Checks: checks,
		Database: c.Server.DBName, BinDirs: r.set.BinDirs, Owner: r.set.Owner, Logger: r.set.Logger, Progress: restoreProgress(run),
	})
	if err != nil {
		return none, err
	}
	return proofResult(p, proof), nil
}

func proofResult(p *recovery.Plan, proof *drill.Proof) contract.ProveRecoveryResult {
	out := contract.ProveRecoveryResult{
		Checks: []contract.CheckResult{},
		Spans:  contract.Spans{Replay: proof.Replay.Seconds(), Start: proof.Ready.Seconds(), Check: proof.Check.Seconds()},
	}
	if proof.Reached != nil {
		at := reached(p, *proof.Reached)
		out.Reached = &at
	}
	slices.SortStableFunc(proof.Checks, func(a, b verify.Finding) int { return a.Level - b.Level })
	for _, f := range proof.Checks {
		out.Checks = append(out.Checks, contract.CheckResult{
			ID: f.ID, Level: f.Level, Verdict: verdict(f.Outcome),
			Expected: f.Expected, Observed: f.Observed, Seconds: f.Took.Seconds(),
		})
	}
	return out
}

func verdict(o verify.Outcome) contract.Verdict {
	switch o {
	case verify.Passed:
		return contract.Pass
	case verify.Failed:
		return contract.Fail
	case verify.Skipped:
		return contract.Skipped
	}
	return contract.CouldNotVerify
}

// CleanUpDrill removes a drill's server and files, whoever left them. What is gone already is no error.
func (r *Runner) CleanUpDrill(ctx context.Context, in contract.CleanUpDrillInput, _ Run) (contract.CleanUpDrillResult, error) {
	var none contract.CleanUpDrillResult
	if err := r.drillPlace(in.TargetDir, in.DrillID); err != nil {
		return none, err
	}
	_, err := os.Lstat(in.TargetDir)
	there := err == nil
	// Also where the directory is gone already: a server may go on without it for a moment.
	err = pginstance.Destroy(ctx, in.TargetDir, pginstance.Guard{WorkRoot: r.set.WorkDir, Marker: recovery.MarkerFile})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return none, err
	}
	return contract.CleanUpDrillResult{Removed: there}, dropClaim(filepath.Clean(in.TargetDir))
}

// PublishReport completes a report by the objectives, stores it, and records the proof of the backup. It may be repeated.
func (r *Runner) PublishReport(ctx context.Context, in contract.PublishReportInput, _ Run) (contract.PublishReportResult, error) {
	var none contract.PublishReportResult
	rep := in.Report
	c, err := r.cluster(rep.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if err != nil {
		return none, err
	}
	// The proof is of the backup, which objectives say nothing about: a slow restore is a restore. A drill that ended
	// without checks proves nothing, unless it proved that the backup cannot be restored.
	if proved := len(rep.Checks) > 0 || rep.Verdict == contract.Fail; rep.BackupID != "" && proved {
		proof := contract.Verified{Level: rep.Level, Verdict: rep.Verdict, At: rep.FinishedAt}
		if err := rp.PutDocument(ctx, rep.Cluster, verificationName(rep.BackupID, rep.DrillID), proof); err != nil {
			return none, err
		}
	}
	rep.RTO.Target, rep.RPO.Target = c.RTO.Seconds(), c.RPO.Seconds()
	rep.Checks = slices.Clone(rep.Checks)
	for _, check := range contract.ObjectiveChecks(&rep) {
		rep.Checks = append(rep.Checks, check)
		switch {
		case check.Verdict == contract.Fail:
			rep.Verdict = contract.Fail
		case check.Verdict != contract.Pass && rep.Verdict == contract.Pass:
			rep.Verdict = contract.Partial
		}
	}
	name := "reports/" + rep.DrillID
	rep.Report = "clusters/" + rep.Cluster + "/" + name
	if err := rp.PutDocument(ctx, rep.Cluster, name, rep); err != nil {
		return none, err
	}
	return contract.PublishReportResult{Report: rep}, nil
}

func verificationName(backupID, proofID string) string {
	return "verifications/" + backupID + "/" + proofID
}

// ListVerified gives the newest verification of each backup that has one. A damaged one counts as what it is, one that
// nobody can read: what was proved before must not stand in for it.
func ListVerified(ctx context.Context, r *repo.Repository, cluster string) (map[string]contract.Verified, error) {
	names, err := r.ListDocuments(ctx, cluster, "verifications/")
	if err != nil {
		return nil, err
	}
	out := map[string]contract.Verified{}
	for _, name := range names {
		parts := strings.Split(name, "/")
		if len(parts) != 3 {
			continue
		}
		var v contract.Verified
		err := r.GetDocument(ctx, cluster, name, &v)
		switch {
		case repo.IsDamage(err):
			v = contract.Verified{Verdict: contract.CouldNotVerify, At: timeOf(parts[2])}
		case errors.Is(err, repo.ErrNotFound):
			continue // removed meanwhile
		case err != nil:
			return nil, err
		}
		if old, ok := out[parts[1]]; !ok || v.At.After(old.At) {
			out[parts[1]] = v
		}
	}
	return out, nil
}

// timeOf is the time that the name of a verification or drill begins with; zero if it does not.
func timeOf(id string) time.Time {
	const layout = "20060102T150405Z"
	at, _ := time.Parse(layout, id[:min(len(id), len(layout))])
	return at
}
