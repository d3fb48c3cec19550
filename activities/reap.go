package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/verify"
)

// staleWrites is after how long without a byte an unfinished write is nobody's.
const staleWrites = 24 * time.Hour

// RunState is what is known of a run.
type RunState int

// The states of a run.
const (
	RunUnknown RunState = iota // nobody knows it: it ended long ago, or belongs to another Temporal
	RunAlive
	RunEnded
)

// unknownAge is how old the claim of an unknown run must be before it counts as ended.
const unknownAge = time.Hour

// Reap removes what dead workers left on this host and nobody came back for: servers and files of verifications and
// drills in the work directory, sockets, and unfinished writes to repositories. What somebody holds, or whose run is
// alive, stays, and so does everything that Lifeboat did not mark as its own. It goes on after an error, and may be
// repeated at any time. Each thing that was removed is logged.
func (r *Runner) Reap(ctx context.Context, state func(ctx context.Context, workflowID, runID string) (RunState, error)) error {
	var failed error
	if _, err := os.Stat(r.set.WorkDir); err == nil {
		removed, err := verify.Sweep(ctx, r.set.WorkDir)
		r.reaped("verification", removed)
		failed = errors.Join(err, r.reapDrills(ctx, state))
	}
	removed, err := pginstance.ReapSocketDirs()
	r.reaped("socket directory", removed)
	failed = errors.Join(failed, err)
	for name, c := range r.set.Clusters {
		if c.RemoveStale == nil {
			continue
		}
		n, err := c.RemoveStale(ctx, staleWrites)
		if err != nil { // a repository that may only be read, or is not there now: nothing is wrong with this host
			r.set.Logger.Debug("unfinished writes were not removed", "cluster", name, "error", err)
		} else if n > 0 {
			r.set.Logger.Info("removed unfinished writes of dead workers", "cluster", name, "files", n)
		}
	}
	return failed
}

func (r *Runner) reaped(what string, paths []string) {
	for _, path := range paths {
		r.set.Logger.Info("removed what a dead worker left", "kind", what, "path", path)
	}
}

func (r *Runner) reapDrills(ctx context.Context, state func(context.Context, string, string) (RunState, error)) error {
	found, err := filepath.Glob(filepath.Join(r.set.WorkDir, drillPrefix+"*"+claimSuffix))
	if err != nil {
		return fmt.Errorf("look for drills that were left: %w", err)
	}
	var failed error
	for _, path := range found {
		dir := strings.TrimSuffix(path, claimSuffix)
		err := r.reapDrill(ctx, dir, state)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist) { // held, or just gone
			failed = errors.Join(failed, fmt.Errorf("remove what a drill left in %s: %w", dir, err))
		}
	}
	return failed
}

func (r *Runner) reapDrill(ctx context.Context, dir string, state func(context.Context, string, string) (RunState, error)) error {
	f, err := os.OpenFile(dir+claimSuffix, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockClaim(f); err != nil {
		return err
	}
	ended, err := claimEnded(ctx, f, state)
	if err != nil || !ended {
		return err
	}
	id := strings.TrimPrefix(filepath.Base(dir), drillPrefix)
	if _, err := r.CleanUpDrill(ctx, contract.CleanUpDrillInput{TargetDir: dir, DrillID: id}, Run{}); err != nil {
		return err
	}
	r.reaped("drill", []string{dir})
	return nil
}

// claimEnded tells whether nobody will come back to a drill whose claim is not locked.
func claimEnded(ctx context.Context, f *os.File, state func(context.Context, string, string) (RunState, error)) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	old := time.Since(info.ModTime()) > unknownAge
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return false, err
	}
	var c claim
	if json.Unmarshal(data, &c) != nil || c.WorkflowID == "" {
		return old, nil // its writer was killed before it could say who it is
	}
	if c.RunID == "" {
		return true, nil // a drill without Temporal holds the lock while it lives
	}
	switch s, err := state(ctx, c.WorkflowID, c.RunID); {
	case err != nil:
		return false, err
	case s == RunUnknown:
		return old, nil
	default:
		return s == RunEnded, nil
	}
}
