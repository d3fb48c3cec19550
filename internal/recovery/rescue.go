package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// RescueOptions name a stopped server.
type RescueOptions struct {
	Repo    *repo.Repository
	Cluster string
	// DataDir is the data directory of the stopped server.
	DataDir     string
	Compression repo.Compression
	// Pushed is told of each file when the repository has it durably; it may be nil.
	Pushed func(RescuedFile)
}

// RescuedFile is a WAL file that was stored.
type RescuedFile struct {
	Name string `json:"name"`
	// Bytes of WAL in it: of a partial segment up to where the WAL ends.
	Bytes int64 `json:"bytes"`
}

// RescueResult tells what a rescue found and did.
type RescueResult struct {
	SystemID pg.SystemID
	Timeline pg.Timeline
	// EndLSN is where the server's WAL ends: the end of its last complete record.
	EndLSN pg.LSN
	Pushed []RescuedFile
}

// Rescue stores what a crashed, stopped server's pg_wal has and the repository has not, the segment in which its WAL ends
// included, as .partial (R20). It reads the data directory and changes nothing there. It may be repeated at any time: what
// the repository has already is success. A running server, and one that is not the cluster's, is refused.
func Rescue(ctx context.Context, opts RescueOptions) (*RescueResult, error) {
	fail := func(err error) (*RescueResult, error) {
		return nil, fmt.Errorf("rescue the WAL in %s: %w", opts.DataDir, err)
	}
	if err := refuseRunning(opts.DataDir); err != nil {
		return nil, err
	}
	control, err := readControl(opts.DataDir)
	if missing(err) {
		return nil, refuse("name the data directory of the stopped server", "%s is no data directory: it has no %s", opts.DataDir, controlFile)
	}
	if err != nil {
		return fail(err)
	}
	inv, err := wal.List(ctx, opts.Repo, opts.Cluster)
	if err != nil {
		return fail(err)
	}
	if have := (repo.Identity{SystemID: control.SystemID, WALSegmentSize: control.WALSegmentSize}); have != inv.Identity {
		return nil, &repo.IdentityError{Cluster: opts.Cluster, Want: inv.Identity, Have: have}
	}
	local, err := readLocalWAL(ctx, opts.DataDir, control, inv)
	if local == nil {
		return fail(err)
	}
	damage := err // what is before it is rescued all the same
	files, err := local.pending(ctx, opts.Repo, inv)
	if err != nil {
		return fail(err)
	}
	res := &RescueResult{SystemID: control.SystemID, Timeline: local.history.Timeline, EndLSN: local.end}
	for i := range files {
		f, err := files[i].push(ctx, opts)
		if err != nil {
			return fail(errors.Join(err, damage))
		}
		res.Pushed = append(res.Pushed, f)
		if opts.Pushed != nil {
			opts.Pushed(f)
		}
	}
	if damage != nil {
		return fail(damage)
	}
	return res, nil
}

func (f *localFile) push(ctx context.Context, opts RescueOptions) (RescuedFile, error) {
	data, err := f.read()
	if err != nil {
		return RescuedFile{}, err
	}
	_, err = wal.Push(ctx, wal.PushOptions{
		Repo: opts.Repo, Cluster: opts.Cluster, Path: filepath.Join(filepath.Dir(f.path), f.name), Data: data, Compression: opts.Compression,
	})
	var conflict *repo.WALConflictError
	if errors.As(err, &conflict) && f.keep > 0 {
		return RescuedFile{}, fmt.Errorf("%w; if an earlier rescue stored %s and the server has run since, start the server "+
			"and let it archive the segment itself", err, f.name)
	}
	if err != nil {
		return RescuedFile{}, err
	}
	n := int64(len(data))
	if f.keep > 0 {
		n = f.keep
	}
	return RescuedFile{Name: f.name, Bytes: n}, nil
}
