package recovery

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"lifeboat/internal/repo"
)

// task is a piece of a file to lay.
type task struct {
	file  *layFile
	piece repo.Piece
}

// layFile is a file that pieces are being written to; whoever writes the last piece closes it.
type layFile struct {
	entry repo.Entry
	name  string // below the target directory
	f     *os.File
	left  atomic.Int32
	was   int64 // size that an earlier attempt left
}

// entry lays one entry of the backup. Those of tablespaces go to a place of their own.
func (l *layer) entry(ctx context.Context, e repo.Entry, tasks chan<- task) error {
	if err := repo.CheckPath(e.Path); err != nil {
		return fmt.Errorf("the backup names a path that cannot be laid: %w", err)
	}
	if e.Type == repo.TypeSymlink {
		return fmt.Errorf("the backup holds a symbolic link to %s; links are never laid", e.Link)
	}
	if within(tablespaceDir, e.Path) || within(sourceConfigDir, e.Path) {
		return nil // the source was itself restored once; its tablespaces come as pg_tblspc
	}
	name := e.Path
	if within(repo.ConfigDir, name) {
		name = sourceConfigDir + name[len(repo.ConfigDir):]
		e.Mode |= l.dirMode() // files lose what makes no sense for them
	}
	if oid, rest, ok := splitTablespace(e.Path); ok {
		if err := l.tablespace(oid); err != nil {
			return err
		}
		if name = tablespaceDir + "/" + oid + rest; rest == "" {
			return nil
		}
	}
	if e.Type == repo.TypeDir {
		return l.directory(name, e.Mode)
	}
	switch {
	case e.Path == controlFile:
		l.control = true
		return nil
	case slices.Contains(skipped, e.Path):
		return nil
	case slices.Contains(replaced, e.Path):
		name += sourceSuffix
	}
	return l.openFile(ctx, e, name, tasks)
}

// within tells whether path is dir or lies below it.
func within(dir, path string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}

// splitTablespace takes a path below pg_tblspc/OID apart.
func splitTablespace(path string) (oid, rest string, ok bool) {
	below, ok := strings.CutPrefix(path, "pg_tblspc/")
	if !ok {
		return "", "", false
	}
	oid = below
	if i := strings.IndexByte(below, '/'); i >= 0 {
		oid, rest = below[:i], below[i:]
	}
	return oid, rest, oid != "" && strings.Trim(oid, "0123456789") == ""
}

// tablespace makes a tablespace's directory below the target directory (R1), and the symbolic link in pg_tblspc:
// PostgreSQL panics at consistency when it finds a directory there (CheckTablespaceDirectory, xlogrecovery.c). The link
// is absolute and free of further links, as CREATE TABLESPACE makes it; base backups rely on that to tell a tablespace
// within the data directory from one beside it.
func (l *layer) tablespace(oid string) error {
	if slices.Contains(l.tablespaces, oid) {
		return nil
	}
	l.tablespaces = append(l.tablespaces, oid)
	target, err := l.tablespacePlace(oid)
	if err != nil {
		return err
	}
	link := "pg_tblspc/" + oid
	l.name(link)
	if have, err := l.root.Readlink(link); err == nil && have == target {
		return nil
	}
	if err := errors.Join(l.root.RemoveAll(link), l.root.Symlink(target, link)); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return l.root.Lchown(link, l.owner.UID, l.owner.GID)
}

// tablespacePlace is where a tablespace's link shall lead.
func (l *layer) tablespacePlace(oid string) (string, error) {
	if pl := l.places[oid]; pl != nil {
		return filepath.EvalSymlinks(pl.dir)
	}
	for _, dir := range []string{tablespaceDir, tablespaceDir + "/" + oid} {
		if err := l.directory(dir, l.dirMode()); err != nil {
			return "", err
		}
	}
	real, err := filepath.EvalSymlinks(l.plan.TargetDir)
	if err != nil {
		return "", err
	}
	return filepath.Join(real, tablespaceDir, oid), nil
}

// at finds where a name lies: below the target directory, or in the place of a tablespace.
func (l *layer) at(name string) (*os.Root, string) {
	if rest, ok := strings.CutPrefix(name, tablespaceDir+"/"); ok {
		oid, below, _ := strings.Cut(rest, "/")
		if pl := l.places[oid]; pl != nil {
			return pl.root, below
		}
	}
	return l.root, name
}

// directory makes a directory, or takes the one that is there. Anything else under its name is not ours to follow.
func (l *layer) directory(name string, mode fs.FileMode) error {
	l.name(name)
	root, name := l.at(name)
	info, err := root.Lstat(name)
	if err == nil && !info.IsDir() {
		err = errors.Join(root.RemoveAll(name), fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = root.Mkdir(name, 0o700)
	}
	if err != nil {
		return err
	}
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(mode.Perm()&0o750|0o700), give(d, l.owner), d.Close())
}

func (l *layer) openFile(ctx context.Context, e repo.Entry, name string, tasks chan<- task) error {
	l.name(name)
	pieces, err := l.snap.Pieces(ctx, &e)
	if err != nil {
		return err
	}
	root, below := l.at(name)
	if err := makeWay(root, below); err != nil {
		return err
	}
	f, err := root.OpenFile(below, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	lf := &layFile{entry: e, name: name, f: f}
	l.track(lf)
	info, err := f.Stat()
	if err == nil {
		lf.was = info.Size()
		err = f.Truncate(e.Size)
	}
	if err != nil {
		return err
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

// makeWay removes what stands under a file's name and is not a file of ours: a link, symbolic or hard, would take what is
// written elsewhere.
func makeWay(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); info.Mode().IsRegular() && ok && st.Nlink == 1 {
		return nil
	}
	return root.RemoveAll(name)
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
	l.files.Add(1)
	l.mu.Lock()
	delete(l.open, lf)
	l.mu.Unlock()
	root, name := l.at(lf.name)
	return errors.Join(lf.f.Chmod(lf.entry.Mode.Perm()&0o640|0o600), give(lf.f, l.owner), lf.f.Close(),
		root.Chtimes(name, lf.entry.ModTime, lf.entry.ModTime))
}

// track remembers a file until it is finished, so that a run that fails leaves no descriptor open.
func (l *layer) track(lf *layFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*layFile]struct{}{}
	}
	l.open[lf] = struct{}{}
}

func (l *layer) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for lf := range l.open {
		_ = lf.f.Close() // the run has failed, and the next one writes the file again
	}
	l.open = nil
}

var seed = maphash.MakeSeed()

// name remembers what belongs to the restore, for sweep. Only a resumed run has something to sweep. A hash takes less
// memory than a path; should two collide, something that nobody asks for stays.
func (l *layer) name(path string) {
	if !l.resumed {
		return
	}
	if l.named == nil {
		l.named = map[uint64]struct{}{}
	}
	l.named[maphash.String(seed, path)] = struct{}{}
}

// sweep removes everything below the target directory that is not named (R3): an earlier attempt, or somebody else,
// left it. In the place of a tablespace only what PostgreSQL's directory of this major version holds is the restore's.
func (l *layer) sweep() error {
	if err := l.sweepRoot(l.root, "", func(string) bool { return true }); err != nil {
		return err
	}
	for oid, pl := range l.places {
		err := l.sweepRoot(pl.root, tablespaceDir+"/"+oid+"/", func(name string) bool {
			top, _, _ := strings.Cut(name, "/")
			return isVersionDir(top, l.plan.PostgresMajor)
		})
		if err != nil {
			return fmt.Errorf("tablespace %s in %s: %w", oid, pl.dir, err)
		}
	}
	return nil
}

func (l *layer) sweepRoot(root *os.Root, prefix string, ours func(name string) bool) error {
	return walk(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, ok := l.named[maphash.String(seed, prefix+name)]; ok || !ours(name) {
			return nil
		}
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("remove a leftover: %w", err)
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}
