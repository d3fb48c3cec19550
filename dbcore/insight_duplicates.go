package dbcore

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// DuplicateIndex is an index whose work another one of the same table does as well.
type DuplicateIndex struct {
	Schema, Table string
	// Index can go, as far as its definition tells; CoveredBy does its work.
	Index, CoveredBy string
	// Prefix says that Index's columns are the first ones of CoveredBy, and not all of them.
	Prefix bool
	// Bytes is Index's size, Scans how often it was used.
	Bytes, Scans int64
	// Definition is the statement that makes Index again.
	Definition string
	Reason     string
}

// indexShape is what decides whether one index can do the work of another.
type indexShape struct {
	Schema, Table, Index, Definition string
	ID                               int64
	Bytes, Scans                     int64
	Method                           string
	Keys                             []string // columns or expressions
	Included                         []string // columns
	Classes, Collations              []string // one per key, as are Options
	Options                          []string // descending, nulls first
	Predicate                        string
	// Unique and what it depends on; Needed says that a constraint, a replica identity or a partitioned index hangs on it.
	Unique, Immediate, NullsEqual, Needed, Valid bool
}

const indexShapesSQL = `select n.nspname as schema, t.relname as table, x.relname as index, pg_get_indexdef(x.oid) as definition, x.oid::int8 as id,
	pg_relation_size(x.oid) as bytes, coalesce(s.idx_scan, 0) as scans, m.amname as method,
	array(select pg_get_indexdef(x.oid, k, false) from generate_series(1, i.indnkeyatts) k) as keys,
	array(select pg_get_indexdef(x.oid, k, false) from generate_series(i.indnkeyatts + 1, i.indnatts) k) as included,
	string_to_array(i.indclass::text, ' ') as classes, string_to_array(i.indcollation::text, ' ') as collations,
	string_to_array(i.indoption::text, ' ') as options, coalesce(pg_get_expr(i.indpred, i.indrelid), '') as predicate,
	i.indisunique as unique, i.indimmediate as immediate, i.indnullsnotdistinct as nulls_equal, i.indisvalid as valid,
	i.indisprimary or i.indisexclusion or i.indisreplident or exists (select from pg_constraint c where c.conindid = x.oid)
		or exists (select from pg_inherits h where h.inhrelid = x.oid) as needed
from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class t on t.oid = i.indrelid join pg_namespace n on n.oid = t.relnamespace
	join pg_am m on m.oid = x.relam left join pg_stat_all_indexes s on s.indexrelid = x.oid
where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast' and x.relkind = 'i'
order by x.oid`

// DuplicateIndexes returns the indexes that are the same as another, or whose columns another one begins with, largest
// first. What a constraint, a replica identity or a partitioned index hangs on is never among them, nor is a unique index
// that no other unique index replaces.
func DuplicateIndexes(ctx context.Context, q Querier) ([]DuplicateIndex, error) {
	var list []DuplicateIndex
	err := readOnly(ctx, q, "duplicate indexes", func(ctx context.Context, q Querier) error {
		shapes, err := Collect[indexShape](ctx, q, indexShapesSQL)
		if err != nil {
			return err
		}
		list = duplicates(shapes)
		return nil
	})
	return list, err
}

// duplicates finds for each index one that covers it. Of two that cover each other the one to stay is a needed, then a
// unique one, then the more used, then the older; the other is told.
func duplicates(shapes []indexShape) []DuplicateIndex {
	var list []DuplicateIndex
	for _, a := range shapes {
		for _, b := range shapes {
			if !covers(b, a) || covers(a, b) && stays(a, b) {
				continue
			}
			list = append(list, DuplicateIndex{
				Schema: a.Schema, Table: a.Table, Index: a.Index, CoveredBy: b.Index, Prefix: len(a.Keys) < len(b.Keys),
				Bytes: a.Bytes, Scans: a.Scans, Definition: a.Definition, Reason: duplicateReason(a, b),
			})
			break
		}
	}
	slices.SortStableFunc(list, func(a, b DuplicateIndex) int { return compareFloatsDown(float64(a.Bytes), float64(b.Bytes)) })
	return list
}

func duplicateReason(a, b indexShape) string {
	what := "it has the same columns as " + b.Index
	if len(a.Keys) < len(b.Keys) {
		what = fmt.Sprintf("its columns (%s) are the first of %s (%s)", strings.Join(a.Keys, ", "), b.Index, strings.Join(b.Keys, ", "))
	}
	return fmt.Sprintf("%s; it takes %s and was used by %d scans, which %s can serve (%s)", what, bytesText(a.Bytes), a.Scans, b.Index, bytesText(b.Bytes))
}

// stays says which of two equal ones is kept.
func stays(a, b indexShape) bool {
	switch {
	case a.Needed != b.Needed:
		return a.Needed
	case a.Unique != b.Unique:
		return a.Unique
	case a.Scans != b.Scans:
		return a.Scans > b.Scans
	}
	return a.ID < b.ID
}

// covers says that b does all of a's work.
func covers(b, a indexShape) bool {
	switch {
	case a.ID == b.ID, a.Schema != b.Schema, a.Table != b.Table, a.Method != b.Method, a.Predicate != b.Predicate:
		return false
	case a.Needed, !b.Valid:
		return false
	case a.Unique && (!b.Unique || len(a.Keys) != len(b.Keys) || a.NullsEqual != b.NullsEqual || a.Immediate && !b.Immediate):
		return false // b would let in what a keeps out
	case len(a.Keys) > len(b.Keys), len(a.Keys) < len(b.Keys) && a.Method != "btree":
		return false
	}
	n := len(a.Keys)
	for _, pair := range [][2][]string{{a.Keys, b.Keys}, {a.Classes, b.Classes}, {a.Collations, b.Collations}, {a.Options, b.Options}} {
		if !slices.Equal(pair[0][:n], pair[1][:n]) {
			return false
		}
	}
	for _, c := range a.Included {
		if !slices.Contains(b.Included, c) && !slices.Contains(b.Keys, c) {
			return false
		}
	}
	return true
}
