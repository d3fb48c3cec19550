package fs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A folder is often written by two users: by the server's, whose archive_command runs, and by root, who takes a backup
// by hand. What root makes belongs to the owner of the root folder, or else that user could write no WAL beside it and
// read no backup. A missing root folder goes to the owner of the folder that holds it.

// ownedBy makes the store's system calls give what they make to the owner of like, if this process is root and the
// owner is not.
func (s *Store) ownedBy(like fs.FileInfo) {
	owner, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	create, mkdir := s.sys.create, s.sys.mkdir
	s.sys.create = func(path string, mode fs.FileMode) (tempFile, error) {
		f, err := create(path, mode)
		if err != nil {
			return nil, err
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return nil, errors.Join(err, f.Close(), s.sys.unlink(path))
		}
		return f, nil
	}
	s.sys.mkdir = func(path string, mode fs.FileMode) error {
		if err := mkdir(path, mode); err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	}
}

// adopt gives a root folder that was just made to the owner of the folder that holds it.
func (s *Store) adopt(dir string) error {
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return err
	}
	owner, ok := parent.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	return os.Lchown(dir, int(owner.Uid), int(owner.Gid))
}
