package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/repo"
)

// LayOptions say how a plan's files are laid.
type LayOptions struct {
	Repo *repo.Repository
	// Owner is the user that will own the files, when this process is root; "" is pginstance.DefaultOwner.
	Owner string
	// FetchCommand begins the restore_command: the lifeboat program, by absolute path, and arguments that name the
	// repository. The owner must be able to run it and to read the repository.
	FetchCommand []string
	// DrillID marks the directory as a drill's.
	DrillID string
	// Workers read and write at the same time; 0 is one for each CPU, at least 2.
	Workers  int
	Progress func(Progress)
}

// Progress tells how far a restore is.
type Progress struct {
	Phase       string // lay, replay, promote, check
	Done, Total int64  // bytes
	Waiting     string
}

// LayResult tells what was laid.
type LayResult struct {
	Files       int64 // files with content, empty ones included
	Bytes       int64 // plain bytes in place, reused ones included
	ReusedBytes int64 // of these, found in place and right
	Seconds     float64
}

const (
	controlFile = "global/pg_control"
	// sourceSuffix is added to the source's own configuration files, which are laid for reference only (R4).
	sourceSuffix = ".lifeboat-source"
	// asideSuffix is added to the configuration files that a server had before it was restored in place.
	asideSuffix = ".lifeboat-before"
	// tablespaceDir holds the tablespaces, by OID, below the target directory (R1).
	tablespaceDir = "lifeboat.tablespaces"
	// sourceConfigDir holds copies of what the source had configured outside its data directory, and its settings: for
	// reference, nothing reads them (R4).
	sourceConfigDir = "lifeboat.source-config"
)

// replaced are files of the source that the restored server must not use.
var replaced = []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"}

// skipped are files of the source that have no meaning in a restored directory; from MarkerFile on, because the source
// was itself restored once.
var skipped = append([]string{
	"recovery.signal", "standby.signal", "tablespace_map", "postmaster.pid", "postmaster.opts",
}, ownFiles()...)

// ownFiles are the files that this package adds to a data directory.
func ownFiles() []string {
	names := []string{MarkerFile, privateHBA, noteFile(startedNote), noteFile(reachedNote), noteFile(ProofNote)}
	for _, name := range replaced {
		names = append(names, name+sourceSuffix, name+asideSuffix)
	}
	return names
}

// Lay writes the plan's files. It may be called again after any failure, also by another process: what is in place and
// right is kept, and what does not belong there is removed. When it returns nil, everything is durable and a server may
// be started; before that, none can be, because global/pg_control is missing (R3).
func Lay(ctx context.Context, p *Plan, opts LayOptions) (LayResult, error) {
	begin := time.Now()
	var res LayResult
	if err := p.Check(); err != nil {
		return res, err
	}
	owner, err := pginstance.LookupOwner(opts.Owner)
	if err != nil {
		return res, err
	}
	pl, err := take(ctx, p, opts, owner)
	if err != nil {
		return res, err
	}
	defer pl.release()
	if pl.mark.State == stateLaid {
		return LayResult{Files: p.Files, Bytes: p.Bytes, ReusedBytes: p.Bytes, Seconds: time.Since(begin).Seconds()}, nil
	}
	places, err := takePlaces(ctx, p, owner)
	if err != nil {
		return res, err
	}
	defer places.release()
	snap, err := opts.Repo.OpenBackup(ctx, p.Cluster, p.BackupID)
	if err != nil {
		return res, err
	}
	l := &layer{
		plan: p, opts: opts, owner: owner, snap: snap, root: pl.root, places: places,
		resumed: pl.resumed || places.resumed(),
	}
	if l.opts.Progress == nil {
		l.opts.Progress = func(Progress) {}
	}
	if err := l.run(ctx); err != nil {
		return res, fmt.Errorf("lay backup %s in %s: %w", p.BackupID, p.TargetDir, err)
	}
	if err := places.finish(); err != nil {
		return res, err
	}
	pl.mark.State = stateLaid
	if err := pl.write(); err != nil {
		return res, err
	}
	return LayResult{Files: l.files.Load(), Bytes: l.bytes.Load(), ReusedBytes: l.reused.Load(), Seconds: time.Since(begin).Seconds()}, nil
}

// layer is one run of Lay.
type layer struct {
	plan    *Plan
	opts    LayOptions
	owner   pginstance.Owner
	snap    *repo.Snapshot
	root    *os.Root // the target directory: nothing that is done below it can be led out of it by a link
	places  places   // of tablespaces that lie elsewhere
	resumed bool

	files, bytes, reused atomic.Int64
	control              bool     // the backup has global/pg_control
	tablespaces          []string // OIDs that were laid
	named                map[uint64]struct{}

	mu   sync.Mutex
	open map[*layFile]struct{}
}

func (l *layer) run(ctx context.Context) error {
	top, err := l.root.Open(".") // before anything is written: see syncTree
	if err != nil {
		return err
	}
	defer top.Close()
	if err := l.disarm(); err != nil {
		return err
	}
	stop := l.report()
	err = l.content(ctx)
	stop()
	if err != nil {
		return err
	}
	if !l.control {
		return fmt.Errorf("the backup has no %s", controlFile)
	}
	if err := l.configure(); err != nil {
		return err
	}
	if l.resumed {
		l.name(MarkerFile)
		if err := l.sweep(); err != nil {
			return err
		}
	}
	if err := syncTree(l.root, top); err != nil {
		return err
	}
	if err := l.places.sync(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.placeControl(ctx)
}

// disarm removes pg_control, durably: what follows may not overtake it, not even in a power failure (R3).
func (l *layer) disarm() error {
	if l.plan.Delta {
		return l.disarmLive()
	}
	err := l.root.Remove(controlFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncIn(l.root, path.Dir(controlFile))
}

// report gives progress ten times a second until stopped.
func (l *layer) report() (stop func()) {
	show := func() { l.opts.Progress(Progress{Phase: "lay", Done: l.bytes.Load(), Total: l.plan.Bytes}) }
	show()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended; show() }
}

// content lays directories and files: entries come in order of paths, so a directory comes before what is in it.
func (l *layer) content(ctx context.Context) error {
	defer l.closeAll()
	g, ctx := errgroup.WithContext(ctx)
	workers := l.opts.Workers
	if workers <= 0 {
		workers = max(2, runtime.GOMAXPROCS(0))
	}
	tasks := make(chan task, 2*workers)
	g.Go(func() error {
		defer close(tasks)
		return l.produce(ctx, tasks)
	})
	for range workers {
		g.Go(func() error {
			for t := range tasks {
				if err := l.piece(ctx, t); err != nil {
					return fmt.Errorf("%s: %w", t.file.entry.Path, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *layer) produce(ctx context.Context, tasks chan<- task) error {
	for e, err := range l.snap.Entries(ctx) {
		if err != nil {
			return err
		}
		if err := l.entry(ctx, e, tasks); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

// placeControl writes global/pg_control, durably and atomically: from here on the directory can be started.
func (l *layer) placeControl(ctx context.Context) error {
	data, err := l.snap.ReadFile(ctx, controlFile, 64<<10)
	if err != nil {
		return err
	}
	l.bytes.Add(int64(len(data)))
	l.files.Add(1)
	if err := writeFile(l.root, controlFile, data, l.owner, l.fileMode()); err != nil {
		return err
	}
	return l.openToGroup()
}
