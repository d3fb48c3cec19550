package basebackup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// Options say what to back up and how.
type Options struct {
	Repo    *repo.Repository
	Cluster string
	// Server is the protected server. Its role needs REPLICATION, and pg_hba.conf a line for "replication", unless
	// DataDirectory is set.
	Server dbcore.Config
	// Type is Full ("" too) or Incremental. Both read and hash everything and restore alike, from themselves; an incremental
	// stores only what its parent, the newest visible backup, has not at the same place. Without any it becomes a full.
	Type repo.BackupType
	// DataDirectory is the absolute path of the server's data directory on this host: its files are read from there.
	// Server's role then needs EXECUTE on pg_backup_start and pg_backup_stop instead of REPLICATION, and this process
	// must be allowed to read the directory. Empty: the server sends its files by the replication protocol.
	DataDirectory string
	// WorkflowID owns the lease and is recorded in the manifest: the next attempt of the same workflow takes over at
	// once. Required.
	WorkflowID string
	// Host and Program are recorded for people.
	Host, Program string
	Compression   repo.Compression
	// Workers hash and compress; 0 is one for each CPU.
	Workers int
	// WALTimeout is how long to wait, without any progress, for the backup's WAL to reach the repository; 0 is 60 s.
	WALTimeout time.Duration
	// CheckpointEvery is for WriterOptions; 0 is its default.
	CheckpointEvery time.Duration
	Logger          *slog.Logger // nil discards
	Progress        func(Progress)
}

// Progress tells how far a backup is. Bytes are plain bytes read from the server.
type Progress struct {
	Phase       string // checkpoint, copy, wal, publish
	Done, Total int64  // Total is the server's estimate, 0 while unknown
	Waiting     string // what is awaited
}

// leaseTTL is how long a silent backup keeps others out. It is a variable for tests, which do not wait that long.
var leaseTTL = time.Minute

// Take takes one backup and returns its manifest when it is visible. It may be called again after any failure.
// What a caller may decide on: *UnsupportedError and *pg.UnsupportedVersionError (the server's settings),
// *DirectoryError (the data directory), *repo.IdentityError (another server), *repo.BusyError and repo.ErrLeaseLost
// (another run), *WALTimeoutError.
func Take(ctx context.Context, opts Options) (*repo.Manifest, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Progress == nil {
		opts.Progress = func(Progress) {}
	}
	if opts.WALTimeout <= 0 {
		opts.WALTimeout = time.Minute
	}
	srv, err := inspect(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", opts.Cluster, err)
	}
	if err := opts.Repo.ClaimIdentity(ctx, opts.Cluster, srv.identity()); err != nil {
		return nil, err
	}
	lease, err := opts.Repo.AcquireLease(ctx, opts.Cluster, "backup", opts.WorkflowID, opts.Host, leaseTTL)
	if err != nil {
		return nil, err
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	stop := keepLease(ctx, lease, lost)
	m, err := (&attempt{opts: opts, server: srv, lease: lease}).run(ctx)
	stop()
	// The lease is given back also when ctx is over: the next run should not have to wait for it to expire.
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if rerr := lease.Release(release); rerr != nil && !errors.Is(rerr, repo.ErrLeaseLost) {
		opts.Logger.Warn("the backup lease was not released; it expires by itself", "cluster", opts.Cluster, "error", rerr)
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, repo.ErrLeaseLost) && !errors.Is(err, repo.ErrLeaseLost) {
			err = cause
		}
		return nil, fmt.Errorf("back up %s: %w", opts.Cluster, err)
	}
	return m, nil
}

// keepLease renews until stopped, and ends the work when the lease is lost or could not be renewed in time.
func keepLease(ctx context.Context, lease *repo.Lease, lost context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		renewed := time.Now()
		tick := time.NewTicker(leaseTTL / 4)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			switch err := renew(ctx, lease); {
			case err == nil:
				renewed = time.Now()
			case errors.Is(err, repo.ErrLeaseLost):
				lost(err)
			case time.Since(renewed) > leaseTTL:
				lost(fmt.Errorf("%w: it could not be renewed for %v: %w", repo.ErrLeaseLost, leaseTTL, err))
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// renew bounds one renewal: a store that does not answer must not hide that the time is over.
func renew(ctx context.Context, lease *repo.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTTL/2)
	defer cancel()
	return lease.Renew(ctx, leaseTTL)
}

// attempt is one backup in the making.
type attempt struct {
	opts   Options
	server *serverFacts
	lease  *repo.Lease
	writer *repo.Writer
	pages  *pageChecker // nil without data checksums

	started  time.Time
	manifest *repo.Manifest
	control  *pg.ControlData
	label    bool // backup_label was stored
	stop     dbcore.StopPosition
}

func (a *attempt) run(ctx context.Context) (*repo.Manifest, error) {
	a.started = time.Now().UTC()
	have, err := a.lookAround(ctx)
	if err != nil {
		return nil, err
	}
	kind := have.backupType()
	id := repo.NewBackupID(a.started, kind)
	intent := repo.Intent{
		BackupID: id, Type: string(kind), ParentID: have.parentID(), WorkflowID: a.opts.WorkflowID, Host: a.opts.Host, StartedAt: a.started,
	}
	if err := a.opts.Repo.PutIntent(ctx, a.opts.Cluster, intent); err != nil {
		return nil, err
	}
	a.manifest = &repo.Manifest{
		Cluster: a.opts.Cluster, BackupID: id, Type: kind, ParentID: have.parentID(), WorkflowID: a.opts.WorkflowID,
		Program: a.opts.Program, StartedAt: a.started,
	}
	a.server.describe(a.manifest)
	closeWriter, err := a.openWriter(ctx, &have)
	if err != nil {
		return nil, err
	}
	defer closeWriter()
	if err := a.copyWithConfiguration(ctx); err != nil {
		return nil, err
	}
	if err := a.waitForWAL(ctx); err != nil {
		return nil, err
	}
	if err := a.publish(ctx); err != nil {
		return nil, err
	}
	for _, old := range append(have.own, id) {
		if err := a.opts.Repo.DropIntent(ctx, a.opts.Cluster, old); err != nil {
			a.opts.Logger.Warn("an intent was left behind; it does no harm", "backup", old, "error", err)
		}
	}
	return a.manifest, nil
}

// openWriter begins to store, and to check pages as they go by.
func (a *attempt) openWriter(ctx context.Context, have *known) (end func(), err error) {
	w := repo.WriterOptions{
		Cluster: a.opts.Cluster, BackupID: a.manifest.BackupID,
		Compression: a.opts.Compression, Workers: a.opts.Workers, CheckpointEvery: a.opts.CheckpointEvery,
		Baselines: have.baselines, ParentPages: have.pages(),
	}
	endChecks := func() {}
	if a.server.Checksums {
		var again pageReader = &sqlPages{server: a.opts.Server}
		if a.opts.DataDirectory != "" {
			again = &filePages{a.opts.DataDirectory}
		}
		a.pages = newPageChecker(ctx, a.manifest, again, a.opts.Logger)
		w.Inspect, endChecks = a.pages.inspect, a.pages.close
	}
	if a.writer, err = a.opts.Repo.NewWriter(ctx, w); err != nil {
		endChecks()
		return nil, err
	}
	return func() {
		endChecks() // first, since the writer's workers may wait for it
		a.writer.Close()
	}, nil
}

// publish makes the backup visible, if this attempt still holds the lease.
func (a *attempt) publish(ctx context.Context) error {
	a.opts.Progress(Progress{Phase: "publish"})
	table, err := a.writer.Finish()
	if err != nil {
		return err
	}
	s, m := a.writer.Stats(), a.manifest
	if a.pages != nil {
		if m.PageCheck, err = a.pages.finish(); err != nil {
			return err
		}
	}
	m.Table = table
	m.SourceBytes, m.ChangedBytes, m.StoredBytes = s.SourceBytes, s.ChangedBytes, s.StoredBytes
	m.Chunks, m.NewChunks, m.Files = s.Chunks, s.NewChunks, s.Files
	m.FinishedAt = time.Now().UTC()
	m.Seconds = m.FinishedAt.Sub(m.StartedAt).Seconds()
	if err := a.lease.Check(ctx); err != nil {
		return err
	}
	return a.opts.Repo.PutManifest(ctx, m)
}
