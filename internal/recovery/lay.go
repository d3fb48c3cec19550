package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

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
)

// replaced are files of the source that the restored server must not use.
var replaced = []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"}

// skipped are files of the source that have no meaning in a restored directory.
var skipped = []string{
	"recovery.signal", "standby.signal", "tablespace_map", "postmaster.pid", "postmaster.opts",
	MarkerFile, recordFile, privateHBA,
} // the last three: the source was itself restored once

// Lay writes the plan's files. It may be called again after any failure, also by another process: what is in place and
// right is kept. When it returns nil, everything is durable and a server may be started; before that, none can be,
// because global/pg_control is missing (R3).
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
	pl, err := take(p, opts.DrillID, owner.Chown)
	if err != nil {
		return res, err
	}
	defer pl.release()
	if pl.mark.State == stateLaid {
		return LayResult{Files: p.Files, Bytes: p.Bytes, ReusedBytes: p.Bytes, Seconds: time.Since(begin).Seconds()}, nil
	}
	snap, err := opts.Repo.OpenBackup(ctx, p.Cluster, p.BackupID)
	if err != nil {
		return res, err
	}
	l := &layer{plan: p, opts: opts, owner: owner, snap: snap, dir: p.TargetDir, resumed: pl.resumed}
	if l.opts.Progress == nil {
		l.opts.Progress = func(Progress) {}
	}
	if err := l.run(ctx); err != nil {
		return res, fmt.Errorf("lay backup %s in %s: %w", p.BackupID, p.TargetDir, err)
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
	dir     string
	resumed bool

	files, bytes, reused atomic.Int64
	dirs                 []string
	control              *repo.Entry
}

func (l *layer) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

func (l *layer) run(ctx context.Context) error {
	if err := os.Remove(l.path(controlFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	stop := l.report()
	err := l.content(ctx)
	stop()
	if err != nil {
		return err
	}
	if l.control == nil {
		return fmt.Errorf("the backup has no %s", controlFile)
	}
	if err := l.configure(); err != nil {
		return err
	}
	if err := syncTree(l.dir, l.dirs); err != nil {
		return err
	}
	return l.placeControl(ctx)
}

// report gives progress twice a second until stopped.
func (l *layer) report() (stop func()) {
	show := func() { l.opts.Progress(Progress{Phase: "lay", Done: l.bytes.Load(), Total: l.plan.Bytes}) }
	show()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
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
	g, ctx := errgroup.WithContext(ctx)
	workers := l.opts.Workers
	if workers <= 0 {
		workers = max(2, runtime.GOMAXPROCS(0))
	}
	g.SetLimit(workers + 1)
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

// task is a piece of a file to lay.
type task struct {
	file  *layFile
	piece repo.Piece
}

// layFile is a file that pieces are being written to; whoever writes the last piece closes it.
type layFile struct {
	entry repo.Entry
	f     *os.File
	left  atomic.Int32
	was   int64 // size that an earlier attempt left
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

func (l *layer) entry(ctx context.Context, e repo.Entry, tasks chan<- task) error {
	if !fs.ValidPath(e.Path) {
		return errors.New("the backup names a path that cannot be laid")
	}
	switch e.Type {
	case repo.TypeDir:
		return l.directory(e)
	case repo.TypeSymlink:
		return fmt.Errorf("the backup holds a symbolic link to %s; links are never laid", e.Link)
	}
	switch {
	case e.Path == controlFile:
		l.control = &e
		return nil
	case slices.Contains(skipped, e.Path):
		return nil
	case slices.Contains(replaced, e.Path):
		e.Path += sourceSuffix
	}
	return l.openFile(ctx, e, tasks)
}

func (l *layer) directory(e repo.Entry) error {
	path := l.path(e.Path)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory: %w", path, err)
	}
	l.dirs = append(l.dirs, path)
	return errors.Join(os.Chmod(path, e.Mode.Perm()|0o700), l.owner.Chown(path))
}

func (l *layer) openFile(ctx context.Context, e repo.Entry, tasks chan<- task) error {
	pieces, err := l.snap.Pieces(ctx, &e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path(e.Path), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	lf := &layFile{entry: e, f: f}
	info, err := f.Stat()
	if err == nil {
		lf.was = info.Size()
		err = f.Truncate(e.Size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	lf.left.Store(int32(len(pieces)))
	if len(pieces) == 0 {
		return l.finish(lf)
	}
	for _, p := range pieces {
		select {
		case tasks <- task{lf, p}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// buffers hold what an earlier attempt left, for comparing.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 128<<10); return &b }}

func (l *layer) piece(ctx context.Context, t task) error {
	var keep func(int64, repo.Chunk) (bool, error)
	if l.resumed && t.file.was > t.piece.Offset {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		keep = func(offset int64, c repo.Chunk) (bool, error) {
			*buf = slices.Grow((*buf)[:0], int(c.Raw))[:c.Raw]
			n, err := t.file.f.ReadAt(*buf, offset)
			if err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
			same := n == int(c.Raw) && l.snap.HasContent(c, *buf)
			if same {
				l.reused.Add(int64(n))
				l.bytes.Add(int64(n))
			}
			return same, nil
		}
	}
	err := l.snap.ReadPiece(ctx, &t.piece, keep, func(offset int64, plain []byte) error {
		n, err := t.file.f.WriteAt(plain, offset)
		l.bytes.Add(int64(n))
		return err
	})
	if err != nil {
		return err
	}
	if t.file.left.Add(-1) > 0 {
		return nil
	}
	return l.finish(t.file)
}

// finish gives a file its mode, owner and time. Durability comes for all files at once, in syncTree.
func (l *layer) finish(lf *layFile) error {
	path := lf.f.Name()
	l.files.Add(1)
	return errors.Join(lf.f.Chmod(lf.entry.Mode.Perm()&0o640|0o600), l.owner.Chown(path), lf.f.Close(),
		os.Chtimes(path, lf.entry.ModTime, lf.entry.ModTime))
}

// placeControl writes global/pg_control, durably and atomically: from here on the directory can be started.
func (l *layer) placeControl(ctx context.Context) error {
	data, err := l.snap.ReadFile(ctx, controlFile, 64<<10)
	if err != nil {
		return err
	}
	l.bytes.Add(int64(len(data)))
	l.files.Add(1)
	return writeDurably(l.path(controlFile), data, 0o600, l.owner)
}

// writeDurably replaces a file: temporary file, fsync, rename, fsync of the directory.
func writeDurably(path string, data []byte, mode fs.FileMode, owner pginstance.Owner) error {
	tmp := path + ".lifeboat-tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = errors.Join(owner.Chown(tmp), os.Rename(tmp, path))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes everything below dir durable. syncfs writes a file system back in one go, much faster than fsync on
// thousands of files, and since Linux 5.8 reports write-back errors; on older kernels each file is synced.
func syncTree(dir string, dirs []string) error {
	if !kernelAtLeast(5, 8) {
		return syncEach(dir)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

func syncEach(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !(d.IsDir() || d.Type().IsRegular()) {
			return err
		}
		return syncDir(path)
	})
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(strings.TrimRight(string(u.Release[:]), "\x00"), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
