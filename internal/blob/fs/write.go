package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"lifeboat/internal/blob"
)

// pieceSize is how much of a body is held in memory by one writer, and written between two looks at the context.
const pieceSize = 1 << 20

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// Put is blob.Store.Put.
func (s *Store) Put(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	err := s.checkWrite(ctx, key)
	if err == nil {
		err = s.write(ctx, key, body, size, s.replace)
	}
	if err != nil {
		return s.fail("put", key, err)
	}
	return nil
}

// PutIfAbsent is blob.Store.PutIfAbsent. ErrExists also says that the object that is there is durable.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	err := s.checkWrite(ctx, key)
	if err == nil {
		// Most calls that lose do so against an object that was there before; they need not write a body first.
		err = s.occupied(s.path(key))
	}
	if err == nil {
		err = s.write(ctx, key, body, size, s.createOnly)
	}
	if errors.Is(err, blob.ErrExists) {
		// The winner may have died before its own fsync of the folder: see the package comment. If this one fails
		// the answer must not be ErrExists, on which callers rely.
		if syncErr := s.sys.syncDir(filepath.Dir(s.path(key))); syncErr != nil {
			err = fmt.Errorf("an object exists, but may not survive a loss of power: %w", syncErr)
		}
	}
	if err != nil {
		return s.fail("put if absent", key, err)
	}
	return nil
}

// write runs the protocol of the package comment; name is its step 4.
func (s *Store) write(ctx context.Context, key string, body io.ReaderAt, size int64, name func(temp, path string) error) error {
	temp, err := s.writeTemp(ctx, body, size)
	if err != nil {
		return err
	}
	// After a rename the name is gone already, and being random it is nobody else's. What cannot be removed here is
	// removed by RemoveStale.
	defer func() { _ = s.sys.unlink(temp) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	path := s.path(key)
	if err := s.nameFile(temp, path, name); err != nil {
		return err
	}
	if err := s.sys.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("the object is written, but may not survive a loss of power: %w", err)
	}
	return nil
}

func (s *Store) checkWrite(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if s.unwritable != nil {
		return s.unwritable
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.present()
}

// createTemp opens a new file among the unfinished writes.
func (s *Store) createTemp() (tempFile, string, error) {
	path := filepath.Join(s.temp, rand.Text())
	f, err := s.sys.create(path, s.opts.FileMode)
	if err != nil {
		return nil, "", fmt.Errorf("create temporary file: %w", err)
	}
	return f, path, nil
}

// writeTemp returns a durable file that holds the body, or leaves none.
func (s *Store) writeTemp(ctx context.Context, body io.ReaderAt, size int64) (string, error) {
	f, path, err := s.createTemp()
	if err != nil {
		return "", err
	}
	err = fill(ctx, f, body, size)
	closeErr := f.Close()
	// After a good fsync a close that a signal interrupted has lost nothing (close(2): Linux frees the descriptor).
	if err == nil && closeErr != nil && !errors.Is(closeErr, syscall.EINTR) {
		err = fmt.Errorf("close temporary file: %w", closeErr)
	}
	if err != nil {
		_ = s.sys.unlink(path) // RemoveStale tries again
		return "", err
	}
	return path, nil
}

// fill writes the body, checks the size that arrived and fsyncs.
func fill(ctx context.Context, f tempFile, body io.ReaderAt, size int64) error {
	piece := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(piece)
	if err := blob.CopyBody(ctx, f, body, size, piece[:]); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("check temporary file: %w", err)
	}
	if info.Size() != size {
		return fmt.Errorf("check temporary file: it has %d of %d bytes", info.Size(), size)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync temporary file: %w", err)
	}
	return nil
}

// nameFile makes the folders of path and gives the temporary file its name there. Where a person removes empty
// folders meanwhile they are made again, a few times.
func (s *Store) nameFile(temp, path string, name func(temp, path string) error) error {
	dir := filepath.Dir(path)
	for attempt := 1; ; attempt++ {
		err := s.makeFolder(dir)
		if err == nil {
			err = name(temp, path)
		}
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
			return fmt.Errorf("%w: %w", errFolder, err)
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == 3 {
			return err
		}
		s.folders.forget(dir)
	}
}

// replace is step 4 of Put. A file takes the place of a file; EEXIST means that a folder is there (os.Rename looks).
func (s *Store) replace(temp, path string) error {
	err := s.sys.rename(temp, path)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", errFolder, err)
	}
	return err
}

// createOnly is step 4 of PutIfAbsent. It never looks first and acts then: the system call decides.
func (s *Store) createOnly(temp, path string) error {
	err := s.sys.renameNoReplace(temp, path)
	if unsupported(err) {
		err = s.createByLink(temp, path)
	}
	if errors.Is(err, fs.ErrExist) {
		if err := s.occupied(path); errors.Is(err, errFolder) {
			return err
		}
		return blob.ErrExists // what was in the way may be gone by now; it was there, and ErrExists says no more
	}
	return err
}

func (s *Store) createByLink(temp, path string) error {
	err := s.sys.link(temp, path)
	switch {
	case errors.Is(err, fs.ErrExist) && sameFile(temp, path):
		// link(2): over NFS the call may succeed, lose its reply and be repeated by the client.
		return nil
	case unsupported(err), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: %w", errNoExclusive, err)
	}
	return err
}

func sameFile(a, b string) bool {
	infoA, errA := os.Lstat(a)
	infoB, errB := os.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// occupied returns nil if nothing has the name, ErrExists if an object has it, and errFolder if a folder has it.
func (s *Store) occupied(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return errFolder
	case err != nil:
		return err
	case info.IsDir():
		return errFolder
	}
	return blob.ErrExists
}
