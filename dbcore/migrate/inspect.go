package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"lifeboat/dbcore"
)

// outcome is what became of a statement outside a transaction, as the catalogs show it.
type outcome string

const (
	finished outcome = "done"
	notRun   outcome = "not-run"  // nothing of it is there: it can be run (again)
	leftover outcome = "leftover" // it left half of its work, which sql ends
	underway outcome = "running"  // a session is at it
	unknown  outcome = "unknown"  // the catalogs cannot tell
)

type inspection struct {
	outcome  outcome
	evidence string
	sql      []string
	after    outcome // what the statement is once sql has run
}

// inspect asks the catalogs. before are the indexes that were there when the statement began, nil if nobody knows.
func inspect(ctx context.Context, q dbcore.Querier, st *stmt, before []int64) (inspection, error) {
	if st.node == nil {
		return inspection{outcome: unknown, evidence: "the grammar does not know the statement"}, nil
	}
	switch v := st.node.Node.(type) {
	case *pgquery.Node_IndexStmt:
		return inspectCreateIndex(ctx, q, st, v.IndexStmt, before)
	case *pgquery.Node_ReindexStmt:
		return inspectReindex(ctx, q, st, before)
	case *pgquery.Node_DropStmt:
		return inspectDropIndex(ctx, q, v.DropStmt)
	case *pgquery.Node_AlterTableStmt:
		return inspectDetach(ctx, q, v.AlterTableStmt)
	case *pgquery.Node_DropdbStmt:
		return inspectDropDatabase(ctx, q, v.DropdbStmt.Dbname)
	case *pgquery.Node_VacuumStmt, *pgquery.Node_ClusterStmt, *pgquery.Node_AlterSystemStmt:
		return inspection{outcome: notRun, evidence: st.kind.name + " does no harm when it is run again"}, nil
	}
	return inspection{outcome: unknown, evidence: "the catalogs do not show whether " + st.kind.name + " was run"}, nil
}

func inspectCreateIndex(ctx context.Context, q dbcore.Querier, st *stmt, v *pgquery.IndexStmt, before []int64) (inspection, error) {
	if in, busy, err := inspectBusy(ctx, q, st); busy || err != nil {
		return in, err
	}
	list, err := indexesOf(ctx, q, st)
	if err != nil {
		return inspection{}, err
	}
	var found []index
	for _, x := range list {
		if (v.Idxname != "" && x.Plain == v.Idxname) || (v.Idxname == "" && before != nil && !slices.Contains(before, x.OID)) {
			found = append(found, x)
		}
	}
	switch {
	case len(found) == 0 && v.Idxname == "" && before == nil:
		return inspection{outcome: unknown, evidence: "the index has no name, and nobody knows which ones there were before"}, nil
	case len(found) == 0:
		return inspection{outcome: notRun, evidence: fmt.Sprintf("there is no index %s on %s", v.Idxname, quotedVar(v.Relation))}, nil
	case len(found) > 1:
		return inspection{outcome: unknown, evidence: fmt.Sprintf("%d indexes were added to %s meanwhile", len(found), quotedVar(v.Relation))}, nil
	case !found[0].Valid:
		return invalidIndexes(found), nil
	case slices.Contains(before, found[0].OID) && !v.IfNotExists:
		return inspection{outcome: notRun, evidence: found[0].Name + " was there before"}, nil
	}
	return inspection{outcome: finished, evidence: found[0].Name + " is there and valid"}, nil
}

// invalidIndexes proposes to drop them.
func invalidIndexes(list []index) inspection {
	in := inspection{outcome: leftover, after: notRun}
	names := make([]string, len(list))
	for i, x := range list {
		names[i] = x.Name
		in.sql = append(in.sql, "drop index concurrently if exists "+x.Name)
	}
	in.evidence = "INVALID index " + strings.Join(names, ", ") + ", which costs writes and serves no query"
	return in
}

// inspectBusy says whether a client is building an index on the statement's table right now: it holds SHARE UPDATE
// EXCLUSIVE there, and its index is INVALID until it ends.
func inspectBusy(ctx context.Context, q dbcore.Querier, st *stmt) (inspection, bool, error) {
	if len(st.kind.tables) == 0 {
		return inspection{}, false, nil
	}
	pids, err := dbcore.Collect[int](ctx, q, `select l.pid::int from pg_locks l join pg_stat_activity a using (pid)
		where l.relation = to_regclass($1) and l.granted and l.mode = 'ShareUpdateExclusiveLock' and l.pid <> pg_backend_pid()
		and a.backend_type = 'client backend'`, quoted(st.kind.tables[0]))
	if err != nil {
		return inspection{}, false, fmt.Errorf("ask who is at work on %s: %w", st.kind.tables[0], err)
	}
	if len(pids) == 0 {
		return inspection{}, false, nil
	}
	return inspection{outcome: underway, evidence: fmt.Sprintf("process %d is at work on %s", pids[0], st.kind.tables[0])}, true, nil
}

// inspectReindex looks for the INVALID indexes (_ccnew, _ccold) that a concurrent rebuild leaves. Rebuilding again does no
// harm.
func inspectReindex(ctx context.Context, q dbcore.Querier, st *stmt, before []int64) (inspection, error) {
	if in, busy, err := inspectBusy(ctx, q, st); busy || err != nil {
		return in, err
	}
	list, err := indexesOf(ctx, q, st)
	if err != nil {
		return inspection{}, err
	}
	var found []index
	for _, x := range list {
		if !x.Valid && before != nil && !slices.Contains(before, x.OID) {
			found = append(found, x)
		}
	}
	if len(found) > 0 {
		return invalidIndexes(found), nil
	}
	return inspection{outcome: notRun, evidence: "REINDEX does no harm when it is run again"}, nil
}

func inspectDropIndex(ctx context.Context, q dbcore.Querier, v *pgquery.DropStmt) (inspection, error) {
	name := quoted(relationOfList(v.Objects[0]))
	valid, err := dbcore.One[bool](ctx, q, "select indisvalid from pg_index where indexrelid = to_regclass($1)", name)
	switch {
	case errors.Is(err, dbcore.ErrNoRows):
		return inspection{outcome: finished, evidence: "there is no index " + name}, nil
	case err != nil:
		return inspection{}, fmt.Errorf("look for index %s: %w", name, err)
	case !valid:
		return inspection{outcome: notRun, evidence: name + " is INVALID: dropping it again ends the work"}, nil
	}
	return inspection{outcome: notRun, evidence: name + " is there and valid"}, nil
}

// inspectDetach reads pg_inherits: a detach that was interrupted between its two transactions is pending there.
func inspectDetach(ctx context.Context, q dbcore.Querier, v *pgquery.AlterTableStmt) (inspection, error) {
	for _, c := range v.Cmds {
		p := c.GetAlterTableCmd().GetDef().GetPartitionCmd()
		if p == nil {
			continue
		}
		type row struct {
			Pending       bool
			Parent, Child string
		}
		r, err := dbcore.One[row](ctx, q, `select inhdetachpending as pending, format('%I.%I', pn.nspname, pc.relname) as parent, format('%I.%I', cn.nspname, cc.relname) as child
			from pg_inherits join pg_class pc on pc.oid = inhparent join pg_namespace pn on pn.oid = pc.relnamespace
			join pg_class cc on cc.oid = inhrelid join pg_namespace cn on cn.oid = cc.relnamespace
			where inhparent = to_regclass($1) and inhrelid = to_regclass($2)`, quotedVar(v.Relation), quotedVar(p.Name))
		switch {
		case errors.Is(err, dbcore.ErrNoRows):
			return inspection{outcome: finished, evidence: fmt.Sprintf("%s is no partition of %s", quotedVar(p.Name), quotedVar(v.Relation))}, nil
		case err != nil:
			return inspection{}, fmt.Errorf("look whether %s is detached: %w", quotedVar(p.Name), err)
		case r.Pending:
			return inspection{
				outcome: leftover, evidence: r.Child + " is half detached (detach pending)", after: finished,
				sql: []string{"alter table " + r.Parent + " detach partition " + r.Child + " finalize"},
			}, nil
		}
		return inspection{outcome: notRun, evidence: r.Child + " is still a partition of " + r.Parent}, nil
	}
	return inspection{outcome: unknown, evidence: "the statement is not understood"}, nil
}

func inspectDropDatabase(ctx context.Context, q dbcore.Querier, name string) (inspection, error) {
	there, err := dbcore.One[bool](ctx, q, "select exists (select from pg_database where datname = $1)", name)
	if err != nil {
		return inspection{}, fmt.Errorf("look for database %s: %w", name, err)
	}
	if there {
		return inspection{outcome: notRun, evidence: "the database " + name + " is there"}, nil
	}
	return inspection{outcome: finished, evidence: "there is no database " + name}, nil
}
