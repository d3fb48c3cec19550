package pginstance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotOurs says that Destroy refused a directory: nothing shows that Lifeboat made it.
var ErrNotOurs = errors.New("refused to remove a data directory that Lifeboat did not make")

// Guard says how Destroy knows that a data directory is Lifeboat's to remove. At least one of the two must be set; the
// zero value refuses everything.
type Guard struct {
	// WorkRoot is a directory that only Lifeboat writes into. The data directory must lie below it, by its real path.
	WorkRoot string
	// Marker is the name of a file, directly in the data directory, that Lifeboat laid there when it made it.
	Marker string
}

// check returns the real path of the data directory if it may be removed. Below the work root it must look like a data
// directory (PG_VERSION), hold the marker, or be empty; without a work root only the marker counts.
func (g Guard) check(dataDir string) (string, error) {
	if g.WorkRoot == "" && g.Marker == "" {
		return "", fmt.Errorf("%w: neither a work root nor a marker was named", ErrNotOurs)
	}
	if filepath.Base(g.Marker) != g.Marker && g.Marker != "" {
		return "", fmt.Errorf("%w: marker %q is no file name", ErrNotOurs, g.Marker)
	}
	info, err := os.Lstat(dataDir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: %s is no directory (nor may it be a link to one)", ErrNotOurs, dataDir)
	}
	dir, err := realPath(dataDir)
	if err != nil {
		return "", err
	}
	if g.WorkRoot != "" {
		root, err := realPath(g.WorkRoot)
		if err != nil {
			return "", err
		}
		if dir == root || !within(root, dir) {
			return "", fmt.Errorf("%w: %s does not lie below %s", ErrNotOurs, dir, root)
		}
	}
	return dir, g.checkContent(dir)
}

func (g Guard) checkContent(dir string) error {
	has := func(name string) bool {
		info, err := os.Lstat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular()
	}
	if g.Marker != "" && has(g.Marker) || g.WorkRoot != "" && has("PG_VERSION") {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil // what an interrupted Destroy leaves last
	}
	if g.WorkRoot != "" {
		return fmt.Errorf("%w: %s is not empty and holds neither PG_VERSION nor the marker %q", ErrNotOurs, dir, g.Marker)
	}
	return fmt.Errorf("%w: %s does not hold the marker %q", ErrNotOurs, dir, g.Marker)
}

// Destroy stops the server at once and removes its data directory and its private socket directory. If the guard
// refuses (ErrNotOurs), the server is not touched. Like Stop it finishes even if ctx ends. It may be repeated.
func (in *Instance) Destroy(ctx context.Context, guard Guard) error {
	if _, err := guard.check(in.dataDir); err != nil && !fileGone(err) {
		return fmt.Errorf("destroy server in %s: %w", in.dataDir, err)
	}
	if err := in.Stop(ctx, Immediate); err != nil {
		return err
	}
	return Destroy(ctx, in.dataDir, guard)
}

// Destroy removes a data directory, and before that stops the server that may run in it, whoever started it: it is what
// a later attempt or a reaper calls when the process that made the directory is dead. A directory that is not there is
// no error. The order of removal lets an interrupted Destroy be repeated: pg_control goes first, so that the remains
// cannot be started (R3), and what the guard looks for goes last. Links are removed, never followed: tablespaces outside
// the data directory are their maker's to remove.
func Destroy(ctx context.Context, dataDir string, guard Guard) error {
	dir, err := guard.check(dataDir)
	if fileGone(err) {
		err = guard.afterRemoval(dataDir)
	} else if err == nil {
		err = destroy(ctx, dir, guard)
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", dataDir, err)
	}
	return nil
}

func destroy(ctx context.Context, dir string, guard Guard) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	in, err := Attach(dir, AttachOptions{})
	if err == nil {
		err = in.Stop(ctx, Immediate)
	}
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := waitNobody(dir, immediateTimeout); err != nil { // such as backends whose postmaster was killed
		return err
	}
	if err := removeDataDir(dir, guard.Marker); err != nil {
		return err
	}
	if path := privateSocketName(dir); isPrivateDir(path, uidOf(info)) {
		return removeSocketDir(path)
	}
	return nil
}

// afterRemoval cleans up where the data directory itself is gone: its socket directory, and a server that goes on
// without it, as PostgreSQL does for up to a minute. That is harmless at any path, for there is no data left to lose.
func (g Guard) afterRemoval(dataDir string) error {
	parent, err := realPath(filepath.Dir(dataDir))
	if err != nil {
		return nil // nothing can have run there
	}
	dir := filepath.Join(parent, filepath.Base(dataDir))
	list, err := Running(dir)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.DataDir == dir && p.Deleted {
			_ = syscall.Kill(p.PID, syscall.SIGQUIT) // whoever survives is reported below
		}
	}
	if err := waitNobody(dir, immediateTimeout); err != nil {
		return err
	}
	if path := privateSocketName(dir); isPrivateDir(path, -1) {
		return removeSocketDir(path)
	}
	return nil
}

func removeDataDir(dir, marker string) error {
	if err := os.Remove(filepath.Join(dir, "global", "pg_control")); err != nil && !fileGone(err) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "PG_VERSION" || e.Name() == marker {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}
