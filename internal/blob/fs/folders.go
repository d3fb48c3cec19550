package fs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
)

// maxFolders bounds the memory of a folderSet. A store with more folders only makes some of them again in vain.
const maxFolders = 8192

// folderSet remembers folders that are known to be durable, so that a write need not make them again. The zero value
// is empty. It may be wrong about a folder that a person removed: nameFile finds out and forgets it.
type folderSet struct {
	mu  sync.Mutex
	set map[string]struct{}
}

func (f *folderSet) has(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.set[dir]
	return ok
}

func (f *folderSet) add(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set == nil || len(f.set) >= maxFolders {
		f.set = map[string]struct{}{}
	}
	f.set[dir] = struct{}{}
}

func (f *folderSet) forget(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.set, dir)
}

// makeFolder makes dir, a folder below the root, and those above it, and returns when all are durable. The root itself
// is never made: if it is gone the file system is, and the disk under the mount point must not be filled instead.
//
// A folder is fsynced into its parent before anything is made in it. A folder that holds something is therefore
// durable, and where dir exists only dir itself is in doubt: another writer may be between its mkdir and its fsync.
func (s *Store) makeFolder(dir string) error {
	if dir == s.root || s.folders.has(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	err := s.sys.mkdir(dir, s.opts.DirMode)
	if errors.Is(err, fs.ErrNotExist) {
		s.folders.forget(parent)
		if err := s.makeFolder(parent); err != nil {
			return err
		}
		err = s.sys.mkdir(dir, s.opts.DirMode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := s.sys.syncDir(parent); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	s.folders.add(dir)
	return nil
}
