package activities

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// claim is a file beside a drill's directory that says whose drill it is, from before the first file is laid until the
// last is removed: a reaper asks Temporal for the run (R21). A drill without Temporal holds a lock on it instead.
type claim struct {
	WorkflowID string `json:"workflowId"`
	// RunID is empty for a drill without Temporal.
	RunID string `json:"runId,omitempty"`
}

const claimSuffix = ".lock"

func writeClaim(dir string, run Run) error {
	f, err := os.OpenFile(dir+claimSuffix, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("claim a place for the drill: %w", err)
	}
	return errors.Join(fillClaim(f, run), f.Close())
}

func fillClaim(f *os.File, run Run) error {
	data, err := json.Marshal(claim{run.WorkflowID, run.RunID})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err != nil {
		return fmt.Errorf("claim a place for the drill: %w", err)
	}
	return nil
}

// holdClaim is writeClaim for a drill of this process, which holds the lock until the file is closed.
func holdClaim(dir string, run Run) (*os.File, error) {
	for range 10 { // a reaper may hold it for a moment, and remove it
		f, err := os.OpenFile(dir+claimSuffix, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("claim a place for the drill: %w", err)
		}
		if err = lockClaim(f); err == nil {
			err = fillClaim(f, run)
		}
		if err == nil {
			return f, nil
		}
		_ = f.Close()
	}
	return nil, fmt.Errorf("claim a place for the drill: %s%s is held by another process", dir, claimSuffix)
}

// lockClaim locks an open claim without waiting, and sees that it is still the one of that name.
func lockClaim(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	held, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(f.Name())
	if err == nil && !os.SameFile(held, named) {
		err = fs.ErrNotExist
	}
	return err
}

func dropClaim(dir string) error {
	if err := os.Remove(dir + claimSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give up the drill's place %s: %w", filepath.Base(dir), err)
	}
	return nil
}
