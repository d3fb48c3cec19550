package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pginstance"
)

// give gives an open file to the server's user. It goes by descriptor, never by path: the directory is that user's, who
// could put a link in the way of a root that looks twice.
func give(f *os.File, owner pginstance.Owner) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(owner.UID, owner.GID)
}

// writeDurably replaces a file below root, for its owner alone: temporary file, fsync, rename, fsync of the directory.
func writeDurably(root *os.Root, name string, data []byte, owner pginstance.Owner) error {
	return writeFile(root, name, data, owner, 0o600)
}

// writeFile is writeDurably with a mode.
func writeFile(root *os.Root, name string, data []byte, owner pginstance.Owner, mode fs.FileMode) error {
	tmp := name + ".lifeboat-tmp"
	if err := root.RemoveAll(tmp); err != nil { // what a killed attempt left, and whatever else stands there
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), give(f, owner), f.Sync(), f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, root.RemoveAll(tmp))
	}
	return syncIn(root, path.Dir(name))
}

// syncIn makes a file's content, or a directory's entries, durable.
func syncIn(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncTree makes everything below root durable. syncfs writes a file system back in one go, much faster than fsync on
// thousands of files, and since Linux 5.8 reports write-back errors since top was opened; on older kernels each file is
// synced.
func syncTree(root *os.Root, top *os.File) error {
	if !kernelAtLeast(5, 8) {
		return syncEach(root)
	}
	if err := unix.Syncfs(int(top.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", root.Name(), err)
	}
	return nil
}

func syncEach(root *os.Root) error {
	if err := syncIn(root, "."); err != nil {
		return err
	}
	return walk(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !(d.IsDir() || d.Type().IsRegular()) {
			return err
		}
		return syncIn(root, name)
	})
}

// walk is fs.WalkDir below dir, for names that are not UTF-8 too: a root's fs.FS refuses those, and the source's data
// directory may hold them. dir itself is not visited.
func walk(root *os.Root, dir string, visit fs.WalkDirFunc) error {
	d, err := root.Open(dir)
	if err != nil {
		return visit(dir, nil, err)
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return visit(dir, nil, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		err := visit(name, e, nil)
		if err == nil && e.IsDir() {
			err = walk(root, name, visit)
		}
		if err != nil && !errors.Is(err, fs.SkipDir) {
			return err
		}
	}
	return nil
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(strings.TrimRight(string(u.Release[:]), "\x00"), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
