package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// restore runs levels 4 and 5 in a directory of their own, which is removed whatever happens.
func (l *ladder) restore(ctx context.Context, s *subject) error {
	bin, err := pginstance.FindBinaries(s.snap.Manifest.PostgresMajor, l.BinDirs)
	if err != nil {
		l.cannot(s, 4, err)
		return nil
	}
	owner, err := pginstance.LookupOwner(l.Owner)
	if err != nil {
		l.cannot(s, 4, err)
		return nil
	}
	place, err := takeWorkplace(ctx, l.WorkDir)
	if err != nil {
		l.cannot(s, 4, err)
		return ctx.Err()
	}
	r := &rehearsal{l: l, subject: s, bin: bin, owner: owner, dir: place.dir}
	r.levels(ctx)
	if err := place.remove(context.WithoutCancel(ctx)); err != nil {
		l.cannot(s, 4, fmt.Errorf("what was restored in %s may still be there: %w", place.dir, err))
	}
	return ctx.Err()
}

// cannot says that a level, and all above it, could not run.
func (l *ladder) cannot(s *subject, level int, err error) {
	s.add(Problem{Level: level, Outcome: Unable, Block: -1, Text: "could not run: " + err.Error()})
	for level++; level <= l.Level; level++ {
		s.Levels[level] = worse(s.Levels[level], Unable)
	}
}

// rehearsal is the restore of one backup.
type rehearsal struct {
	*subject
	l     *ladder
	bin   pginstance.Binaries
	owner pginstance.Owner
	dir   string
}

func (r *rehearsal) levels(ctx context.Context) {
	plan, err := r.plan(ctx)
	if err == nil {
		_, err = recovery.Lay(ctx, plan, recovery.LayOptions{
			Repo: r.l.Repo, Owner: r.l.Owner, FetchCommand: r.l.Fetch, Workers: r.l.Workers, Progress: r.l.meter.recovery,
		})
	}
	if err != nil {
		r.fail(4, err)
		return
	}
	r.l.meter.begin("pg_verifybackup", 0)
	if !r.snap.Manifest.HasBackupManifest() {
		r.l.cannot(r.subject, 4, errors.New("the backup has no backup_manifest"))
	} else if f := Manifest(ctx, r.bin, r.owner, r.dir, recovery.ChangedFiles()); f.Outcome == Passed {
		r.passed(4)
	} else {
		r.finding(f)
	}
	if r.l.Level < 5 || r.Levels[4] == Failed || r.Levels[5] == Unable {
		return
	}
	if err := r.replay(ctx, plan); err != nil {
		r.fail(5, err)
		return
	}
	r.passed(5)
}

// plan aims at a commit that the seed chooses, or where there is none at the end of the archive. Level 4 alone needs no
// more WAL than the backup itself.
func (r *rehearsal) plan(ctx context.Context) (*recovery.Plan, error) {
	opts := recovery.PlanOptions{
		Repo: r.l.Repo, Cluster: r.l.Cluster, TargetDir: r.dir, Backup: r.BackupID, Timeline: r.history.Timeline,
		Target: recovery.Target{Kind: recovery.Immediate},
	}
	if r.l.Level < 5 {
		return recovery.MakePlan(ctx, opts)
	}
	target, err := r.target(ctx)
	if err != nil {
		return nil, err
	}
	opts.Target = target
	plan, err := recovery.MakePlan(ctx, opts)
	if err == nil {
		r.l.Logger.Info("verification replays", "cluster", r.l.Cluster, "backup", r.BackupID, "target", target.String(), "seed", r.l.Seed)
	}
	return plan, err
}

// target chooses a commit: in a random segment behind the backup's end, one of the four that its facts name.
func (r *rehearsal) target(ctx context.Context) (recovery.Target, error) {
	inv, err := wal.List(ctx, r.l.Repo, r.l.Cluster)
	if err != nil {
		return recovery.Target{}, err
	}
	random := rand.New(rand.NewPCG(r.l.Seed, r.l.Seed))
	first := uint64(r.snap.Manifest.StopLSN-1) / uint64(inv.SegmentSize)
	const most = 64 // idle clusters have many segments without a commit
	for range most {
		if r.end <= first {
			break
		}
		seg, ok := inv.File(*r.history, first+random.Uint64N(r.end-first))
		if !ok {
			break
		}
		facts, err := wal.Facts(ctx, r.l.Repo, r.l.Cluster, seg.Name(inv.SegmentSize))
		if err != nil {
			return recovery.Target{}, err
		}
		if at := r.commit(facts, random); at != 0 {
			return recovery.Target{Kind: recovery.LSN, Value: at.String()}, nil
		}
	}
	return recovery.Target{Kind: recovery.Latest}, nil
}

// commit chooses one of the commits that a segment's facts name, behind the backup's end; 0 if there is none.
func (r *rehearsal) commit(f *walrecord.Facts, random *rand.Rand) pg.LSN {
	var list []pg.LSN
	for _, t := range []*walrecord.Transaction{f.First, f.Last, f.Earliest, f.Latest} {
		if t != nil && !t.Abort && t.LSN >= r.snap.Manifest.StopLSN {
			list = append(list, t.LSN)
		}
	}
	if len(list) == 0 {
		return 0
	}
	return list[random.IntN(len(list))]
}

// replay starts a server on the laid files, lets it replay to the plan's target, asks it for the transactions around the
// target, promotes it, shuts it down, and has PostgreSQL check every page of what came out.
func (r *rehearsal) replay(ctx context.Context, plan *recovery.Plan) error {
	s, err := recovery.Start(ctx, plan, recovery.StartOptions{
		BinDirs: r.l.BinDirs, Owner: r.l.Owner, SocketOnly: true, Logger: r.l.Logger, Progress: r.l.meter.recovery,
		AtTarget: func(ctx context.Context, in *pginstance.Instance) error { return r.compare(ctx, plan, in) },
	})
	if err != nil {
		return err
	}
	if err := s.Instance.Stop(ctx, pginstance.Fast); err != nil {
		return fmt.Errorf("shut the restored server down: %w", err)
	}
	if r.Levels[5] == Failed {
		return nil
	}
	r.l.meter.begin("pg_checksums", 0)
	if f := Checksums(ctx, r.bin, r.owner, r.dir, r.snap.Manifest.DataChecksums); f.Outcome != Skipped {
		f.Level = 5 // after replay: level 3 looked at the backup itself
		r.finding(f)
	}
	return nil
}

func (r *rehearsal) compare(ctx context.Context, plan *recovery.Plan, in *pginstance.Instance) error {
	conn, err := recovery.Connect(ctx, in, "")
	if err != nil {
		return fmt.Errorf("ask the restored server: %w", err)
	}
	defer conn.Close()
	r.finding(Transaction(ctx, conn, "transaction before", plan.Stop.LastCommit, "committed"))
	r.finding(Transaction(ctx, conn, "transaction after", plan.Stop.FirstLost, "not there"))
	return nil
}

// finding takes over a check that did not pass. One that does not apply is no problem: half a pair is still proof of the
// other half, and the target itself was asserted.
func (r *rehearsal) finding(f Finding) {
	if f.Outcome == Failed || f.Outcome == Unable {
		r.add(Problem{Level: f.Level, Outcome: f.Outcome, Block: -1, Text: fmt.Sprintf("%s: %s (expected %s)", f.ID, f.Observed, f.Expected)})
	}
}

// fail sorts an error: what proves that the backup cannot be restored, and what only kept this host from trying.
func (r *rehearsal) fail(level int, err error) {
	var (
		asserted *recovery.AssertionError
		exited   *pginstance.ExitError
	)
	switch {
	case repo.IsDamage(err), errors.Is(err, repo.ErrNotFound):
		r.add(problemOf(level, "", err))
	case errors.As(err, &asserted), errors.As(err, &exited), errors.Is(err, pginstance.ErrTargetMissed):
		r.add(Problem{Level: level, Outcome: Failed, Block: -1, Text: err.Error()})
	default:
		r.l.cannot(r.subject, level, err)
	}
}
