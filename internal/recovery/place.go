package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// MarkerFile stands in every directory that this package lays, from the first moment on. It says whose work the files
// are, and it is what clean-up asks for before it removes anything.
const MarkerFile = "lifeboat.restore.json"

// marker is the content of MarkerFile.
type marker struct {
	PlanHash string    `json:"planHash"`
	Cluster  string    `json:"cluster"`
	BackupID string    `json:"backupId"`
	DrillID  string    `json:"drillId,omitempty"` // set: a drill's, to be removed
	State    string    `json:"state"`
	Began    time.Time `json:"began"`
}

// The states of a directory.
const (
	stateLaying = "laying" // global/pg_control is not there: nothing can be started
	stateLaid   = "laid"
)

func readMarker(dir string) (*marker, error) {
	data, err := os.ReadFile(filepath.Join(dir, MarkerFile))
	if err != nil {
		return nil, err
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", MarkerFile, dir, err)
	}
	return &m, nil
}

// checkTargetDir refuses places that a restore must not write to: anything but a missing directory, an empty one, or
// one that a restore of this program began.
func checkTargetDir(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return refuse("", "the target directory %q is not an absolute path of a directory to be", dir)
	}
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return checkParent(dir)
	case err != nil:
		return fmt.Errorf("look at the target directory: %w", err)
	case !info.IsDir():
		return refuse("name the directory itself", "the target %s is not a directory", dir)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look at the target directory: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, MarkerFile)); err == nil {
		return nil // a restore's: Lay compares the plan
	}
	return refuse("name an empty or missing directory", "the target directory %s is not empty (it holds %s)", dir, names[0].Name())
}

func checkParent(dir string) error {
	parent := filepath.Dir(dir)
	info, err := os.Stat(parent)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() {
		return refuse("create it, or name another place", "%s, which shall hold the target directory, is not a directory", parent)
	}
	if err != nil {
		return fmt.Errorf("look at the target directory: %w", err)
	}
	return nil
}

// place is a target directory that this process holds: an flock on the marker keeps other attempts out, also one that
// a timeout has left running (R21).
type place struct {
	dir  string
	lock *os.File
	mark marker
	// resumed tells that an earlier attempt of the same plan was here.
	resumed bool
}

// take takes the directory for a plan. The lock of a dying attempt is waited for, briefly.
func take(p *Plan, drillID string, chown func(string) error) (*place, error) {
	if err := checkTargetDir(p.TargetDir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.TargetDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create the target directory: %w", err)
	}
	if err := errors.Join(os.Chmod(p.TargetDir, 0o700), chown(p.TargetDir)); err != nil {
		return nil, fmt.Errorf("prepare the target directory: %w", err)
	}
	pl, err := lockPlace(p.TargetDir)
	if err != nil {
		return nil, err
	}
	want := marker{PlanHash: p.Hash, Cluster: p.Cluster, BackupID: p.BackupID, DrillID: drillID, State: stateLaying, Began: time.Now().UTC()}
	have, err := readMarker(p.TargetDir)
	switch {
	case err == nil && have.PlanHash == p.Hash && have.DrillID == drillID:
		pl.mark, pl.resumed = *have, true
		return pl, nil
	case err == nil && have.PlanHash != "":
		pl.release()
		return nil, refuse("name another directory, or remove this one",
			"the target directory %s holds another restore: of %s, backup %s, plan %.12s", p.TargetDir, have.Cluster, have.BackupID, have.PlanHash)
	}
	pl.mark = want
	if err := errors.Join(pl.write(), chown(filepath.Join(pl.dir, MarkerFile))); err != nil {
		pl.release()
		return nil, err
	}
	return pl, nil
}

func lockPlace(dir string) (*place, error) {
	path := filepath.Join(dir, MarkerFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the target directory: %w", err)
	}
	for waited := time.Duration(0); ; waited += 100 * time.Millisecond {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &place{dir: dir, lock: f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || waited > 10*time.Second {
			_ = f.Close()
			return nil, fmt.Errorf("lock the target directory %s: another process is restoring there: %w", dir, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// write writes the marker in place: the lock is on this very file, so it is not replaced.
func (pl *place) write() error {
	data, err := json.MarshalIndent(pl.mark, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", MarkerFile, err)
	}
	if _, err = pl.lock.WriteAt(append(data, '\n'), 0); err == nil {
		err = pl.lock.Truncate(int64(len(data)) + 1)
	}
	if err == nil {
		err = pl.lock.Sync()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", MarkerFile, err)
	}
	return nil
}

func (pl *place) release() { _ = pl.lock.Close() }
