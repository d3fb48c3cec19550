package dbcore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// TopBy is what TopQueries sorts by.
type TopBy int

// The orders.
const (
	// TopByTotal: the time of all calls together. What to look at first.
	TopByTotal TopBy = iota
	// TopByMean: the time of one call.
	TopByMean
	// TopByIO: the time spent on reading and writing if the server measures that (track_io_timing), else the number of
	// blocks that were not found in its cache, or written.
	TopByIO
)

// QueryReport is what TopQueries returns.
type QueryReport struct {
	// Since is when the counting began; zero if the server's extension does not say.
	Since time.Time
	// Evicted is how often rarely run statements were forgotten because of pg_stat_statements.max: above 0 the list may
	// lack some.
	Evicted int64
	// Queries is the list, at most as long as asked for.
	Queries []QueryStats
}

// QueryStats is one kind of statement, with its constants taken out.
type QueryStats struct {
	QueryID        int64
	Database, User string
	// Text is "<insufficient privilege>" for other users' statements if the role is not in pg_read_all_stats.
	Text             string
	Calls, Rows      int64
	Total, Mean, Max time.Duration
	// BlocksHit were found in the server's cache, BlocksRead were not; TempBlocks were read from and written to temporary
	// files. All of the server's block size.
	BlocksHit, BlocksRead, BlocksWritten, TempBlocks int64
	// IOTime is the time that reading and writing took; 0 if the server does not measure it.
	IOTime time.Duration
	// WALBytes is what it wrote to the log.
	WALBytes int64
	// Share is its part of the sum over all statements of what the list is sorted by, from 0 to 1; for TopByMean of the
	// total time.
	Share float64
	// Reason says why it is in the list.
	Reason string
}

// TopQueries returns the n statements (0: 20) of all databases that cost most, as pg_stat_statements has counted them.
//
// Without that extension, or if its library was not loaded at the server's start, the error is
// ErrInsightUnavailable and says what to do.
func TopQueries(ctx context.Context, q Querier, by TopBy, n int) (*QueryReport, error) {
	if n <= 0 {
		n = 20
	}
	var report *QueryReport
	err := readOnly(ctx, q, "top queries", func(ctx context.Context, q Querier) (err error) {
		report, err = topQueries(ctx, q, by, n)
		return err
	})
	return report, err
}

const statementsName = "pg_stat_statements"

func topQueries(ctx context.Context, q Querier, by TopBy, n int) (*QueryReport, error) {
	// The columns follow the extension's version, not the server's: after an upgrade of the server it stays old until
	// ALTER EXTENSION UPDATE.
	found, err := Collect[struct {
		Schema  string
		Columns []string
		HasInfo bool
	}](ctx, q, `select n.nspname as schema, array(select attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
			where c.relnamespace = n.oid and c.relname = $1 and a.attnum > 0) as columns,
		to_regclass(quote_ident(n.nspname) || '.pg_stat_statements_info') is not null as has_info
	from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = $1`, statementsName)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &InsightUnavailableError{
			What: statementsName, Reason: "the extension is not created in this database",
			Remedy: "put pg_stat_statements into shared_preload_libraries, restart the server, and run: CREATE EXTENSION pg_stat_statements",
		}
	}
	schema := pgx.Identifier{found[0].Schema}.Sanitize()
	rows, err := Collect[statementRow](ctx, q, statementsSQL(schema, found[0].Columns, by), n)
	if SQLState(err) == "55000" {
		return nil, &InsightUnavailableError{
			What: statementsName, Reason: "its library was not loaded when the server started", err: err,
			Remedy: "put pg_stat_statements into shared_preload_libraries and restart the server",
		}
	}
	if err != nil {
		return nil, err
	}
	report := &QueryReport{}
	for _, r := range rows {
		report.Queries = append(report.Queries, r.stats(by))
	}
	if found[0].HasInfo {
		info, err := One[struct {
			Dealloc    int64
			StatsReset *time.Time
		}](ctx, q, "select dealloc, stats_reset from "+schema+".pg_stat_statements_info")
		if err != nil {
			return nil, err
		}
		report.Evicted, report.Since = info.Dealloc, orZero(info.StatsReset)
	}
	return report, nil
}

type statementRow struct {
	QueryID          *int64 `db:"queryid"`
	Database, User   *string
	Text             *string
	Calls, Rows      int64
	Total, Mean, Max float64 // ms
	Hit, Read        int64
	Written, Temp    int64
	IOTime           float64 `db:"io_time"` // ms
	WALBytes         int64   `db:"wal_bytes"`
	Share            float64
}

// statementsSQL knows the names of the extension's versions: 1.8 (PostgreSQL 13) has blk_read_time, 1.10 (15) adds
// temp_blk_read_time, 1.11 (17) names the first shared_blk_read_time and adds local_blk_read_time.
func statementsSQL(schema string, columns []string, by TopBy) string {
	ioTime := "0"
	for _, c := range []string{"blk", "shared_blk", "local_blk", "temp_blk"} {
		if slices.Contains(columns, c+"_read_time") {
			ioTime += fmt.Sprintf(" + s.%[1]s_read_time + s.%[1]s_write_time", c)
		}
	}
	order, share := "total desc", "total"
	switch by {
	case TopByMean:
		order = "mean desc"
	case TopByIO:
		order, share = "io_time desc, read + written + temp desc", "case when sum(io_time) over () > 0 then io_time else read + written + temp end"
	}
	return fmt.Sprintf(`with s as (
	select s.queryid, d.datname as database, r.rolname as user, s.query as text, s.calls, s.rows,
		s.total_exec_time as total, s.mean_exec_time as mean, s.max_exec_time as max,
		s.shared_blks_hit + s.local_blks_hit as hit, s.shared_blks_read + s.local_blks_read as read,
		s.shared_blks_written + s.local_blks_written as written, s.temp_blks_read + s.temp_blks_written as temp,
		(%s)::float8 as io_time, s.wal_bytes::int8 as wal_bytes
	from %s.pg_stat_statements s left join pg_database d on d.oid = s.dbid left join pg_roles r on r.oid = s.userid
), w as (select s.*, (%s)::float8 as weight from s)
select queryid, database, "user", text, calls, rows, total, mean, max, hit, read, written, temp, io_time, wal_bytes,
	coalesce(weight / nullif(sum(weight) over (), 0), 0)::float8 as share
from w order by %s, queryid limit $1`, ioTime, schema, share, order)
}

func (r statementRow) stats(by TopBy) QueryStats {
	ms := func(f float64) time.Duration { return time.Duration(f * float64(time.Millisecond)) }
	s := QueryStats{
		QueryID: orZero(r.QueryID), Database: orZero(r.Database), User: orZero(r.User), Text: orZero(r.Text), Calls: r.Calls, Rows: r.Rows,
		Total: ms(r.Total), Mean: ms(r.Mean), Max: ms(r.Max), BlocksHit: r.Hit, BlocksRead: r.Read, BlocksWritten: r.Written,
		TempBlocks: r.Temp, IOTime: ms(r.IOTime), WALBytes: r.WALBytes, Share: r.Share,
	}
	switch by {
	case TopByMean:
		s.Reason = fmt.Sprintf("one call takes %s (at most %s), over %d calls", s.Mean, s.Max, s.Calls)
	case TopByIO:
		s.Reason = fmt.Sprintf("%d blocks read from outside the cache, %d written, %d of temporary files, over %d calls", s.BlocksRead, s.BlocksWritten, s.TempBlocks, s.Calls)
		if s.IOTime > 0 {
			s.Reason += fmt.Sprintf("; they took %s, %.0f %% of all such time", s.IOTime, s.Share*100)
		}
	default:
		s.Reason = fmt.Sprintf("%d calls took %s, %.0f %% of the time of all statements", s.Calls, s.Total, s.Share*100)
	}
	return s
}
