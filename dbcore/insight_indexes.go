package dbcore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MissingIndex is a table that is read from end to end so often that an index may be missing.
type MissingIndex struct {
	Schema, Table string
	// Rows is the server's estimate of the live rows, Bytes the table's size without indexes and TOAST.
	Rows, Bytes int64
	// SeqScans is how often it was read sequentially, SeqRows how many rows that read altogether; IndexScans how often an
	// index was used.
	SeqScans, SeqRows, IndexScans int64
	// Writes is how many rows were inserted, updated and deleted. Each costs an entry in each new index.
	Writes int64
	// StatsAge is for how long the counters run; 0 if that is not known.
	StatsAge time.Duration
	// ForeignKeys are the columns of foreign keys of this table that no index begins with: whoever deletes or changes a row
	// they refer to reads the whole table.
	ForeignKeys []string
	// Score orders the list: bytes read by sequential scans, less the more is written.
	Score float64
	// Reason says why it is in the list, and what speaks against an index.
	Reason string
}

// A table below these is read as quickly without an index, or there is too little to judge by.
const (
	minTableBytes = 1 << 20
	minTableRows  = 1000
	minSeqScans   = 10
)

type tableRow struct {
	Schema, Table                 string
	Rows, Bytes                   int64
	SeqScans, SeqRows, IndexScans int64
	Writes                        int64
	ForeignKeys                   []string
}

const tablesSQL = `select s.schemaname as schema, s.relname as table, s.n_live_tup as rows, pg_relation_size(s.relid) as bytes,
	coalesce(s.seq_scan, 0) as seq_scans, coalesce(s.seq_tup_read, 0) as seq_rows, coalesce(s.idx_scan, 0) as index_scans,
	s.n_tup_ins + s.n_tup_upd + s.n_tup_del as writes,
	array(select (select string_agg(a.attname, ', ' order by k.ord) from unnest(c.conkey) with ordinality k(attnum, ord)
			join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum)
		from pg_constraint c where c.conrelid = s.relid and c.contype = 'f' and not exists (
			select from pg_index i where i.indrelid = c.conrelid and i.indisvalid and i.indpred is null
			and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey and i.indnkeyatts >= cardinality(c.conkey))
		order by c.conname) as foreign_keys
from pg_stat_user_tables s`

// MissingIndexes returns the tables that want an index, those that would gain most first. On which columns it cannot tell,
// except for foreign keys: look at the statements (TopQueries) that read the table.
func MissingIndexes(ctx context.Context, q Querier) ([]MissingIndex, error) {
	var list []MissingIndex
	err := readOnly(ctx, q, "missing indexes", func(ctx context.Context, q Querier) error {
		since, err := One[statsSince](ctx, q, statsSinceSQL)
		if err != nil {
			return err
		}
		rows, err := Collect[tableRow](ctx, q, tablesSQL)
		if err != nil {
			return err
		}
		list = nil // the transaction may be repeated
		for _, r := range rows {
			if m, ok := r.judge(since); ok {
				list = append(list, m)
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b MissingIndex) int { return compareFloatsDown(a.Score, b.Score) })
	return list, err
}

func compareFloatsDown(a, b float64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

// judge says whether a table wants an index. Sequential scans count only if they read far more than an index would have:
// as many rows as the table has, again and again, and in more than a tenth of all scans.
func (r tableRow) judge(since statsSince) (MissingIndex, bool) {
	age, ageText := since.age()
	m := MissingIndex{
		Schema: r.Schema, Table: r.Table, Rows: r.Rows, Bytes: r.Bytes, SeqScans: r.SeqScans, SeqRows: r.SeqRows,
		IndexScans: r.IndexScans, Writes: r.Writes, StatsAge: age, ForeignKeys: r.ForeignKeys,
	}
	scanned := r.SeqScans >= minSeqScans && r.SeqRows >= minSeqScans*r.Rows && r.SeqScans*10 > r.IndexScans
	if r.Bytes < minTableBytes || r.Rows < minTableRows || !scanned && len(r.ForeignKeys) == 0 {
		return MissingIndex{}, false
	}
	readBytes := float64(r.SeqRows) * float64(r.Bytes) / float64(r.Rows)
	m.Score = readBytes / (1 + float64(r.Writes)/float64(r.Rows))
	var why []string
	if scanned {
		why = append(why, fmt.Sprintf("%d sequential scans (beside %d by index) read %d rows of a table of %d rows, %s", r.SeqScans, r.IndexScans, r.SeqRows, r.Rows, bytesText(r.Bytes)))
	}
	for _, fk := range r.ForeignKeys {
		why = append(why, fmt.Sprintf("no index begins with the foreign key (%s), so every delete of a row it refers to reads all of %s", fk, bytesText(r.Bytes)))
	}
	why = append(why, fmt.Sprintf("%d rows written, each of which an index makes dearer", r.Writes), "counted "+ageText, since.elsewhere())
	m.Reason = strings.Join(why, "; ")
	return m, true
}

// UnusedIndexReport is what UnusedIndexes returns.
type UnusedIndexReport struct {
	// StatsAge is for how long the counters run; 0 if that is not known. Do not drop an index for what a month end may need.
	StatsAge time.Duration
	// Standbys is how many standbys are connected. What they read is counted by them alone.
	Standbys int
	// InRecovery says that this server is a standby, so that its primary's use of the indexes is not in it.
	InRecovery bool
	// Indexes is the list, largest first.
	Indexes []UnusedIndex
}

// UnusedIndex is an index that no scan has used.
type UnusedIndex struct {
	Schema, Table, Index string
	Bytes                int64
	// Definition is the statement that makes it again.
	Definition string
	Reason     string
}

// UnusedIndexes returns the indexes that nothing has used since the counters began. Those that do other work are not in
// it: unique ones, those of constraints and exclusions, replica identities, and indexes of partitions that belong to one
// of the partitioned table. An index that was made a moment ago is in it: the server does not know its age.
func UnusedIndexes(ctx context.Context, q Querier) (*UnusedIndexReport, error) {
	var report *UnusedIndexReport
	err := readOnly(ctx, q, "unused indexes", func(ctx context.Context, q Querier) error {
		since, err := One[statsSince](ctx, q, statsSinceSQL)
		if err != nil {
			return err
		}
		rows, err := Collect[UnusedIndex](ctx, q, `select s.schemaname as schema, s.relname as table, s.indexrelname as index,
			pg_relation_size(s.indexrelid) as bytes, pg_get_indexdef(s.indexrelid) as definition, s.writes::text as reason -- finished below
		from (select u.*, t.n_tup_ins + t.n_tup_upd + t.n_tup_del as writes from pg_stat_user_indexes u join pg_stat_user_tables t using (relid)) s
		join pg_index i on i.indexrelid = s.indexrelid
		where s.idx_scan = 0 and i.indisvalid and not (i.indisunique or i.indisprimary or i.indisexclusion or i.indisreplident)
			and not exists (select from pg_constraint c where c.conindid = s.indexrelid)
			and not exists (select from pg_inherits h where h.inhrelid = s.indexrelid)
		order by bytes desc, s.indexrelid`)
		if err != nil {
			return err
		}
		age, ageText := since.age()
		report = &UnusedIndexReport{StatsAge: age, Standbys: since.Standbys, InRecovery: since.InRecovery, Indexes: rows}
		for i := range rows {
			r := &rows[i]
			r.Reason = fmt.Sprintf("no scan has used it, counted %s; it takes %s and a part of each of the table's %s writes; %s", ageText, bytesText(r.Bytes), r.Reason, since.elsewhere())
		}
		return nil
	})
	return report, err
}
