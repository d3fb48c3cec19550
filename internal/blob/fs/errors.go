package fs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"lifeboat/internal/blob"
)

// ErrReadOnly refuses a write to a store that was opened with Options.ReadOnly.
var ErrReadOnly = errors.New("the repository is opened for reading only")

// errNoExclusive says that the file system has no atomic create-if-absent.
var errNoExclusive = errors.New("the file system knows neither RENAME_NOREPLACE nor hard links, so that an object " +
	"cannot be created exclusively; keep the repository on a local Linux file system or on NFS")

// errFolder says that a key cannot be a file because it is a folder, or has a file for a folder.
var errFolder = fmt.Errorf("%w: one of its folders is an object, or it is (or was) a folder of other keys",
	blob.ErrInvalidKey)

// fail wraps an error with the operation, the key and the store, and with a remedy.
func (s *Store) fail(op, key string, err error) error {
	return fmt.Errorf("%s %s in %s: %w", op, key, s, explain(err))
}

// explain adds the remedy to an error that an administrator can mend.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; free space or inodes on the file system, or prune the repository", err)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; raise the quota, or prune the repository", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount the file system for writing", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; give user id %d access to the repository folder", err, os.Geteuid())
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w; raise this process's limit of open files (ulimit -n)", err)
	}
	return err
}

// unsupported tells whether a system call failed because the file system, or the kernel, does not offer it:
// renameat2(2) says EINVAL, link(2) says EPERM.
func unsupported(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP) ||
		errors.Is(err, syscall.EOPNOTSUPP)
}
