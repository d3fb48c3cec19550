package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
)

// DirectoryError says that a data directory cannot be the source of a backup. Trying again does not help before
// somebody changes that.
type DirectoryError struct {
	// Path is the directory, or what in it is wrong.
	Path string
	// Reason is what is wrong, Hint the remedy.
	Reason, Hint string
	// Foreign says that the directory is there and belongs to another server than the one that was asked.
	Foreign bool
	err     error
}

// Error is path, reason and remedy.
func (e *DirectoryError) Error() string {
	return fmt.Sprintf("data directory %s: %s; %s", e.Path, e.Reason, e.Hint)
}

// Remedy is what to do about it.
func (e *DirectoryError) Remedy() string { return e.Hint }

// Unwrap gives the cause, if there is one.
func (e *DirectoryError) Unwrap() error { return e.err }

// accessError explains what a person can mend of a failure to read the server's files, and leaves others as they are.
func accessError(dir string, err error) error {
	path := dir
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		path = p.Path
	}
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return &DirectoryError{
		Path: path, Reason: "this process may not read it", err: err,
		Hint: "run Lifeboat as the server's own user (usually postgres), or let a group read (initdb --allow-group-access, " +
			"or chmod -R g+rX by hand for files of others), or empty data_directory to back up by the replication protocol",
	}
}

// patience is how long something is looked at again that changes under a running server, and pause is the time between
// two looks. patience is a variable for tests.
var patience = 5 * time.Second

const pause = 50 * time.Millisecond

// again asks until the answer is true, an error, or the time is over, which is false.
func again(ctx context.Context, ask func() (bool, error)) (bool, error) {
	end := time.Now().Add(patience)
	for {
		if ok, err := ask(); ok || err != nil {
			return ok, err
		}
		if time.Now().After(end) {
			return false, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// LookForDirectory tells whether a data directory is on this host at all: a *DirectoryError says that it is not.
func LookForDirectory(dir string) error {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(controlFile)))
	if errors.Is(err, fs.ErrNotExist) {
		return notHere(dir, err)
	}
	return nil // whether it may be read is seen when it is
}

// CheckDirectory tells whether a directory can be read and is the one that the server at q runs on, as far as can be told
// without a checkpoint. What is wrong is a *DirectoryError.
func CheckDirectory(ctx context.Context, q dbcore.Querier, dir string) error {
	_, err := proveDirectory(ctx, q, dir, 0)
	return err
}

func notHere(dir string, err error) error {
	return &DirectoryError{
		Path: dir, Reason: "there is none on this host, for it has no " + controlFile, err: err,
		Hint: "data_directory is for where Lifeboat runs beside the server: run it there, correct the path, or empty it to back " +
			"up by the replication protocol",
	}
}

// controlOf is a data directory's pg_control.
type controlOf struct {
	raw  []byte
	info fs.FileInfo
	*pg.ControlData
}

// readControl reads global/pg_control until its checksum holds: the server writes it in place (R6).
func readControl(ctx context.Context, dir string) (*controlOf, error) {
	path := filepath.Join(dir, filepath.FromSlash(controlFile))
	var c controlOf
	var torn error
	ok, err := again(ctx, func() (bool, error) {
		var err error
		if c.info, err = os.Stat(path); err != nil {
			return false, err
		}
		if c.raw, err = os.ReadFile(path); err != nil {
			return false, err
		}
		c.ControlData, err = pg.ParseControlFile(c.raw)
		if errors.Is(err, pg.ErrControlCRC) {
			torn = err
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notHere(dir, err)
	case err != nil:
		return nil, accessError(dir, err)
	case !ok:
		return nil, fmt.Errorf("read %s for %v: %w", path, patience, torn)
	}
	return &c, nil
}

// serverControl is what the server says of its own pg_control: functions that everyone may call, which read the file.
type serverControl struct {
	SystemID      string  `db:"system_id"`
	Modified      int64   `db:"modified"`
	CheckpointLSN string  `db:"checkpoint_lsn"`
	RedoLSN       string  `db:"redo_lsn"`
	Timeline      int64   `db:"timeline"`
	DataDirectory *string `db:"data_directory"` // null for a role that may not see it
}

const serverControlQuery = `
	select s.system_identifier::text as system_id, extract(epoch from s.pg_control_last_modified)::bigint as modified,
	       c.checkpoint_lsn::text as checkpoint_lsn, c.redo_lsn::text as redo_lsn, c.timeline_id::bigint as timeline,
	       (select setting from pg_settings where name = 'data_directory') as data_directory
	  from pg_control_system() s, pg_control_checkpoint() c`

func (s *serverControl) isOf(c *pg.ControlData) bool {
	return s.SystemID == c.SystemID.String() && s.Modified == c.Modified.Unix() && s.CheckpointLSN == c.Checkpoint.LSN.String() &&
		s.RedoLSN == c.Checkpoint.Redo.String() && s.Timeline == int64(c.Checkpoint.Timeline)
}

// proveDirectory makes sure that a directory is the one that the server at q runs on, and returns its pg_control. The
// system identifier alone proves little: clones, standbys and copies have the same. What the server reads out of its own
// pg_control must be what is in the file here; paths are no proof, for a container sees the same directory elsewhere.
// It is asked again after pg_backup_start has made a checkpoint at since (0: not yet), which no copy has.
func proveDirectory(ctx context.Context, q dbcore.Querier, dir string, since pg.LSN) (*controlOf, error) {
	var c *controlOf
	var s serverControl
	same, err := again(ctx, func() (ok bool, err error) {
		if c, err = readControl(ctx, dir); err != nil {
			return false, err
		}
		if s, err = dbcore.One[serverControl](ctx, q, serverControlQuery); err != nil {
			return false, fmt.Errorf("ask the server for its pg_control: %w", err)
		}
		if s.SystemID != c.SystemID.String() {
			return false, foreign(dir, s, fmt.Sprintf("it is of system identifier %v, the server's is %s", c.SystemID, s.SystemID))
		}
		return s.isOf(c.ControlData) && c.Checkpoint.Redo >= since, nil // else there may have been a checkpoint in between
	})
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, foreign(dir, s, fmt.Sprintf("it is a copy, a standby or another clone of the server's: its last checkpoint is at %v, the server's at %s",
			c.Checkpoint.LSN, s.CheckpointLSN))
	}
	return c, nil
}

func foreign(dir string, s serverControl, reason string) error {
	hint := "set data_directory to the one that the server in the dsn runs on"
	if s.DataDirectory != nil {
		hint += ", which is " + *s.DataDirectory + " as the server says"
	}
	return &DirectoryError{Path: dir, Reason: reason, Hint: hint, Foreign: true}
}
