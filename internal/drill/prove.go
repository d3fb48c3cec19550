package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// ProveOptions say what to prove of a laid plan.
type ProveOptions struct {
	Plan     *recovery.Plan
	Manifest *repo.Manifest // of the plan's backup
	// CanaryID names canary rows around the target; "" if there are none.
	CanaryID string
	// Checks are the owner's, run in Database ("" is the one that the superuser's name or postgres gives).
	Checks   []verify.Check
	Database string
	BinDirs  []string
	Owner    string
	Env      []string
	Logger   *slog.Logger
	Progress func(recovery.Progress)
}

// Proof is what was found. A failed check is a finding, not an error.
type Proof struct {
	Reached *recovery.Reached // nil if the server did not reach its target
	Checks  []verify.Finding
	// Replay, Ready and Check are how long the parts took; checking before the start counts as Check.
	Replay, Ready, Check time.Duration
}

// Prove starts a server on laid files, replays to the target, asserts it, promotes, runs the checks, and shuts the
// server down. The server dies with this process. An error means that something could not be done, among it that the
// server did not reach the plan's target; what was found before that is in the Proof.
//
// It may be called again. What can be found only once, before the server's first start and before its promotion, is
// kept in the directory, so that an attempt that is killed afterwards takes nothing from the proof.
func Prove(ctx context.Context, opts ProveOptions) (*Proof, error) {
	p := opts.Plan
	proof := &Proof{}
	bin, err := pginstance.FindBinaries(p.PostgresMajor, opts.BinDirs)
	if err != nil {
		return proof, err
	}
	owner, err := pginstance.LookupOwner(opts.Owner)
	if err != nil {
		return proof, err
	}
	if err := recovery.CheckLaid(p); err != nil {
		return proof, err // above all, do not stop a server that is none of ours
	}
	if err := stopLeftover(ctx, p); err != nil {
		return proof, err
	}
	checking := func(f func()) { begin := time.Now(); f(); proof.Check += time.Since(begin) }
	var once onlyOnce
	checking(func() { err = once.beforeStart(ctx, opts, bin, owner) })
	if err != nil {
		return proof, err
	}
	proof.Checks = append(proof.Checks, once.Files...)

	s, err := recovery.Start(ctx, p, recovery.StartOptions{
		BinDirs: opts.BinDirs, Owner: opts.Owner, SocketOnly: true,
		Env: opts.Env, Logger: opts.Logger, Progress: opts.Progress,
		AtTarget: func(ctx context.Context, in *pginstance.Instance) (err error) {
			checking(func() { err = once.atTarget(ctx, opts, in) })
			return err
		},
	})
	proof.Checks = append(proof.Checks, once.Pairs...)
	if err != nil {
		return proof, err
	}
	stopped := false
	defer func() {
		if !stopped {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			_ = s.Instance.Stop(end, pginstance.Immediate)
		}
	}()
	proof.Reached, proof.Replay, proof.Ready = &s.Reached, s.Replay, s.Ready
	checking(func() { err = proof.examine(ctx, opts, s, bin, owner) })
	if err != nil {
		return proof, err
	}
	checking(func() {
		if err = s.Instance.Stop(ctx, pginstance.Fast); err == nil {
			stopped = true
			proof.Checks = append(proof.Checks, verify.Checksums(ctx, bin, owner, p.TargetDir, opts.Manifest.DataChecksums))
		}
	})
	if err == nil {
		err = context.Cause(ctx) // checks that were cut short are no result
	}
	return proof, err
}

// stopLeftover ends a server that a dead attempt left in the directory. A drill's servers die with their worker, but
// may take a moment to.
func stopLeftover(ctx context.Context, p *recovery.Plan) error {
	in, err := pginstance.Attach(p.TargetDir, pginstance.AttachOptions{Superuser: p.Superuser})
	if err != nil {
		return nil //nolint:nilerr // nothing runs there, or nothing that can be attached to: Start will say so
	}
	return in.Stop(ctx, pginstance.Immediate)
}

// laid states what Lay proved: it reads every chunk of the plan's files and checks tag and hash of each.
func laid(p *recovery.Plan) verify.Finding {
	return verify.Finding{
		ID: "objects", Level: 1, Outcome: verify.Passed,
		Expected: fmt.Sprintf("%d entries, %d bytes, every chunk hashing to its name", p.Files, p.Bytes),
		Observed: "laid and checked",
	}
}

// onlyOnce holds what can be found only once in the life of a laid directory. It is kept there.
type onlyOnce struct {
	Files []verify.Finding // before a server changed them
	Pairs []verify.Finding // before promotion gave numbers of lost transactions to its own
}

// beforeStart examines the files, or takes what an earlier attempt found.
func (o *onlyOnce) beforeStart(ctx context.Context, opts ProveOptions, bin pginstance.Binaries, owner pginstance.Owner) error {
	if err := recovery.Noted(opts.Plan, recovery.ProofNote, o); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f := manifest(ctx, opts, bin, owner)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	o.Files = []verify.Finding{laid(opts.Plan), f}
	return recovery.Note(opts.Plan, recovery.ProofNote, o)
}

// atTarget examines the server that is paused at its target.
func (o *onlyOnce) atTarget(ctx context.Context, opts ProveOptions, in *pginstance.Instance) (err error) {
	if o.Pairs, err = compare(ctx, opts, in); err != nil {
		return err
	}
	return recovery.Note(opts.Plan, recovery.ProofNote, o)
}

func manifest(ctx context.Context, opts ProveOptions, bin pginstance.Binaries, owner pginstance.Owner) verify.Finding {
	if !opts.Manifest.HasBackupManifest() {
		return verify.Finding{ID: "manifest", Level: 4, Outcome: verify.Unable, Observed: "the backup has no backup_manifest"}
	}
	if recovery.WasStarted(opts.Plan) {
		return verify.Finding{
			ID: "manifest", Level: 4, Outcome: verify.Unable,
			Observed: "a server was started on the files before they were verified, so they have changed",
		}
	}
	return verify.Manifest(ctx, bin, owner, opts.Plan.TargetDir, recovery.ChangedFiles())
}

// connect opens a session on a restored server.
func (o *ProveOptions) connect(ctx context.Context, in *pginstance.Instance) (*dbcore.Conn, error) {
	conn, err := recovery.Connect(ctx, in, o.Database)
	if err != nil {
		return nil, fmt.Errorf("check the restored server: %w", err)
	}
	return conn, nil
}

// compare asks the server that is paused at its target for the pairs around it: before promotion, after which it
// would give numbers of lost transactions to its own.
func compare(ctx context.Context, opts ProveOptions, in *pginstance.Instance) ([]verify.Finding, error) {
	conn, err := opts.connect(ctx, in)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := opts.Plan.Stop
	found := []verify.Finding{
		verify.Transaction(ctx, conn, "transaction before", stop.LastCommit, "committed"),
		verify.Transaction(ctx, conn, "transaction after", stop.FirstLost, "not there"),
	}
	if opts.CanaryID != "" {
		found = append(found, checkCanary(ctx, conn, opts.CanaryID)...)
	}
	return found, context.Cause(ctx)
}

// examine runs the checks on the promoted server.
func (proof *Proof) examine(ctx context.Context, opts ProveOptions, s *recovery.Server, bin pginstance.Binaries, owner pginstance.Owner) error {
	opts.progress("check")
	p := opts.Plan
	add := func(f ...verify.Finding) { proof.Checks = append(proof.Checks, f...) }
	add(verify.Finding{
		ID: "wal", Level: 2, Outcome: verify.Passed,
		Expected: "WAL without a gap from " + p.StartLSN.String() + " to " + p.Stop.ReplayedTo.String(),
		Observed: "replayed to " + s.Reached.LSN.String(),
	})
	last := "no transaction replayed"
	if at := s.Reached.LastCommitAt; !at.IsZero() {
		last = "last transaction ended " + at.UTC().Format(time.RFC3339Nano)
	}
	add(verify.Finding{
		ID: "target", Level: 5, Outcome: verify.Passed,
		Expected: "replay up to " + p.Stop.ReplayedTo.String() + ", " + p.Target.String(),
		Observed: "reached " + s.Reached.LSN.String() + ", " + last,
	})
	conn, err := opts.connect(ctx, s.Instance)
	if err != nil {
		return err
	}
	defer conn.Close()
	add(verify.Catalog(ctx, conn))
	for _, c := range opts.Checks {
		add(verify.SQL(ctx, conn, c))
	}
	if p.Action == recovery.Promote {
		opts.progress("amcheck")
		add(verify.Amcheck(ctx, bin, owner, s.Instance, p.Superuser))
	}
	return nil
}

func (o *ProveOptions) progress(phase string) {
	if o.Progress != nil {
		o.Progress(recovery.Progress{Phase: phase})
	}
}
