package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
)

// PlanRestore plans a restore and changes nothing.
func (r *Runner) PlanRestore(ctx context.Context, in contract.PlanRestoreInput, _ Run) (contract.PlanRestoreResult, error) {
	var none contract.PlanRestoreResult
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if err != nil {
		return none, err
	}
	target, err := engineTarget(in.Target)
	if err != nil {
		return none, err
	}
	var tablespaces []recovery.TablespaceMap
	for _, t := range in.Tablespaces {
		var m recovery.TablespaceMap
		if m.Old, m.New, err = contract.SplitTablespace(t); err != nil {
			return none, &InputError{err}
		}
		tablespaces = append(tablespaces, m)
	}
	p, err := recovery.MakePlan(ctx, recovery.PlanOptions{
		Repo: rp, Cluster: in.Cluster, TargetDir: in.TargetDir, Backup: in.Backup, Target: target,
		Timeline: pg.Timeline(in.Timeline), Action: recovery.Action(in.Action),
		Tablespaces: tablespaces, Delta: in.Delta, DiscardWAL: in.DiscardWAL,
	})
	if err != nil {
		return none, err
	}
	if in.PlanHash != "" && in.PlanHash != p.Hash {
		return none, &recovery.RefusedError{
			Reason: fmt.Sprintf("the plan that can be made now has hash %s, not %s", p.Hash, in.PlanHash),
			Hint:   "look at the present plan with --plan",
		}
	}
	if in.Start {
		// Better told now than when all files are laid.
		if _, err := pginstance.FindBinaries(p.PostgresMajor, r.set.BinDirs); err != nil {
			return none, fmt.Errorf("start a server from backup %s on host %s: %w", p.BackupID, r.set.Host, err)
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return none, fmt.Errorf("encode the plan: %w", err)
	}
	return contract.PlanRestoreResult{Hash: p.Hash, Summary: p.Summary(), Plan: data}, nil
}

func engineTarget(t contract.Target) (recovery.Target, error) {
	out := recovery.Target{Kind: recovery.Kind(t.Kind), Value: t.Value, Exclusive: t.Exclusive}
	if t.Kind == string(recovery.Time) {
		at, err := contract.ParseTime(t.Value, time.Now())
		if err != nil {
			return out, &recovery.RefusedError{Reason: err.Error()}
		}
		out.Value = at.Format(time.RFC3339Nano)
	}
	return out, nil
}

func decodePlan(data json.RawMessage) (*recovery.Plan, error) {
	var p recovery.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, &recovery.RefusedError{Reason: "the plan cannot be read: " + err.Error()}
	}
	if err := p.Check(); err != nil {
		return nil, &recovery.RefusedError{Reason: err.Error()}
	}
	return &p, nil
}

// LayFiles lays a plan's files.
func (r *Runner) LayFiles(ctx context.Context, in contract.LayFilesInput, run Run) (contract.LayFilesResult, error) {
	var none contract.LayFilesResult
	p, err := decodePlan(in.Plan)
	if err != nil {
		return none, err
	}
	c, err := r.cluster(p.Cluster)
	if err != nil {
		return none, err
	}
	rp, err := c.OpenRepository(ctx, false)
	if err != nil {
		return none, err
	}
	if in.DrillID != "" {
		if err := r.drillPlace(p.TargetDir, in.DrillID); err != nil {
			return none, err
		}
	}
	if err := checkOwner(in.Owner); err != nil {
		return none, err
	}
	fetch, err := r.fetchCommand(c)
	if err != nil {
		return none, err
	}
	res, err := recovery.Lay(ctx, p, recovery.LayOptions{
		Repo: rp, Owner: r.owner(in.Owner), DrillID: in.DrillID, FetchCommand: fetch, Progress: restoreProgress(run),
	})
	if err != nil {
		return none, err
	}
	return contract.LayFilesResult{Files: res.Files, Bytes: res.Bytes, ReusedBytes: res.ReusedBytes, Seconds: res.Seconds}, nil
}

// fetchCommand names the repository by URL, so that recovery needs no configuration (R5).
func (r *Runner) fetchCommand(c Cluster) ([]string, error) {
	if !strings.HasPrefix(r.set.Lifeboat, "/") {
		return nil, &ConfigurationError{"the lifeboat program was not found beside the worker or on PATH: restore_command needs it"}
	}
	return []string{r.set.Lifeboat, "--repository", c.RepositoryURL}, nil
}

func (r *Runner) owner(name string) string {
	if name == "" {
		return r.set.Owner
	}
	return name
}

// checkOwner refuses an owner that was asked for and cannot be had: only root can give files away.
func checkOwner(name string) error {
	if name == "" || os.Geteuid() == 0 {
		return nil
	}
	me, err := pginstance.LookupOwner(name)
	if err == nil && me.Name != name {
		err = &recovery.RefusedError{
			Reason: fmt.Sprintf("files cannot be given to user %s: this process runs as %s, and only root can give files away", name, me.Name),
			Hint:   fmt.Sprintf("restore as root or as %s, or leave out --owner", name),
		}
	}
	return err
}

func restoreProgress(run Run) func(recovery.Progress) {
	return func(p recovery.Progress) {
		run.Progress(contract.Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Waiting: p.Waiting})
	}
}

// StartServer starts a laid server for a person: detached, at its target, asserted. A server that an earlier attempt
// left is stopped first, unless it is ready: then its result is taken.
func (r *Runner) StartServer(ctx context.Context, in contract.StartServerInput, run Run) (contract.StartServerResult, error) {
	var none contract.StartServerResult
	p, err := decodePlan(in.Plan)
	if err != nil {
		return none, err
	}
	if res, done, err := r.adopt(ctx, p); err != nil || done {
		return res, err
	}
	s, err := recovery.Start(ctx, p, recovery.StartOptions{
		BinDirs: r.set.BinDirs, Owner: r.owner(in.Owner), Port: in.Port, Detached: true, Logger: r.set.Logger,
		Progress: restoreProgress(run),
	})
	if err != nil {
		return none, err
	}
	res := contract.StartServerResult{
		Reached: reached(p, s.Reached), Port: s.Instance.Port(), Socket: s.Instance.SocketDir(), PID: s.Instance.PID(),
		Spans: contract.Spans{Replay: s.Replay.Seconds(), Start: s.Ready.Seconds()},
	}
	return res, recovery.Record(p, res)
}

// adopt deals with what an earlier attempt left in the directory: a result, a half-recovered server, or nothing. Only a
// server that this very plan's attempt began and did not finish is stopped. One that was finished and then started anew
// is somebody's, and so is one in a directory of another plan (R1).
func (r *Runner) adopt(ctx context.Context, p *recovery.Plan) (contract.StartServerResult, bool, error) {
	var none, res contract.StartServerResult
	in, err := pginstance.Attach(p.TargetDir, pginstance.AttachOptions{Superuser: p.Superuser, Logger: r.set.Logger})
	if errors.Is(err, pginstance.ErrNotRunning) {
		return none, false, nil
	}
	if err != nil {
		return none, false, err
	}
	foreign := func(why string) error {
		return &recovery.RefusedError{Reason: fmt.Sprintf("a server runs in %s, and %s", p.TargetDir, why), Hint: "name another directory"}
	}
	switch {
	case markedHash(p.TargetDir) != p.Hash:
		return none, false, foreign("it is not of this restore")
	case recovery.Recorded(p, &res) != nil:
		return none, false, in.Stop(ctx, pginstance.Immediate)
	case res.PID != in.PID():
		return none, false, foreign("it was started anew since this restore finished")
	}
	return res, true, nil
}

// markedHash is the hash of the plan whose files are laid in a directory; "" if that cannot be read.
func markedHash(dir string) string {
	var marker struct {
		PlanHash string `json:"planHash"`
	}
	data, err := os.ReadFile(filepath.Join(dir, recovery.MarkerFile))
	if err != nil || json.Unmarshal(data, &marker) != nil {
		return ""
	}
	return marker.PlanHash
}

func reached(p *recovery.Plan, r recovery.Reached) contract.Reached {
	out := contract.Reached{LSN: r.LSN.String(), Timeline: uint32(r.Timeline)}
	if !r.LastCommitAt.IsZero() {
		at := r.LastCommitAt.UTC()
		out.LastCommitAt, out.Time = &at, &at
	}
	if p.Target.Kind == recovery.Time {
		if at, err := time.Parse(time.RFC3339Nano, p.Target.Value); err == nil {
			out.Time = &at
		}
	}
	return out
}
