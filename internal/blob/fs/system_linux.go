package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameNoReplace gives a file a new name unless that name is taken, which is os.ErrExist. It fails with EINVAL where
// the file system does not know RENAME_NOREPLACE (renameat2(2)).
func renameNoReplace(from, to string) error {
	err := retryInterrupted(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	})
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}
