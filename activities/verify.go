package activities

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// maxFindings bounds a result, which Temporal limits to 2 MB: some 300 bytes each.
const maxFindings = 2000

// VerifyBackups climbs the ladder, and stores what it proved beside the backups. It may be repeated.
func (r *Runner) VerifyBackups(ctx context.Context, in contract.VerifyInput, run Run) (contract.VerifyResult, error) {
	none := contract.VerifyResult{Cluster: in.Cluster, WorkflowID: run.WorkflowID, Backups: []contract.VerifiedBackup{}}
	if err := errors.Join(in.Validate(), repo.CheckName(in.Cluster)); err != nil {
		return none, &InputError{err}
	}
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if repo.IsDamage(err) {
		return unopened(none, err), nil
	}
	if err != nil {
		return none, err
	}
	opts := verify.BackupOptions{
		Repo: rp, Cluster: in.Cluster, BackupID: in.Backup, Level: in.UpTo(), WorkDir: r.set.WorkDir, BinDirs: r.set.BinDirs, Owner: r.set.Owner,
		Seed: seed(run.WorkflowID), Logger: r.set.Logger,
		Progress: func(p verify.Progress) {
			run.Progress(contract.Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Waiting: p.Waiting})
		},
	}
	if opts.Level >= 4 {
		if opts.Fetch, err = r.fetchCommand(c); err != nil {
			return none, err
		}
	}
	reports, err := verifyReports(ctx, opts)
	if err != nil {
		return none, err
	}
	r.keepProof(ctx, rp, in.Cluster, reports)
	return verifyResult(none, reports), nil
}

// verifyReports verifies what was asked for by name.
func verifyReports(ctx context.Context, opts verify.BackupOptions) ([]verify.BackupReport, error) {
	if opts.BackupID == contract.VerifyAll {
		opts.BackupID = ""
		return verify.All(ctx, opts)
	}
	if opts.BackupID == "" || opts.BackupID == contract.VerifyLatest {
		ids, err := opts.Repo.BackupIDs(ctx, opts.Cluster)
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			return nil, &InputError{fmt.Errorf("%w: cluster %s has none in %s; take one with `lifeboat backup %s`",
				repo.ErrNoBackup, opts.Cluster, opts.Repo, opts.Cluster)}
		}
		opts.BackupID = ids[len(ids)-1]
	} else if err := repo.CheckBackupID(opts.BackupID); err != nil {
		return nil, &InputError{err}
	}
	report, err := verify.Backup(ctx, opts)
	if errors.Is(err, repo.ErrNoBackup) {
		err = &InputError{err}
	}
	return []verify.BackupReport{report}, err
}

// unopened is the result for a repository whose own header is damaged: nothing in it can be read.
func unopened(res contract.VerifyResult, err error) contract.VerifyResult {
	res.Verdict = contract.Fail
	res.Backups = append(res.Backups, contract.VerifiedBackup{
		Verdict:  contract.Fail,
		Findings: []contract.VerifyFinding{{Object: repo.HeaderKey, Problem: err.Error()}},
	})
	return res
}

// seed makes each run choose other commits, and all attempts of a run the same.
func seed(run string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(run))
	return h.Sum64()
}

// keepProof stores what was proved, as drills do. What is true of a backup stays true if that fails, as in a repository
// that may only be read: it is told in the log.
func (r *Runner) keepProof(ctx context.Context, rp *repo.Repository, cluster string, reports []verify.BackupReport) {
	var random [3]byte
	_, _ = rand.Read(random[:])
	now := time.Now().UTC()
	id := now.Format("20060102T150405Z") + "-verify-" + hex.EncodeToString(random[:])
	for i := range reports {
		rep := &reports[i]
		if repo.CheckBackupID(rep.BackupID) != nil {
			continue
		}
		proof := contract.Verified{Level: rep.Level(), Verdict: verdict(rep.Outcome()), At: now}
		if err := rp.PutDocument(ctx, cluster, verificationName(rep.BackupID, id), proof); err != nil {
			r.set.Logger.Warn("the verification could not be recorded in the repository", "cluster", cluster, "backup", rep.BackupID, "error", err)
		}
	}
}

func verifyResult(res contract.VerifyResult, reports []verify.BackupReport) contract.VerifyResult {
	verdicts := make([]contract.Verdict, 0, len(reports))
	room := maxFindings
	for i := range reports {
		rep := &reports[i]
		b := contract.VerifiedBackup{BackupID: rep.BackupID, Verdict: verdict(rep.Outcome()), Level: rep.Level(), Findings: []contract.VerifyFinding{}}
		omitted := rep.Omitted
		for _, p := range rep.Problems {
			if room == 0 {
				omitted++
				continue
			}
			room--
			b.Findings = append(b.Findings, verifyFinding(p))
		}
		if omitted > 0 {
			b.Findings = append(b.Findings, contract.VerifyFinding{Level: b.Level, Problem: fmt.Sprintf("and %d more that are not listed", omitted)})
		}
		verdicts = append(verdicts, b.Verdict)
		if i == 0 || b.Level < res.Level {
			res.Level = b.Level
		}
		res.Backups = append(res.Backups, b)
	}
	res.Verdict = contract.Worst(verdicts...)
	return res
}

func verifyFinding(p verify.Problem) contract.VerifyFinding {
	f := contract.VerifyFinding{Level: p.Level, Object: p.Object, File: strings.ToValidUTF8(p.File, "?"), Problem: p.Text}
	if p.Block >= 0 {
		f.Block = &p.Block
	}
	const most = 1000 // bytes of one problem
	if len(f.Problem) > most {
		f.Problem = strings.ToValidUTF8(f.Problem[:most], "") + " …"
	}
	return f
}
