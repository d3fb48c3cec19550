package verify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
)

const (
	workPrefix = "verify-"
	lockSuffix = ".lock"
)

// workplace is a directory that one attempt restores into. The lock beside it is held while the attempt lives, so that a
// later one can tell what a dead one left (R21).
type workplace struct {
	root, dir string
	lock      *os.File
}

// takeWorkplace makes a place of a fresh name, and first removes those that nobody holds any more.
func takeWorkplace(ctx context.Context, root string) (*workplace, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("the work directory %q is not an absolute path", root)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("prepare the work directory: %w", err)
	}
	if _, err := Sweep(ctx, root); err != nil {
		return nil, fmt.Errorf("remove what a dead verification left: %w", err)
	}
	for attempt := 1; ; attempt++ {
		var random [6]byte
		_, _ = rand.Read(random[:])
		dir := filepath.Join(root, workPrefix+hex.EncodeToString(random[:]))
		lock, err := lockWorkplace(dir)
		if err == nil {
			return &workplace{root: root, dir: dir, lock: lock}, nil
		}
		if attempt == 5 {
			return nil, fmt.Errorf("prepare the work directory: %w", err)
		}
	}
}

// lockWorkplace takes the lock beside dir, without waiting.
func lockWorkplace(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	// A sweep may have taken the new file for a dead one's, and removed it, before it was locked.
	held, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = os.Stat(f.Name()); err == nil && !os.SameFile(held, named) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// Sweep removes the places, and ends the servers, of verifications that died: those whose lock nobody holds. It returns
// what it removed, also beside an error.
func Sweep(ctx context.Context, root string) (removed []string, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock || !strings.HasPrefix(name, workPrefix) {
			continue
		}
		dir := filepath.Join(root, name)
		lock, err := lockWorkplace(dir)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // another verification is at work there, or has just ended
		}
		if err == nil {
			if err = (&workplace{root: root, dir: dir, lock: lock}).remove(ctx); err == nil {
				removed = append(removed, dir)
			}
		}
		failed = errors.Join(failed, err)
	}
	return removed, failed
}

// remove ends a server that runs in the place, and removes it.
func (w *workplace) remove(ctx context.Context) error {
	defer w.lock.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := os.Lstat(w.dir); err == nil {
		err := pginstance.Destroy(ctx, w.dir, pginstance.Guard{WorkRoot: w.root, Marker: recovery.MarkerFile})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(w.lock.Name())
}
