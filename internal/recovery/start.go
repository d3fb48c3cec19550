package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
)

// StartOptions say how a laid plan is recovered.
type StartOptions struct {
	// BinDirs are searched for PostgreSQL's programs, before the usual places.
	BinDirs []string
	Owner   string
	// Port is the TCP port on 127.0.0.1; 0 picks a free one. SocketOnly opens none.
	Port       int
	SocketOnly bool
	// Detached lets the server outlive this process: for a person. Otherwise it dies with it (R21).
	Detached bool
	// AtTarget is called when the server is paused at the asserted target, before the plan's action; an error stops the
	// server and fails the start. It may be nil.
	AtTarget func(ctx context.Context, in *pginstance.Instance) error
	// Env is added to the server's environment: what the restore_command needs.
	Env      []string
	Logger   *slog.Logger
	Progress func(Progress)
}

// Reached is where recovery ended, as the server said.
type Reached struct {
	LSN          pg.LSN
	LastCommitAt time.Time // zero if no transaction was replayed
	Timeline     pg.Timeline
}

// Server is a server at its target.
type Server struct {
	Instance *pginstance.Instance
	Reached  Reached
	// Replay is from the server's start to the pause at the target, Ready from there to a server that takes writes.
	Replay, Ready time.Duration
}

// AssertionError says that a server stopped where the plan did not say it would. The server was stopped, and nothing
// was promoted.
type AssertionError struct {
	Expected, Observed string
}

// Error tells both.
func (e *AssertionError) Error() string {
	return fmt.Sprintf("the server did not reach what was planned: expected %s, reached %s; nothing was promoted", e.Expected, e.Observed)
}

// Start starts the server of a laid plan, waits for the target, asserts that it is the planned one, and carries out
// the plan's action. On any error no server is left running.
func Start(ctx context.Context, p *Plan, opts StartOptions) (*Server, error) {
	if opts.Progress == nil {
		opts.Progress = func(Progress) {}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	m, err := readMarker(p.TargetDir)
	if err != nil || m.PlanHash != p.Hash || m.State != stateLaid {
		return nil, fmt.Errorf("start the server in %s: the plan's files are not laid there (%w)", p.TargetDir, err)
	}
	in, err := launch(ctx, p, opts)
	if err != nil {
		return nil, fmt.Errorf("start the server in %s: %w", p.TargetDir, err)
	}
	s := &Server{Instance: in}
	if err := s.recover(ctx, p, opts); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(err, in.Stop(stop, pginstance.Immediate))
	}
	return s, nil
}

func launch(ctx context.Context, p *Plan, opts StartOptions) (*pginstance.Instance, error) {
	bin, err := pginstance.FindBinaries(p.PostgresMajor, opts.BinDirs)
	if err != nil {
		return nil, err
	}
	return pginstance.Start(ctx, pginstance.Options{
		Binaries: bin, DataDir: p.TargetDir, Owner: opts.Owner, Port: opts.Port, SocketOnly: opts.SocketOnly,
		Detached: opts.Detached, Superuser: p.Superuser, Env: opts.Env, Logger: opts.Logger,
		Settings: map[string]string{
			// Always a pause first: nothing is promoted before it was compared with the plan.
			"recovery_target_action": string(Pause),
			"hba_file":               p.TargetDir + "/" + privateHBA,
		},
	})
}

// recover waits for the target, asserts it, and acts.
func (s *Server) recover(ctx context.Context, p *Plan, opts StartOptions) error {
	begin := time.Now()
	total := int64(p.Stop.ReplayedTo - p.StartLSN)
	st, err := s.Instance.WaitUntil(ctx, pginstance.PausedAtTarget, func(st pginstance.Status) {
		done := int64(0)
		if st.ReplayLSN > p.StartLSN {
			done = min(total, int64(st.ReplayLSN-p.StartLSN))
		}
		opts.Progress(Progress{Phase: "replay", Done: done, Total: total, Waiting: "target " + p.Target.String()})
	})
	if err != nil {
		return fmt.Errorf("replay to %s: %w", p.Target, err)
	}
	s.Replay = time.Since(begin)
	s.Reached = Reached{LSN: st.ReplayLSN, LastCommitAt: st.LastCommit, Timeline: p.Timeline}
	if err := p.assert(s.Reached); err != nil {
		return err
	}
	if opts.AtTarget != nil {
		if err := opts.AtTarget(ctx, s.Instance); err != nil {
			return err
		}
	}
	switch p.Action {
	case Pause:
		return nil
	case Shutdown:
		return s.Instance.Stop(ctx, pginstance.Fast)
	}
	opts.Progress(Progress{Phase: "promote"})
	return s.promote(ctx)
}

// promote ends recovery: at a target, resuming a paused replay does (recoveryPausesHere, xlogrecovery.c).
func (s *Server) promote(ctx context.Context) error {
	begin := time.Now()
	if err := s.resume(ctx); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	st, err := s.Instance.WaitUntil(ctx, func(st pginstance.Status) (bool, error) { return st.State == pginstance.StateReady, nil }, nil)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	s.Ready = time.Since(begin)
	s.Reached.Timeline = st.Timeline
	return nil
}

func (s *Server) resume(ctx context.Context) error {
	cfg, err := dbcore.ParseDSN(s.Instance.ConnString("", ""))
	if err != nil {
		return err
	}
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Exec(ctx, "select pg_wal_replay_resume()")
	return err
}

// assert compares what was reached with what the plan foretold: the same record, and the same last transaction.
func (p *Plan) assert(r Reached) error {
	if r.LSN != p.Stop.ReplayedTo && !samePlace(r.LSN, p.Stop.ReplayedTo) {
		return &AssertionError{Expected: "replay up to " + p.Stop.ReplayedTo.String(), Observed: r.LSN.String()}
	}
	if p.Stop.LastTime != nil && !r.LastCommitAt.IsZero() {
		if want := p.Stop.LastTime.Time(); !r.LastCommitAt.Equal(want) {
			return &AssertionError{
				Expected: "the last transaction to have ended " + want.Format(time.RFC3339Nano),
				Observed: r.LastCommitAt.UTC().Format(time.RFC3339Nano),
			}
		}
	}
	return nil
}

// samePlace tells whether two positions differ by a page header at most: the end of a record that ends a page, and the
// first position behind the next page's header, are the same place.
func samePlace(a, b pg.LSN) bool {
	const page, header = 8192, 40
	if a > b {
		a, b = b, a
	}
	return a%page == 0 && b-a <= header
}
