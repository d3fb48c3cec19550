package basebackup

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"lifeboat/dbcore"
	"lifeboat/internal/wal"
)

// WALTimeoutError says that the backup's WAL did not come into the repository. The backup was not made visible.
type WALTimeoutError struct {
	Missing *wal.MissingError
	Command string // the server's archive_command or archive_library, without what may be secret
	Failure string // what pg_stat_archiver knows of the last failure; may be empty
}

// Error names the segment, the setting and the remedy.
func (e *WALTimeoutError) Error() string {
	s := fmt.Sprintf("the backup was not published, because without its WAL it could not be restored: %v (archive_command is %q)", e.Missing, e.Command)
	if e.Failure != "" {
		s += "; " + e.Failure
	}
	return s
}

// Unwrap gives the missing segment.
func (e *WALTimeoutError) Unwrap() error { return e.Missing }

// waitForWAL waits until every segment from start to stop is in the repository.
func (a *attempt) waitForWAL(ctx context.Context) error {
	m := a.manifest
	err := wal.Wait(ctx, wal.WaitOptions{
		Repo: a.opts.Repo, Cluster: a.opts.Cluster, Timeline: m.Timeline, From: m.StartLSN, To: m.StopLSN,
		SegmentSize: m.WALSegmentSize, Patience: a.opts.WALTimeout, Progress: func(done, total int64, awaited string) {
			a.opts.Progress(Progress{Phase: "wal", Done: done, Total: total, Waiting: "WAL segment " + awaited})
		},
	})
	var missing *wal.MissingError
	if errors.As(err, &missing) {
		return &WALTimeoutError{Missing: missing, Command: WithoutSecrets(a.server.ArchiveCommand + a.server.ArchiveLibrary), Failure: a.archiverFailure(ctx)}
	}
	return err
}

// The places in a command line where people put secrets: assignments before the program, options whose name gives
// their value away, and the user part of a URL. The command of another tool may stand there, from before Lifeboat.
var (
	secretValue = regexp.MustCompile(`(?i)(\b\w+=|--?[\w-]*(?:pass|key|secret|token)[\w-]*[= ]+)("[^"]*"|'[^']*'|\S+)`)
	secretUser  = regexp.MustCompile(`://[^\s/@]+@`)
)

// WithoutSecrets makes a command, such as archive_command, fit for messages, which go far.
func WithoutSecrets(command string) string {
	return secretUser.ReplaceAllString(secretValue.ReplaceAllString(command, "${1}…"), "://…@")
}

// archiverFailure asks the server why; it is only for the message.
func (a *attempt) archiverFailure(ctx context.Context) string {
	conn, err := dbcore.Connect(ctx, a.opts.Server)
	if err != nil {
		return ""
	}
	defer conn.Close()
	text, err := dbcore.One[*string](ctx, conn, `select 'pg_stat_archiver: ' || failed_count || ' failures, the last with ' ||
		last_failed_wal || ' at ' || last_failed_time from pg_stat_archiver where failed_count > 0
		and (last_archived_time is null or last_failed_time > last_archived_time)`)
	if err != nil || text == nil {
		return ""
	}
	return *text
}
