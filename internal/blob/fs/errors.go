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

// ErrEmpty says that an empty folder was refused: see Options.Create.
var ErrEmpty = errors.New("it is empty")

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

// RemedyError is an error that an administrator can mend.
type RemedyError struct {
	err    error
	remedy string
}

// Error is the cause and the remedy.
func (e *RemedyError) Error() string { return e.err.Error() + "; " + e.remedy }

// Unwrap gives the cause.
func (e *RemedyError) Unwrap() error { return e.err }

// Remedy is what to do about it.
func (e *RemedyError) Remedy() string { return e.remedy }

// explain adds the remedy to an error that an administrator can mend.
func explain(err error) error {
	remedy := ""
	switch {
	case errors.Is(err, syscall.ENOSPC):
		remedy = "free space or inodes on the file system of that folder, or make it larger; nothing that the repository holds is lost"
	case errors.Is(err, syscall.EDQUOT):
		remedy = "raise the quota of that folder's file system"
	case errors.Is(err, syscall.EROFS):
		remedy = "mount the file system for writing"
	case errors.Is(err, fs.ErrPermission):
		remedy = fmt.Sprintf("give user id %d access to the repository folder", os.Geteuid())
	case errors.Is(err, syscall.EMFILE):
		remedy = "raise this process's limit of open files (ulimit -n)"
	default:
		return err
	}
	return &RemedyError{err, remedy}
}

// unsupported tells whether a system call failed because the file system, or the kernel, does not offer it:
// renameat2(2) says EINVAL, link(2) says EPERM.
func unsupported(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP) ||
		errors.Is(err, syscall.EOPNOTSUPP)
}
