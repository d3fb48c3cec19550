package basebackup

import (
	"context"
	"fmt"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
)

// WALTimeoutError says that the backup's WAL did not come into the repository. The backup was not made visible.
type WALTimeoutError struct {
	Missing string // the first missing segment
	Waited  time.Duration
	Command string // the server's archive_command
	Failure string // what pg_stat_archiver knows of the last failure; may be empty
}

// Error names the segment, the setting and the remedy.
func (e *WALTimeoutError) Error() string {
	s := fmt.Sprintf("WAL segment %s did not reach the repository within %v, so the backup cannot be restored and was not published: "+
		"see that archive_command runs `lifeboat wal-push %%p --cluster NAME` successfully (it is %q)", e.Missing, e.Waited, e.Command)
	if e.Failure != "" {
		s += "; " + e.Failure
	}
	return s + "; its own messages are in the server's log"
}

// waitForWAL waits until every segment from start to stop is in the repository, as the repository itself says. The
// time counts from the last segment that came.
func (a *attempt) waitForWAL(ctx context.Context) error {
	size := a.manifest.WALSegmentSize
	next := pg.SegmentOf(a.manifest.Timeline, a.manifest.StartLSN, size)
	last := pg.SegmentOf(a.manifest.Timeline, a.manifest.StopLSN-1, size)
	total := int64(last.Number-next.Number+1) * int64(size)
	progress := time.Now()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		found, err := a.present(ctx, next, last)
		if err != nil {
			return err
		}
		if found > 0 {
			next.Number += found
			progress = time.Now()
		}
		if next.Number > last.Number {
			return nil
		}
		name := next.Name(size)
		a.opts.Progress(Progress{Phase: "wal", Done: total - int64(last.Number-next.Number+1)*int64(size), Total: total,
			Waiting: "WAL segment " + name})
		if time.Since(progress) > a.opts.WALTimeout {
			return &WALTimeoutError{Missing: name, Waited: a.opts.WALTimeout, Command: a.server.ArchiveCommand + a.server.ArchiveLibrary,
				Failure: a.archiverFailure(ctx)}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// present counts the segments that are there from first on without a gap, up to last.
func (a *attempt) present(ctx context.Context, first, last pg.Segment) (uint64, error) {
	size := a.manifest.WALSegmentSize
	after := ""
	if first.Number > 0 {
		after = pg.Segment{Timeline: first.Timeline, Number: first.Number - 1}.Name(size)
	}
	var found uint64
	for name, err := range a.opts.Repo.WALNames(ctx, a.opts.Cluster, first.Timeline, after) {
		if err != nil {
			return 0, err
		}
		want := pg.Segment{Timeline: first.Timeline, Number: first.Number + found}
		if want.Number > last.Number || name > want.Name(size) {
			break
		}
		if name == want.Name(size) {
			found++
		}
	}
	return found, nil
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
