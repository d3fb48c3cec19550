package pginstance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
		if abs, err := filepath.Abs(dataDir); err == nil {
			return removeSocketDir(privateSocketName(abs))
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", dataDir, err)
	}
	in, err := Attach(dir, AttachOptions{})
	switch {
	case err == nil:
		if err := in.Stop(ctx, Immediate); err != nil {
			return fmt.Errorf("destroy %s: %w", dataDir, err)
		}
	case !errors.Is(err, ErrNotRunning):
		return fmt.Errorf("destroy %s: %w", dataDir, err)
	}
	if err := waitNobody(dir, immediateTimeout); err != nil { // such as backends whose postmaster was killed
		return fmt.Errorf("destroy %s: %w", dataDir, err)
	}
	if err := removeDataDir(dir, guard.Marker); err != nil {
		return fmt.Errorf("destroy %s: %w", dataDir, err)
	}
	return removeSocketDir(privateSocketName(dir))
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
