package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"lifeboat/dbcore"
)

// snapshotSQL lists the schema, one object a line, without the two tables of this package ($1, $2 in schema $3) and without the schemas $4. What
// extensions own is left out, and so are partitions, which jobs make and drop all the time. Columns have no position: a
// column that was dropped and added again is the same column.
const snapshotSQL = `
with ns as (select oid, nspname, nspowner, nspacl from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' and nspname <> all($4::text[])),
rel as (select c.*, format('%I.%I', ns.nspname, c.relname) as full_name from pg_class c join ns on ns.oid = c.relnamespace
	where not c.relispartition and not (ns.nspname = $3 and c.relname in ($1, $2))
	and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
	and not exists (select from pg_index i join pg_class p on p.oid = i.indrelid where i.indexrelid = c.oid and (p.relispartition or (p.relnamespace = c.relnamespace and ns.nspname = $3 and p.relname in ($1, $2))))
	and not exists (select from pg_depend d join pg_class p on p.oid = d.refobjid where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S'
		and d.deptype in ('a', 'i') and p.relnamespace = c.relnamespace and ns.nspname = $3 and p.relname in ($1, $2)))
select 'schema ' || quote_ident(nspname) as name, concat_ws(' ', nspowner::regrole, nspacl) as def from ns
union all select 'extension ' || quote_ident(extname), extversion from pg_extension
union all select case relkind when 'r' then 'table ' when 'p' then 'table ' when 'v' then 'view ' when 'm' then 'materialized view ' when 'S' then 'sequence '
	when 'f' then 'foreign table ' else 'type ' end || full_name,
	concat_ws(' ', relkind, relpersistence, relowner::regrole, relacl, reloptions, relrowsecurity, relforcerowsecurity, relreplident,
		case when relkind in ('v', 'm') then pg_get_viewdef(oid) end, case when relkind = 'p' then pg_get_partkeydef(oid) end)
	from rel where relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
union all select 'column ' || full_name || '.' || quote_ident(attname), concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
	nullif(attcollation, 0)::regcollation, attacl, pg_get_expr(d.adbin, d.adrelid))
	from rel join pg_attribute a on a.attrelid = rel.oid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v', 'm', 'f', 'c')
union all select 'index ' || full_name, concat_ws(' ', pg_get_indexdef(rel.oid), indisvalid, indisclustered) from rel join pg_index i on i.indexrelid = rel.oid
union all select 'constraint ' || full_name || '.' || quote_ident(conname), concat_ws(' ', pg_get_constraintdef(c.oid), convalidated)
	from rel join pg_constraint c on c.conrelid = rel.oid where contype not in ('t', 'n')
union all select 'trigger ' || full_name || '.' || quote_ident(tgname), concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled) from rel join pg_trigger t on t.tgrelid = rel.oid where not tgisinternal
union all select 'policy ' || full_name || '.' || quote_ident(polname), concat_ws(' ', polcmd, polpermissive, polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
	from rel join pg_policy p on p.polrelid = rel.oid
union all select 'rule ' || full_name || '.' || quote_ident(rulename), pg_get_ruledef(r.oid) from rel join pg_rewrite r on r.ev_class = rel.oid where rulename <> '_RETURN'
union all select 'sequence options ' || full_name, concat_ws(' ', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle) from rel join pg_sequence s on s.seqrelid = rel.oid
union all select 'routine ' || format('%I.%I(%s)', ns.nspname, proname, pg_get_function_identity_arguments(p.oid)),
	concat_ws(' ', prokind, proowner::regrole, proacl, case when prokind in ('f', 'p', 'w') then pg_get_functiondef(p.oid) end)
	from pg_proc p join ns on ns.oid = pronamespace where not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
union all select 'type ' || format('%I.%I', ns.nspname, typname), concat_ws(' ', typtype, typowner::regrole, nullif(typbasetype, 0)::regtype, typnotnull, typdefault,
	(select array_agg(enumlabel order by enumsortorder) from pg_enum e where e.enumtypid = t.oid),
	(select string_agg(pg_get_constraintdef(c.oid), ' ' order by c.oid) from pg_constraint c where c.contypid = t.oid and contype <> 'n'))
	from pg_type t join ns on ns.oid = typnamespace where typtype in ('e', 'd', 'r')
	and not exists (select from pg_depend d where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')`

// snapshot returns the schema's objects and their definitions. It must run in a transaction, because it needs an empty
// search_path for a moment: then all names are written out, whatever the role's is.
func (t tables) snapshot(ctx context.Context, q dbcore.Querier) (map[string]string, error) {
	path, err := dbcore.One[string](ctx, q, "select current_setting('search_path')")
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	if _, err := q.Exec(ctx, "set local search_path = ''"); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	type row struct{ Name, Def string }
	rows, err := dbcore.Collect[row](ctx, q, snapshotSQL, t.table, t.table+"_history", t.schema, append([]string{}, t.ignore...))
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	if _, err := q.Exec(ctx, "select set_config('search_path', $1, true)", path); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	objects := make(map[string]string, len(rows))
	for _, r := range rows {
		objects[r.Name] = r.Def
	}
	return objects, nil
}

// snapshotWait is how long snapshot waits for a lock: to print a view, the server locks the tables below it.
const snapshotWait = "2s"

// trySnapshot is snapshot, or nil if somebody holds a lock on a table below a view. It keeps the transaction usable.
func (t tables) trySnapshot(ctx context.Context, tx *dbcore.Tx) (objects map[string]string, err error) {
	err = tx.Savepoint(ctx, func(ctx context.Context, tx *dbcore.Tx) error {
		if _, err := tx.Exec(ctx, "set local lock_timeout = '"+snapshotWait+"'"); err != nil {
			return err
		}
		objects, err = t.snapshot(ctx, tx)
		return err
	})
	if dbcore.SQLState(err) == "55P03" {
		return nil, nil
	}
	return objects, err
}

// snapshotOf is snapshot in a transaction of its own.
func (t tables) snapshotOf(ctx context.Context, conn *dbcore.Conn) (objects map[string]string, err error) {
	err = conn.RunTx(ctx, dbcore.TxOptions{ReadOnly: true}, func(ctx context.Context, tx *dbcore.Tx) error {
		objects, err = t.snapshot(ctx, tx)
		return err
	})
	return objects, err
}

// saveSnapshot keeps the schema as the newest migration left it, for Check to compare: names and short sums, and only
// with the newest line of the history. One that could not be read is none: a migration does not fail for it.
func (t tables) saveSnapshot(ctx context.Context, q *dbcore.Tx) error {
	objects, err := t.trySnapshot(ctx, q)
	if err != nil {
		return err
	}
	text, err := json.Marshal(sums(objects))
	if err != nil {
		return fmt.Errorf("save the schema: %w", err)
	}
	if _, err := q.Exec(ctx, "update "+t.history+" set schema_objects = null where schema_objects is not null"); err != nil {
		return fmt.Errorf("save the schema: %w", err)
	}
	if objects == nil {
		return nil
	}
	if _, err := q.Exec(ctx, "update "+t.history+" set schema_objects = $1::jsonb where id = (select max(id) from "+t.history+")", string(text)); err != nil {
		return fmt.Errorf("save the schema: %w", err)
	}
	return nil
}

// savedSnapshot is nil if there is none.
func (t tables) savedSnapshot(ctx context.Context, q dbcore.Querier) (map[string]string, error) {
	found, err := t.exist(ctx, q)
	if err != nil || !found.History {
		return nil, err
	}
	texts, err := dbcore.Collect[string](ctx, q, "select schema_objects::text from "+t.history+" where schema_objects is not null order by id desc limit 1")
	if err != nil || len(texts) == 0 {
		return nil, err
	}
	var saved map[string]string
	if err := json.Unmarshal([]byte(texts[0]), &saved); err != nil {
		return nil, fmt.Errorf("read the saved schema: %w", err)
	}
	return saved, nil
}

// differences lists the objects that are in only one of two snapshots, or differ, sorted.
func differences(before, after map[string]string) []string {
	var list []string
	for name, def := range before {
		if now, ok := after[name]; !ok {
			list = append(list, name+" is gone")
		} else if now != def {
			list = append(list, name+" has changed")
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			list = append(list, name+" is new")
		}
	}
	sort.Strings(list)
	return list
}

// sums shortens definitions to what is enough to see a change.
func sums(objects map[string]string) map[string]string {
	short := make(map[string]string, len(objects))
	for name, def := range objects {
		sum := sha256.Sum256([]byte(def))
		short[name] = hex.EncodeToString(sum[:6])
	}
	return short
}
