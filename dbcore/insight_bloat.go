package dbcore

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// BloatReport is what Bloat returns.
type BloatReport struct {
	// Tables has those of which much is estimated to be empty, most first.
	Tables []TableBloat
	// Unknown has the tables that cannot be estimated, because nobody has analyzed them or this role may not read them.
	Unknown []string
}

// TableBloat is an estimate: what the rows should need by the planner's statistics against what the table takes. It does
// not know how wide rows are spread, and is off by some percent on any table, and by more if the statistics are old.
// TOAST and indexes are not in it. The extension pgstattuple measures instead, at the price of reading.
type TableBloat struct {
	Schema, Table string
	// Bytes is what the table takes, Expected what its rows should need, Bloat the difference, and Share its part of Bytes.
	Bytes, Expected, Bloat int64
	Share                  float64
	// LiveRows and DeadRows are the server's own estimates; dead ones wait for VACUUM.
	LiveRows, DeadRows int64
	// LastVacuum is the last one, automatic or not; zero if there was none since the counters began.
	LastVacuum time.Time
	Reason     string
}

// Less than these is not worth a person's time.
const (
	minBloatBytes = 1 << 20
	minBloatShare = 0.2
)

type bloatRow struct {
	Schema, Table      string
	Bytes, BlockSize   int64
	Rows               float64 // pg_class.reltuples; -1 if never analyzed
	FillFactor         int64
	Columns, Known     int64
	Width              float64 // of a row's data
	Nullable           bool
	LiveRows, DeadRows int64
	LastVacuum         *time.Time
}

const bloatSQL = `select n.nspname as schema, c.relname as table, pg_relation_size(c.oid) as bytes, current_setting('block_size')::int8 as block_size,
	c.reltuples::float8 as rows,
	coalesce((select option_value::int8 from pg_options_to_table(c.reloptions) where option_name = 'fillfactor'), 100) as fill_factor,
	a.columns, coalesce(w.known, 0) as known, coalesce(w.width, 0)::float8 as width, coalesce(w.nullable, false) as nullable,
	coalesce(s.n_live_tup, 0) as live_rows, coalesce(s.n_dead_tup, 0) as dead_rows, greatest(s.last_vacuum, s.last_autovacuum) as last_vacuum
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_stat_all_tables s on s.relid = c.oid
	cross join lateral (select count(*) as columns from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
	left join lateral (select count(*) as known, sum(p.avg_width * (1 - p.null_frac)) as width, bool_or(p.null_frac > 0) as nullable
		from pg_stats p where p.schemaname = n.nspname and p.tablename = c.relname and not p.inherited) w on true
where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
	and pg_relation_size(c.oid) >= $1
order by 1, 2`

// Bloat estimates which tables are much larger than their rows. Small ones (below 1 MiB) are left out.
func Bloat(ctx context.Context, q Querier) (*BloatReport, error) {
	var report *BloatReport
	err := readOnly(ctx, q, "bloat", func(ctx context.Context, q Querier) error {
		rows, err := Collect[bloatRow](ctx, q, bloatSQL, minBloatBytes)
		if err != nil {
			return err
		}
		report = &BloatReport{}
		for _, r := range rows {
			if r.Rows < 0 || r.Rows > 0 && r.Known < r.Columns {
				report.Unknown = append(report.Unknown, r.Schema+"."+r.Table)
				continue
			}
			if b, ok := r.judge(); ok {
				report.Tables = append(report.Tables, b)
			}
		}
		slices.SortFunc(report.Tables, func(a, b TableBloat) int { return compareFloatsDown(float64(a.Bloat), float64(b.Bloat)) })
		return nil
	})
	return report, err
}

// expected is what the rows should need. A page has a header of 24 bytes; a row has a pointer of 4 and a header of 23,
// with a bit per column if there are NULLs, and header and data each begin at a multiple of 8 (section 73.6, "Database
// Page Layout").
func (r bloatRow) expected() int64 {
	align := func(n float64) float64 { return float64((int64(n+0.999) + 7) / 8 * 8) }
	header := 23.0
	if r.Nullable {
		header += float64((r.Columns + 7) / 8)
	}
	row := 4 + align(header) + align(r.Width)
	perPage := max(1, float64(int64(float64((r.BlockSize-24)*r.FillFactor/100)/row)))
	pages := int64(r.Rows/perPage + 0.999)
	return pages * r.BlockSize
}

func (r bloatRow) judge() (TableBloat, bool) {
	b := TableBloat{
		Schema: r.Schema, Table: r.Table, Bytes: r.Bytes, Expected: r.expected(), LiveRows: r.LiveRows, DeadRows: r.DeadRows,
		LastVacuum: orZero(r.LastVacuum),
	}
	b.Bloat = max(0, b.Bytes-b.Expected)
	if b.Bytes == 0 || b.Bloat < minBloatBytes || float64(b.Bloat) < minBloatShare*float64(b.Bytes) {
		return TableBloat{}, false
	}
	b.Share = float64(b.Bloat) / float64(b.Bytes)
	b.Reason = fmt.Sprintf("it takes %s where its rows should need about %s: %.0f %% is dead rows or free space", bytesText(b.Bytes), bytesText(b.Expected), b.Share*100)
	if b.DeadRows > 0 {
		b.Reason += fmt.Sprintf("; %d dead rows wait for VACUUM", b.DeadRows)
	}
	if b.LastVacuum.IsZero() {
		b.Reason += "; no VACUUM is on record"
	}
	b.Reason += "; VACUUM makes the space usable again, only VACUUM FULL (which locks) or pg_repack gives it back"
	return b, true
}
