package basebackup

import (
	"context"
	"fmt"
	"io"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

const (
	controlFile  = "global/pg_control"
	manifestFile = "backup_manifest"
	labelFile    = "backup_label"
)

// copyFiles stores all files of the server, from the one moment at which it is in backup mode to the one at which it is
// not (R6). A source is a function that does that: it calls begin once the start LSN is known, report, file (or
// writer.Add) for everything that BASE_BACKUP would send, backup_label, pg_control and backup_manifest among it, and
// sets the stop position.
func (a *attempt) copyFiles(ctx context.Context) error {
	a.opts.Progress(Progress{Phase: "checkpoint", Waiting: "the server's checkpoint"})
	source := a.stream
	if a.opts.DataDirectory != "" {
		source = a.local
	}
	if err := source(ctx); err != nil {
		return err
	}
	return a.complete()
}

// begin notes where replay of this backup begins. tablespaces are those beside pg_default and pg_global.
func (a *attempt) begin(start pg.LSN, timeline pg.Timeline, tablespaces []repo.Tablespace) {
	a.manifest.StartLSN, a.manifest.Timeline, a.manifest.Tablespaces = start, timeline, tablespaces
	a.opts.Logger.Info("backup began", "cluster", a.opts.Cluster, "backup", a.manifest.BackupID, "startLsn", a.manifest.StartLSN)
}

// report gives progress at once, ten times a second, and when it is stopped. total is an estimate in bytes.
func (a *attempt) report(total int64) (stop func()) {
	show := func() { a.opts.Progress(Progress{Phase: "copy", Done: a.writer.Stats().SourceBytes, Total: total}) }
	show()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended; show() }
}

// file stores one file. Sources that read in parallel call it concurrently, for different files.
func (a *attempt) file(ctx context.Context, e repo.Entry, r io.Reader) error {
	fw, err := a.writer.File(ctx, e)
	if err != nil {
		return err
	}
	if _, err := fw.ReadFrom(r); err != nil {
		return err
	}
	return fw.Close()
}

// controlled takes what was stored as pg_control.
func (a *attempt) controlled(content []byte) (err error) {
	if a.control, err = pg.ParseControlFile(content); err != nil {
		return fmt.Errorf("read %s: %w", controlFile, err)
	}
	return nil
}

// complete checks that nothing that makes the files a backup is missing.
func (a *attempt) complete() error {
	m := a.manifest
	m.StopLSN = pg.LSN(a.stop.LSN)
	switch {
	case a.control == nil:
		return fmt.Errorf("the backup got no %s", controlFile)
	case !a.label:
		return fmt.Errorf("the backup got no %s: recovery would not know where to begin", labelFile)
	case !m.HasBackupManifest():
		return fmt.Errorf("the backup got no %s", manifestFile)
	case a.control.SystemID != m.SystemID:
		return fmt.Errorf("%s is of system %d, the server said %d", controlFile, a.control.SystemID, m.SystemID)
	case pg.Timeline(a.stop.Timeline) != m.Timeline:
		return fmt.Errorf("the server changed from timeline %d to %d during the backup: take a new one", m.Timeline, a.stop.Timeline)
	case m.StopLSN <= m.StartLSN:
		return fmt.Errorf("the backup ends at %v, before its start at %v", m.StopLSN, m.StartLSN)
	}
	c := a.control
	m.MaxConnections, m.MaxWorkerProcesses = int32(c.MaxConnections), int32(c.MaxWorkerProcesses)
	m.MaxWALSenders, m.MaxPreparedXacts = int32(c.MaxWALSenders), int32(c.MaxPreparedXacts)
	m.MaxLocksPerXact = int32(c.MaxLocksPerXact)
	return nil
}
