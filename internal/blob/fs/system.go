package fs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// system holds the system calls whose order and failures decide about durability, so that tests can watch the order
// and let each fail. Package os repeats calls that a signal interrupts; retryInterrupted does so for the others.
type system struct {
	create          func(path string, mode fs.FileMode) (tempFile, error) // fails if the file exists
	mkdir           func(path string, mode fs.FileMode) error
	rename          func(from, to string) error
	renameNoReplace func(from, to string) error
	link            func(from, to string) error
	unlink          func(path string) error
	syncDir         func(path string) error
}

// tempFile is the part of os.File that a write needs.
type tempFile interface {
	io.WriteCloser
	Stat() (fs.FileInfo, error)
	Sync() error
}

func realSystem() system {
	return system{
		create: func(path string, mode fs.FileMode) (tempFile, error) {
			// Not "return os.OpenFile(...)": a nil *os.File would become a tempFile that is not nil.
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		mkdir:           os.Mkdir,
		rename:          os.Rename,
		renameNoReplace: renameNoReplace,
		link:            os.Link,
		unlink:          unlink,
		syncDir:         syncDir,
	}
}

// unlink removes a file. os.Remove would also remove an empty folder.
func unlink(path string) error {
	err := retryInterrupted(func() error { return syscall.Unlink(path) })
	if err != nil {
		return &fs.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}

// syncDir makes the names in a folder durable. PostgreSQL forgives file systems that cannot (fsync_fname_ext in
// src/common/file_utils.c); here it is an error, because the store's promise could not be kept.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
