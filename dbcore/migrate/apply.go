package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/dbcore"
)

// ApplyOptions bind Apply and Down to what was seen before. The zero value applies everything that there is.
type ApplyOptions struct {
	// To is that of PlanOptions.
	To *int64
	// PlanHash is the Hash of the Plan that was looked at: anything else is ErrPlanChanged. "" takes what there is.
	PlanHash string
	// AllowUnsafe goes on in spite of findings that are errors.
	AllowUnsafe bool
	// AllowDestructive lets Down destroy data.
	AllowDestructive bool
}

// Result says what Apply or Down did, also when it failed on the way.
type Result struct {
	Plan *Plan `json:"plan"`
	// Done are the files that were finished, in order.
	Done []DoneFile `json:"done"`
	// Version is that of the database afterwards; -1 is none.
	Version int64 `json:"version"`
}

// DoneFile is a file that was run.
type DoneFile struct {
	Version  int64         `json:"version"`
	Name     string        `json:"name"`
	Took     time.Duration `json:"took"`
	Attempts int           `json:"attempts"`
	// Blockers are those that were in the way, if it was tried more than once.
	Blockers []Blocker `json:"blockers,omitempty"`
}

// Apply takes the lock, plans, and runs what is pending. Calling it again is safe: it goes on where it stopped.
//
// Errors: those of Plan; ErrPlanChanged, ErrUnsafe, ErrLocked, ErrStandby, dbcore.ErrPooler before anything was done;
// *StatementError, which says what is left of its file; *BlockedError (ErrLockTimeout) around that if locks were not
// granted; ErrLockLost. The Result is not nil once there was a plan.
func (m *Migrator) Apply(ctx context.Context, opts ApplyOptions) (*Result, error) {
	return m.execute(ctx, Up, opts)
}

// Down goes back: one version, or to opts.To. It refuses versions without a down file or with one that is marked
// irreversible (ErrIrreversible), and those that destroy data (ErrDestructive) unless opts.AllowDestructive is set. What
// is destroyed comes back from a backup only.
func (m *Migrator) Down(ctx context.Context, opts ApplyOptions) (*Result, error) {
	return m.execute(ctx, Down, opts)
}

func (m *Migrator) execute(ctx context.Context, direction Direction, opts ApplyOptions) (result *Result, err error) {
	s, err := m.openSession(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	plan, err := s.plan(ctx, PlanOptions{Direction: direction, To: opts.To})
	if err != nil {
		return nil, err
	}
	result = &Result{Plan: plan, Version: plan.From}
	if err := plan.permit(opts); err != nil {
		return result, err
	}
	if err := s.begin(ctx, true); err != nil {
		return result, err
	}
	return result, s.runAll(ctx, plan, result)
}

// runAll runs the files of a plan, and writes into result how far it came.
func (s *session) runAll(ctx context.Context, plan *Plan, result *Result) error {
	progress := s.m.opts.Progress
	for i := range plan.Files {
		f := &plan.Files[i]
		if err := s.verify(ctx); err != nil {
			return err
		}
		progress(Event{Kind: "file", Version: f.Version, File: f.Name, Statements: len(f.Statements)})
		done, err := s.runFile(ctx, plan, f)
		if errors.Is(err, dbcore.ErrCommitAmbiguous) {
			return fmt.Errorf("%s: %w; status says whether it was applied, and apply again is safe: the history is in the same transaction", f.Name, err)
		}
		if err != nil {
			return err
		}
		result.Done = append(result.Done, done)
		result.Version = plan.versionAfter(i)
		progress(Event{Kind: "done", Version: f.Version, File: f.Name, Elapsed: done.Took})
	}
	return nil
}

// plan is made under the lock: nobody can change what it stands on.
func (s *session) plan(ctx context.Context, opts PlanOptions) (*Plan, error) {
	st, err := s.t.readState(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	major, err := majorOf(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	return s.m.plan(st, opts, major)
}

func (p *Plan) permit(opts ApplyOptions) error {
	if opts.PlanHash != "" && opts.PlanHash != p.Hash {
		return fmt.Errorf("%w: expected %.12s, now it is %.12s; look at the new plan first", ErrPlanChanged, opts.PlanHash, p.Hash)
	}
	if unsafe := p.Unsafe(); len(unsafe) > 0 && !opts.AllowUnsafe {
		return &UnsafeError{Findings: unsafe}
	}
	if d := p.Destroys(); p.Direction == Down && len(d) > 0 && !opts.AllowDestructive {
		return fmt.Errorf("%w: going down from %d to %s destroys %v; only a backup brings it back, allow it expressly or write a new migration", ErrDestructive, p.From, versionText(p.To), d)
	}
	return nil
}

// versionAfter is what golang-migrate's table says after the file of that index. Going up out of order it stays.
func (p *Plan) versionAfter(i int) int64 {
	if p.Direction == Up {
		return max(p.From, p.Files[i].Version)
	}
	if i+1 < len(p.Files) {
		return p.Files[i+1].Version
	}
	return p.To
}

// begin makes the tables, and (with adopt) the history of a database that golang-migrate has migrated.
func (s *session) begin(ctx context.Context, adopt bool) error {
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := s.t.create(ctx, tx); err != nil {
			return err
		}
		st, err := s.t.readState(ctx, tx)
		if err != nil || !st.adopt || !adopt {
			return err
		}
		return s.t.adopt(ctx, tx, st, s.m.files, s.m.opts.AppVersion)
	})
}

const (
	retryMin = 500 * time.Millisecond
	retryMax = 30 * time.Second
)

// retryDelay is the wait after a failed attempt, before jitter: those who hold the locks need time, and so do those who
// queued up behind us.
func retryDelay(attempt int) time.Duration {
	return min(retryMin<<min(attempt-1, 10), retryMax)
}

// lockConflict says that a statement can be tried again because others were in its way: lock_timeout (55P03), an object
// in use (55006), a deadlock (40P01), a serialization failure (40001).
func lockConflict(err error) bool {
	switch dbcore.SQLState(err) {
	case "55P03", "55006", "40P01", "40001":
		return true
	}
	return false
}

// retry runs fn until it succeeds, fails for another reason than locks, left something behind, or was tried often enough.
func (s *session) retry(ctx context.Context, f *PlannedFile, done *DoneFile, fn func() error) error {
	for attempt := 1; ; attempt++ {
		done.Attempts = max(done.Attempts, attempt)
		err := fn()
		if err == nil || !lockConflict(err) {
			return err
		}
		if blockers := s.watcher.blockers(); len(blockers) > 0 {
			done.Blockers = blockers
		}
		if attempt >= s.m.opts.LockAttempts || asOpen(err) {
			return &BlockedError{Attempts: attempt, Blockers: done.Blockers, Err: err}
		}
		s.m.opts.Progress(Event{Kind: "retry", Version: f.Version, File: f.Name, Attempt: attempt + 1, Blockers: done.Blockers})
		if err := sleep(ctx, jitter(retryDelay(attempt))); err != nil {
			return fmt.Errorf("wait before trying %s again: %w", f.Name, err)
		}
	}
}
