package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/blob"
)

const (
	// readBatch is how many names are taken from a folder at a time.
	readBatch = 1024

	// readdir(3) promises nothing about a name that comes or goes while it runs, and on some file systems (tmpfs,
	// Btrfs) a name that rename(2) replaces moves: a scan may meet it twice or not at all. So a folder that changed
	// during a scan is scanned again, and the names of all scans count; what was deleted since is found out later.
	// A name that was there all the time is missed only if it was replaced during each of maxScans scans.
	maxScans = 4
	// settled is longer than the tick of any kernel's clock.
	settled = 50 * time.Millisecond
)

// List is blob.Store.List. It begins in the innermost folder that prefix names and reads no folder in which nothing
// can match. Memory holds the names of one folder and of those above it. No file is open while the caller looks at an
// object, so that it may write and delete.
//
// Files with a name that is no key are passed over. A symbolic link, device or the like with a key's name is an
// error: what seems to be missing must not be taken for absent.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		w := walk{store: s, ctx: ctx, prefix: prefix, after: after, yield: yield}
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		if folder != "" && blob.CheckKey(strings.TrimSuffix(folder, "/")) != nil && ctx.Err() == nil {
			return // no key begins so, and ".." must not lead out of the root
		}
		if err := w.folder(folder); err != nil && !errors.Is(err, errStopped) {
			yield(blob.Info{}, fmt.Errorf("list %q in %s: %w", prefix, s, explain(err)))
		}
	}
}

// errStopped ends a walk whose caller has had enough.
var errStopped = errors.New("listing stopped")

// walk is one call of List.
type walk struct {
	store         *Store
	ctx           context.Context
	prefix, after string
	yield         func(blob.Info, error) bool
}

// folder yields the objects in and below a folder, which is "" for the root and else ends in a slash.
//
// Byte order of whole keys is the order of the names in which a folder's name ends in a slash: all keys below a/ come
// after a-b and a.b ('-' and '.' are less than '/'), and before a0 and ab.
func (w *walk) folder(folder string) error {
	names, err := w.names(folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if strings.HasSuffix(name, "/") {
			err = w.folder(folder + name)
		} else {
			err = w.object(folder + name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object yields one object, unless it was deleted since its folder was read.
func (w *walk) object(key string) error {
	info, err := os.Lstat(w.store.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return w.store.present()
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil // it became a folder by a foreign hand since
	}
	if !w.yield(blob.Info{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil) {
		return errStopped
	}
	return nil
}

// names returns the names in a folder that may hold or lead to wanted keys, in order, folders with a slash at the end.
func (w *walk) names(folder string) ([]string, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(w.store.path(folder), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, w.store.present()
	}
	if errors.Is(err, fs.ErrPermission) && folder == lostFound+"/" {
		return nil, nil // every ext file system has one at its top; writers could not have used it either
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for range maxScans {
		began, err := dir.Stat()
		if err == nil {
			names, err = w.scan(names, folder, dir)
		}
		if err != nil {
			return nil, err
		}
		ended, err := dir.Stat()
		if err != nil {
			return nil, err
		}
		if quiet(began, ended) {
			break
		}
	}
	slices.Sort(names)
	return slices.Compact(names), w.store.present()
}

// quiet tells whether a folder has provably not changed while it was read. Its times may move only with the kernel's
// clock tick, so that a recent change can hide another.
func quiet(began, ended fs.FileInfo) bool {
	return began.ModTime().Equal(ended.ModTime()) && time.Since(ended.ModTime()) > settled
}

// scan reads a folder from its beginning and appends the wanted names.
func (w *walk) scan(names []string, folder string, dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		entries, err := dir.ReadDir(readBatch)
		for _, entry := range entries {
			name, err := w.wanted(folder, entry)
			if err != nil {
				return nil, err
			}
			if name != "" {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// wanted returns the name of an entry, with a slash if it is a folder, or "" if no wanted key can be behind it.
func (w *walk) wanted(folder string, entry fs.DirEntry) (string, error) {
	name := entry.Name()
	key := folder + name
	if blob.CheckKey(key) != nil {
		return "", nil
	}
	if entry.IsDir() {
		name, key = name+"/", key+"/"
	}
	if !strings.HasPrefix(key, w.prefix) {
		return "", nil
	}
	if key <= w.after && !(entry.IsDir() && strings.HasPrefix(w.after, key)) {
		return "", nil
	}
	if !entry.IsDir() && !entry.Type().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file (%s)", filepath.Join(w.store.root, key), entry.Type())
	}
	return name, nil
}
