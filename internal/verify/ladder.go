package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/pg"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// BackupOptions say what to verify, and how far.
type BackupOptions struct {
	Repo     *repo.Repository
	Cluster  string
	BackupID string // All takes every visible one instead
	// Level is the last one to run, 0 to MaxLevel.
	Level int
	// WorkDir is where levels 4 and 5 restore to, each time into a directory verify-ID of their own, which is removed
	// whatever happens. It must be absolute; below level 4 it is not used.
	WorkDir string
	// BinDirs are searched for PostgreSQL's programs before the usual places; Owner runs the server when this process is
	// root.
	BinDirs []string
	Owner   string
	// Fetch begins the restore_command (recovery.LayOptions.FetchCommand).
	Fetch []string
	// Seed chooses the commit at which level 5 stops: the same seed and archive give the same one.
	Seed uint64
	// Workers read at the same time; 0 is one for each CPU, at least 2. Each holds one pack in memory.
	Workers  int
	Logger   *slog.Logger // nil discards
	Progress func(Progress)
}

// Progress tells how far a verification is. It may be given from any goroutine.
type Progress struct {
	Phase       string // objects, wal, pages, lay, replay and so on
	Done, Total int64  // bytes; Total 0 is unknown
	Waiting     string
}

// Backup verifies one backup. What is wrong with it is in the report; an error means that the verification itself could
// not go on, and says nothing of the backup. It changes nothing in the repository and may be repeated.
func Backup(ctx context.Context, opts BackupOptions) (BackupReport, error) {
	if err := repo.CheckBackupID(opts.BackupID); err != nil {
		return BackupReport{}, err
	}
	reports, err := verifyAll(ctx, opts, []string{opts.BackupID}, false)
	if err != nil {
		return BackupReport{BackupID: opts.BackupID}, fmt.Errorf("verify backup %s of %s: %w", opts.BackupID, opts.Cluster, err)
	}
	return reports[0], nil
}

// All verifies every visible backup, all WAL, and every object of the cluster, also those that nothing refers to. The
// reports are in order of backups; one with an empty BackupID follows if something is wrong with an object that no
// backup needs.
func All(ctx context.Context, opts BackupOptions) ([]BackupReport, error) {
	ids, err := opts.Repo.BackupIDs(ctx, opts.Cluster)
	if err != nil {
		return nil, err
	}
	reports, err := verifyAll(ctx, opts, ids, true)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", opts.Cluster, err)
	}
	return reports, nil
}

// ladder is one verification.
type ladder struct {
	BackupOptions
	all      bool
	subjects []*subject
	rest     *BackupReport
	meter    meter

	sound, damaged atomic.Int64 // objects that level 1 read

	mu         sync.Mutex
	bad        map[string][]Problem // of objects, by key
	omitted    int
	unreadable int
}

// subject is one backup on the ladder.
type subject struct {
	BackupReport
	snap    *repo.Snapshot // nil: its manifest cannot be used
	history *pg.History    // the branch that it can be replayed along; nil before level 2, or if there is none
	first   uint64         // number of the segment at its start
	end     uint64         // number behind the last segment of its gap-free WAL
}

func verifyAll(ctx context.Context, opts BackupOptions, ids []string, all bool) ([]BackupReport, error) {
	if opts.Level < 0 || opts.Level > MaxLevel {
		return nil, fmt.Errorf("level %d: use 0 to %d", opts.Level, MaxLevel)
	}
	if opts.Workers <= 0 {
		opts.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	l := &ladder{BackupOptions: opts, all: all, rest: &BackupReport{}, bad: map[string][]Problem{}}
	l.meter.show = opts.Progress
	for _, id := range ids {
		s := &subject{BackupReport: BackupReport{BackupID: id}}
		l.subjects = append(l.subjects, s)
		if err := l.open(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := l.climb(ctx); err != nil {
		return nil, err
	}
	var out []BackupReport
	for _, s := range l.subjects {
		out = append(out, s.BackupReport)
	}
	if len(l.rest.Problems) > 0 {
		out = append(out, *l.rest)
	}
	return out, nil
}

func (l *ladder) open(ctx context.Context, s *subject) (err error) {
	s.snap, err = l.Repo.OpenBackup(ctx, l.Cluster, s.BackupID)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, repo.ErrNoBackup):
		return err
	}
	p := problemOf(0, repo.BackupKey(l.Cluster, s.BackupID), err)
	if repo.CheckBackupID(s.BackupID) != nil {
		p.Outcome, p.Text = Failed, "damaged: no backup has this name: it was copied or renamed"
	}
	s.add(p)
	return nil
}

// climb runs the levels. A failure does not end it: the more is named the better. But nothing is restored of a backup
// that has failed already, since that could only fail too.
func (l *ladder) climb(ctx context.Context) error {
	if err := l.objects(ctx); err != nil {
		return err
	}
	if l.Level >= 2 {
		if err := l.wal(ctx); err != nil {
			return err
		}
	}
	for _, s := range l.subjects {
		if s.snap == nil {
			continue
		}
		s.corrupt()
		if l.Level >= 3 {
			if err := l.pages(ctx, s); err != nil {
				return err
			}
		}
		if l.Level >= 4 && s.Outcome() != Failed {
			if err := l.restore(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxUnreadable is after how many objects that a store could not give, without being damaged, it is taken for down.
const maxUnreadable = 50

// note keeps a problem of an object until it is known whose it is. It fails when there is no sense in going on.
func (l *ladder) note(p Problem) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Outcome == Unable {
		if l.unreadable++; l.unreadable > maxUnreadable {
			return fmt.Errorf("more than %d objects could not be read, the last one %s: %s", maxUnreadable, p.Object, p.Text)
		}
	}
	if len(l.bad) >= MaxProblems && l.bad[p.Object] == nil {
		l.omitted++
		return nil
	}
	l.bad[p.Object] = append(l.bad[p.Object], p)
	return nil
}

// parallel calls work for each item, from several goroutines, and stops at the first error.
func parallel[T any](ctx context.Context, workers int, items func(yield func(T) error) error, work func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan T)
	g.Go(func() error {
		defer close(queue)
		return items(func(item T) error {
			select {
			case queue <- item:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range workers {
		g.Go(func() error {
			for item := range queue {
				if err := work(ctx, item); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// each makes items of a slice.
func each[T any](list []T) func(func(T) error) error {
	return func(yield func(T) error) error {
		for _, item := range list {
			if err := yield(item); err != nil {
				return err
			}
		}
		return nil
	}
}

// meter adds up progress from many goroutines.
type meter struct {
	mu   sync.Mutex
	now  Progress
	show func(Progress)
}

func (m *meter) begin(phase string, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = Progress{Phase: phase, Total: total}
	m.tell()
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Done += n
	if m.now.Total > 0 {
		m.now.Total = max(m.now.Total, m.now.Done)
	}
	m.tell()
}

func (m *meter) recovery(p recovery.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Waiting: p.Waiting}
	m.tell()
}

func (m *meter) tell() {
	if m.show != nil {
		m.show(m.now)
	}
}

// missing is the problem of WAL that is not there.
func (l *ladder) missing(size pg.SegmentSize, gap wal.Gap) Problem {
	from, to := gap.From.Name(size), gap.To.Name(size)
	p := Problem{Level: 2, Outcome: Failed, Object: repo.WALKey(l.Cluster, from), Block: -1, Text: "missing: there is a gap in the WAL"}
	if from != to {
		p.Text = fmt.Sprintf("missing, and so are all up to %s: there is a gap in the WAL", to)
	}
	return p
}
