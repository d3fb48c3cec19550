package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
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
	// SystemID is the cluster that the files are of: what is half laid can be gone over by another restore in place.
	SystemID pg.SystemID `json:"systemIdentifier,omitempty"`
	// Tablespace is the OID of the tablespace whose place this is; "" in a data directory.
	Tablespace string `json:"tablespace,omitempty"`
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
	if len(data) == 0 { // just made, for its lock
		return nil, fmt.Errorf("read %s in %s: it is empty: %w", MarkerFile, dir, os.ErrNotExist)
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", MarkerFile, dir, err)
	}
	return &m, nil
}

const targetDirectory = "target directory"

// checkEmpty refuses places that a restore must not write to: anything but a missing directory, an empty one, or one
// that a restore of this program began, which it tells. what names the place in messages.
func checkEmpty(dir, what string) (marked bool, err error) {
	info, err := lookAt(dir, what)
	if err != nil || info == nil {
		return false, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("look at the %s: %w", what, err)
	}
	if len(names) == 0 {
		return false, nil
	}
	if info, err := os.Lstat(filepath.Join(dir, MarkerFile)); err == nil && info.Mode().IsRegular() {
		return true, nil // a restore's: Lay compares the plan
	}
	return false, refuseFull(dir, what, names[0].Name())
}

// lookAt refuses what is no directory and cannot become one, and what lies within somebody's server. The result is nil
// if nothing is there.
func lookAt(dir, what string) (fs.FileInfo, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return nil, refuse("", "the %s %q is not an absolute path of a directory to be", what, dir)
	}
	info, err := os.Lstat(dir)
	switch {
	case missing(err):
		return nil, checkParent(dir, what)
	case err != nil:
		return nil, fmt.Errorf("look at the %s: %w", what, err)
	case !info.IsDir():
		return nil, refuse("name the directory itself", "the %s %s is not a directory", what, dir)
	}
	return info, checkSurroundings(dir, what)
}

func refuseFull(dir, what, name string) error {
	return refuse("name an empty or missing directory", "the %s %s is not empty (it holds %s)", what, dir, name)
}

func checkParent(dir, what string) error {
	parent := filepath.Dir(dir)
	info, err := os.Stat(parent)
	if missing(err) || err == nil && !info.IsDir() {
		return refuse("create it, or name another place", "%s, which shall hold the %s, is not a directory", parent, what)
	}
	if err != nil {
		return fmt.Errorf("look at the %s: %w", what, err)
	}
	return checkSurroundings(dir, what)
}

// checkSurroundings refuses a place within somebody's data directory or tablespace: its server would take what is laid
// there for its own, in backups and checks, or remove it (R1).
func checkSurroundings(dir, what string) error {
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("look at the %s: %w", what, err)
	}
	for ; parent != "/"; parent = filepath.Dir(parent) {
		if _, err := os.Lstat(filepath.Join(parent, "PG_VERSION")); err == nil {
			return refuse("name a place outside of it", "the %s %s lies within %s, which is a PostgreSQL data directory", what, dir, parent)
		}
		if holdsTablespace(parent) {
			return refuse("name a place outside of it", "the %s %s lies within %s, which is a PostgreSQL tablespace", what, dir, parent)
		}
	}
	return nil
}

// place is a target directory that this process holds: an flock on the marker keeps other attempts out, also one that
// a timeout has left running (R21).
type place struct {
	dir  string
	root *os.Root
	lock *os.File
	mark marker
	// resumed tells that an earlier attempt of the same plan was here.
	resumed bool
}

// lockPatience is how long the lock of a dying attempt is waited for.
const lockPatience = 10 * time.Second

// take takes the directory for a plan. Of a directory that turns out to be somebody else's nothing is changed.
func take(ctx context.Context, p *Plan, opts LayOptions, owner pginstance.Owner) (*place, error) {
	lv, err := inspect(p.TargetDir, p.Delta)
	if err != nil {
		return nil, err
	}
	if err := lv.check(p); err != nil {
		return nil, err
	}
	if err := lv.checkOwner(p, owner); err != nil {
		return nil, err
	}
	if err := lv.refuseLoss(ctx, opts.Repo, p); err != nil {
		return nil, err
	}
	if err := p.checkPlaces(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.TargetDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create the target directory: %w", err)
	}
	pl, err := lockPlace(ctx, p.TargetDir, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if lv != nil {
		err = pl.claimLive(p)
	} else {
		err = pl.claim(p, opts.DrillID, owner)
	}
	if err != nil {
		pl.release()
		return nil, err
	}
	return pl, nil
}

// claim makes a locked place the plan's, or finds that it is.
func (pl *place) claim(p *Plan, drillID string, owner pginstance.Owner) error {
	have, err := readMarker(p.TargetDir)
	switch {
	case err == nil && have.PlanHash == p.Hash && have.DrillID == drillID:
		pl.mark, pl.resumed = *have, true
		if have.State != stateLaid && WasStarted(p) {
			return refuse("name another directory", "a server was started in %s before its restore had finished", p.TargetDir)
		}
	case err == nil && have.PlanHash != "":
		return refuse("name another directory, or remove this one",
			"the target directory %s holds another restore: of %s, backup %s, plan %.12s", p.TargetDir, have.Cluster, have.BackupID, have.PlanHash)
	default:
		if err := pl.begin(p.newMarker(drillID), targetDirectory, owner); err != nil {
			return err
		}
	}
	if pl.mark.State == stateLaid {
		return nil
	}
	return pl.prepare(targetDirectory, owner)
}

func (p *Plan) newMarker(drillID string) marker {
	return marker{
		PlanHash: p.Hash, Cluster: p.Cluster, BackupID: p.BackupID, DrillID: drillID, State: stateLaying,
		Began: time.Now().UTC(), SystemID: p.SystemID,
	}
}

// begin writes a new marker, perhaps over what is left of one: then nothing else can be there.
func (pl *place) begin(m marker, what string, owner pginstance.Owner) error {
	names, err := os.ReadDir(pl.dir)
	if err != nil {
		return fmt.Errorf("look at the %s: %w", what, err)
	}
	for _, n := range names {
		if n.Name() != MarkerFile {
			return refuseFull(pl.dir, what, n.Name())
		}
	}
	pl.mark = m
	return errors.Join(pl.write(), give(pl.lock, owner), syncIn(pl.root, "."))
}

// prepare gives the directory itself the mode and the owner that PostgreSQL asks for.
func (pl *place) prepare(what string, owner pginstance.Owner) error {
	top, err := pl.root.Open(".")
	if err != nil {
		return fmt.Errorf("prepare the %s: %w", what, err)
	}
	if err := errors.Join(top.Chmod(0o700), give(top, owner), top.Close()); err != nil {
		return fmt.Errorf("prepare the %s: %w", what, err)
	}
	return nil
}

// lockPlace takes the lock. With os.O_CREATE in flag the marker is made if it is missing.
func lockPlace(ctx context.Context, dir string, flag int) (*place, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("lock the target directory: %w", err)
	}
	f, err := root.OpenFile(MarkerFile, os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the target directory: %w", err), root.Close())
	}
	pl := &place{dir: dir, root: root, lock: f}
	end := time.Now().Add(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return pl, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			pl.release()
			return nil, fmt.Errorf("lock the target directory %s: another process is restoring there: %w", dir, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			pl.release()
			return nil, fmt.Errorf("lock the target directory %s: %w", dir, context.Cause(ctx))
		}
	}
}

// markerSize is what a marker is filled up to, so that one write of one block replaces another: a process that is killed
// cannot leave half of each.
const markerSize = 1024

// write writes the marker in place: the lock is on this very file, so it is not replaced.
func (pl *place) write() error {
	data, err := json.MarshalIndent(pl.mark, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", MarkerFile, err)
	}
	if n := markerSize - 1 - len(data); n > 0 {
		data = append(data, bytes.Repeat([]byte{' '}, n)...)
	}
	_, err = pl.lock.WriteAt(append(data, '\n'), 0)
	if err == nil {
		err = pl.lock.Sync()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", MarkerFile, err)
	}
	return nil
}

func (pl *place) release() {
	_ = pl.lock.Close() // and with it the lock
	_ = pl.root.Close()
}

// CheckLaid fails unless the plan's directory holds the files of this very plan, laid to the end.
func CheckLaid(p *Plan) error {
	m, err := readMarker(p.TargetDir)
	switch {
	case err != nil:
		return fmt.Errorf("the plan's files are not laid in %s: %w", p.TargetDir, err)
	case m.PlanHash != p.Hash:
		return fmt.Errorf("the plan's files are not laid in %s: it holds those of plan %.12s, not of %.12s", p.TargetDir, m.PlanHash, p.Hash)
	case m.State != stateLaid:
		return fmt.Errorf("the plan's files are not laid in %s: that has not finished", p.TargetDir)
	}
	return nil
}
