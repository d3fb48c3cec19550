//go:build !linux

package fs

import (
	"os"
	"syscall"
)

// renameNoReplace does not exist here; link(2) does its work.
func renameNoReplace(from, to string) error {
	return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: syscall.ENOSYS}
}
