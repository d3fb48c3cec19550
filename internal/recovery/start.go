package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	// server and fails the start. It may be nil. It is not called when an earlier attempt got beyond it and promoted.
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

// AssertionError says that a server stopped where the plan did not say it would. The server was stopped.
type AssertionError struct {
	Expected, Observed string
	// Promoted says that it was noticed only after the promotion.
	Promoted bool
}

// Error tells both.
func (e *AssertionError) Error() string {
	end := "nothing was promoted"
	if e.Promoted {
		end = "the server had been promoted: do not use it"
	}
	return fmt.Sprintf("the server did not reach what was planned: expected %s, reached %s; %s", e.Expected, e.Observed, end)
}

// Start starts the server of a laid plan, waits for the target, asserts that it is the planned one, and carries out
// the plan's action. On any error no server is left running, and it may be called again: what an earlier attempt
// replayed counts, and a server that an earlier attempt promoted is started as it is, after a look at where it was.
func Start(ctx context.Context, p *Plan, opts StartOptions) (*Server, error) {
	if opts.Progress == nil {
		opts.Progress = func(Progress) {}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	fail := func(err error) (*Server, error) {
		return nil, fmt.Errorf("start the server in %s: %w", p.TargetDir, err)
	}
	if err := CheckLaid(p); err != nil {
		return fail(err)
	}
	pl, err := lockPlace(ctx, p.TargetDir, 0)
	if err != nil {
		return fail(err)
	}
	defer pl.release()
	if err := CheckLaid(p); err != nil { // again, now that nobody else can change it
		return fail(err)
	}
	s, work := &Server{}, (*Server).recover
	if wasPromoted(p) {
		if err := Noted(p, reachedNote, &s.Reached); err != nil {
			return fail(refuse("restore into another directory",
				"a server was promoted there, but not by this restore: what it had reached is not known (%v)", err))
		}
		work = (*Server).resumePromoted
	}
	if s.Instance, err = launch(ctx, p, opts); err != nil {
		return fail(err)
	}
	if err := work(s, ctx, p, opts); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(err, s.Instance.Stop(stop, pginstance.Immediate))
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
	if err := p.lendSegment(); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if err := Note(p, reachedNote, s.Reached); err != nil { // promotion cannot be repeated
		return err
	}
	begin = time.Now()
	if err := s.resumeReplay(ctx); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return s.awaitReady(ctx, p, begin)
}

// resumePromoted goes on with a server that an earlier attempt promoted and that ended then.
func (s *Server) resumePromoted(ctx context.Context, p *Plan, opts StartOptions) error {
	opts.Progress(Progress{Phase: "promote"})
	return s.awaitReady(ctx, p, time.Now())
}

// awaitReady waits until the server takes writes, and looks whether it left the plan's timeline where the target was.
func (s *Server) awaitReady(ctx context.Context, p *Plan, begin time.Time) error {
	st, err := s.Instance.WaitUntil(ctx, func(st pginstance.Status) (bool, error) { return st.State == pginstance.StateReady, nil }, nil)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	s.Ready = time.Since(begin)
	s.Reached.Timeline = st.Timeline
	return s.assertBranch(p)
}

// assertBranch reads the history file of the timeline that promotion began.
func (s *Server) assertBranch(p *Plan) error {
	data, err := os.ReadFile(filepath.Join(p.TargetDir, "pg_wal", s.Reached.Timeline.HistoryName()))
	if err != nil {
		return &AssertionError{
			Promoted: true, Expected: fmt.Sprintf("a timeline that branches off from %d", p.Timeline),
			Observed: fmt.Sprintf("timeline %d, whose history cannot be read: %v", s.Reached.Timeline, err),
		}
	}
	h, err := pg.ParseHistory(s.Reached.Timeline, data)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if at, ok := h.SwitchPoint(p.Timeline); !ok || !samePlace(at, p.Stop.ReplayedTo) {
		return &AssertionError{
			Promoted: true, Expected: fmt.Sprintf("timeline %d to be left at %v", p.Timeline, p.Stop.ReplayedTo),
			Observed: fmt.Sprintf("timeline %d, which left it at %v", s.Reached.Timeline, at),
		}
	}
	return nil
}

// resumeReplay ends a pause at a target, and recovery with it (recoveryPausesHere, xlogrecovery.c).
func (s *Server) resumeReplay(ctx context.Context) error {
	conn, err := s.Connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Exec(ctx, "select pg_wal_replay_resume()")
	return err
}

// Connect opens a session as the superuser. "" is the database postgres, or template1 in a cluster that has none.
func (s *Server) Connect(ctx context.Context, database string) (*dbcore.Conn, error) {
	return Connect(ctx, s.Instance, database)
}

// Connect is Server.Connect for a server that is still paused.
func Connect(ctx context.Context, in *pginstance.Instance, database string) (*dbcore.Conn, error) {
	cfg, err := dbcore.ParseDSN(in.ConnString(database, ""))
	if err != nil {
		return nil, err
	}
	conn, err := dbcore.Connect(ctx, cfg)
	var failed *dbcore.ConnectError
	if database == "" && errors.As(err, &failed) && failed.Code == dbcore.CodeNoDatabase {
		return Connect(ctx, in, "template1")
	}
	return conn, err
}

// assert compares what was reached with what the plan foretold: the same record, and the same last transaction.
func (p *Plan) assert(r Reached) error {
	if !samePlace(r.LSN, p.Stop.ReplayedTo) {
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
	return a == b || a%page == 0 && b-a <= header
}
