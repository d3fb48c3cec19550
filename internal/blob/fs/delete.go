package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Delete is blob.Store.Delete. It is durable on return, also if another process removed the object and died. The
// folder of the key stays, see the package comment.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.checkWrite(ctx, key)
	if err == nil {
		err = s.remove(s.path(key))
	}
	if err != nil {
		return s.fail("delete", key, err)
	}
	return nil
}

func (s *Store) remove(path string) error {
	err := s.sys.unlink(path)
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR),
		errors.Is(err, syscall.EPERM) && isFolder(path): // POSIX says EPERM where Linux says EISDIR
		return nil // the key is a folder of others, or below an object: there is no such object
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	err = s.sys.syncDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return s.present()
	}
	return err
}

func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// RemoveStale removes the files that writers left behind when they were killed: unfinished writes that nobody has
// written to for longer than olderThan. It returns how many it removed, also beside an error; it may be repeated.
//
// A writer that is still alive loses nothing but time: its call fails, and nothing can be seen of it. olderThan should
// exceed the longest pause of a writer (an hour is ample) and any difference between the clocks of this host and of a
// file server; 0 is for when no writer is alive.
func (s *Store) RemoveStale(ctx context.Context, olderThan time.Duration) (int, error) {
	removed, err := s.removeStale(ctx, olderThan)
	if err != nil {
		return removed, fmt.Errorf("remove stale files from %s: %w", s, explain(err))
	}
	return removed, nil
}

func (s *Store) removeStale(ctx context.Context, olderThan time.Duration) (int, error) {
	if olderThan < 0 {
		return 0, fmt.Errorf("age %s is negative", olderThan)
	}
	if s.opts.ReadOnly {
		return 0, ErrReadOnly
	}
	dir, err := os.Open(s.temp)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	limit, removed := time.Now().Add(-olderThan), 0
	for {
		entries, err := dir.ReadDir(readBatch)
		if errors.Is(err, io.EOF) {
			return removed, nil
		}
		if err != nil {
			return removed, err
		}
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			done, err := s.removeIfOlder(entry, limit)
			if err != nil {
				return removed, err
			}
			if done {
				removed++
			}
		}
	}
}

// removeIfOlder removes one unfinished write. That it vanishes meanwhile is normal: its writer finished.
func (s *Store) removeIfOlder(entry fs.DirEntry, limit time.Time) (bool, error) {
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.ModTime().After(limit) {
		return false, nil
	}
	err = s.sys.unlink(filepath.Join(s.temp, entry.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
