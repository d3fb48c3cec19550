package migrate

import (
	"fmt"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

func (l *linter) createIndex(v *pgquery.IndexStmt) {
	table := relationOf(v.Relation)
	switch {
	case v.Concurrent && v.Idxname == "":
		l.report("require-index-name", "a concurrent index without a name: after a failure nobody can tell it from others", "name it")
	case !v.Concurrent && !l.isNew(table) && v.Relation.Inh: // ON ONLY makes an empty index on a partitioned table
		l.report("require-concurrent-index-creation", "CREATE INDEX stops all writes to "+table.String()+" until it is built", "CREATE INDEX CONCURRENTLY, in a file of its own")
	}
}

func (l *linter) drop(v *pgquery.DropStmt) {
	what := objectNames(v.Objects)
	switch v.RemoveType {
	case pgquery.ObjectType_OBJECT_INDEX:
		if !v.Concurrent {
			l.report("require-concurrent-index-deletion", "DROP INDEX waits for all queries on the table, and all others behind it", "DROP INDEX CONCURRENTLY, in a file of its own")
		}
	case pgquery.ObjectType_OBJECT_TABLE:
		if l.direction == Up && !l.allNew(v.Objects) {
			l.report("ban-drop-table", "DROP TABLE "+what+": programs that still read it fail, and only a backup brings it back", "deploy programs that do not use it first, then accept this")
		}
	case pgquery.ObjectType_OBJECT_SCHEMA:
		if l.direction == Up {
			l.report("ban-drop-schema", "DROP SCHEMA "+what+" destroys all that is in it", "drop what is meant by name")
		}
	}
}

func (l *linter) allNew(objects []*pgquery.Node) bool {
	for _, o := range objects {
		if !l.isNew(relationOfList(o)) {
			return false
		}
	}
	return true
}

func (l *linter) rename(v *pgquery.RenameStmt) {
	if v.Relation == nil || l.isNew(relationOf(v.Relation)) || l.direction == Down {
		return
	}
	name := relationOf(v.Relation).String()
	switch {
	case v.RenameType == pgquery.ObjectType_OBJECT_COLUMN && v.RelationType == pgquery.ObjectType_OBJECT_TABLE:
		l.report("renaming-column", fmt.Sprintf("programs that use %s.%s fail at once", name, v.Subname), "add a new column, write both, move over, drop the old one")
	case v.RenameType == pgquery.ObjectType_OBJECT_TABLE:
		l.report("renaming-table", "programs that use "+name+" fail at once", "rename it and leave a view of the old name in the same transaction, then accept this")
	}
}

// other has what is neither an index, a table's change, a DROP nor a RENAME.
func (l *linter) other(st *stmt) {
	switch v := st.node.Node.(type) {
	case *pgquery.Node_ReindexStmt:
		if !hasOption(v.ReindexStmt.Params, "concurrently") && v.ReindexStmt.Kind != pgquery.ReindexObjectType_REINDEX_OBJECT_SYSTEM {
			l.report("require-concurrent-reindex", "REINDEX stops writes, and reads that would use the index", "REINDEX CONCURRENTLY, in a file of its own")
		}
	case *pgquery.Node_VacuumStmt:
		if v.VacuumStmt.IsVacuumcmd && hasOption(v.VacuumStmt.Options, "full") {
			l.report("prefer-repack", "VACUUM FULL writes the table anew while nobody can read it", "plain VACUUM, or pg_repack")
		}
	case *pgquery.Node_ClusterStmt:
		l.report("prefer-repack", "CLUSTER writes the table anew while nobody can read it", "pg_repack")
	case *pgquery.Node_TruncateStmt:
		if v.TruncateStmt.Behavior == pgquery.DropBehavior_DROP_CASCADE {
			l.report("ban-truncate-cascade", "TRUNCATE CASCADE empties all tables that refer to "+names(v.TruncateStmt.Relations)+" as well", "name every table that is meant")
		}
	case *pgquery.Node_DropdbStmt:
		l.report("ban-drop-database", "DROP DATABASE in a migration", "drop it by hand")
	case *pgquery.Node_LockStmt:
		l.report("locking-table", "LOCK TABLE holds its lock until the whole file is done", "let each statement take the lock that it needs")
	case *pgquery.Node_UpdateStmt:
		if v.UpdateStmt.WhereClause == nil && !l.isNew(relationOf(v.UpdateStmt.Relation)) {
			l.report("updating-all-rows", "UPDATE of all rows holds their locks until the end and doubles the table", "update in batches outside of migrations")
		}
	case *pgquery.Node_DeleteStmt:
		if v.DeleteStmt.WhereClause == nil && !l.isNew(relationOf(v.DeleteStmt.Relation)) {
			l.report("updating-all-rows", "DELETE of all rows", "delete in batches, or TRUNCATE")
		}
	case *pgquery.Node_RefreshMatViewStmt:
		if !v.RefreshMatViewStmt.Concurrent && !v.RefreshMatViewStmt.SkipData {
			l.report("refreshing-view", "REFRESH keeps readers out until it is done", "REFRESH MATERIALIZED VIEW CONCURRENTLY")
		}
	case *pgquery.Node_AlterObjectSchemaStmt:
		s := v.AlterObjectSchemaStmt
		if s.ObjectType == pgquery.ObjectType_OBJECT_TABLE && l.direction == Up && !l.isNew(relationOf(s.Relation)) {
			l.report("ban-set-schema", "programs that use "+relationOf(s.Relation).String()+" fail at once", "leave a view in the old schema, then accept this")
		}
	case *pgquery.Node_CreateDomainStmt:
		if len(v.CreateDomainStmt.Constraints) > 0 {
			l.report("ban-create-domain-with-constraint", "a domain's constraint can never be changed without looking at all its columns under locks", "put the constraint on the column")
		}
	case *pgquery.Node_AlterDomainStmt:
		if d := v.AlterDomainStmt; d.Subtype == "C" && !d.Def.GetConstraint().GetSkipValidation() {
			l.report("ban-alter-domain-with-add-constraint", "all tables with the domain are locked and looked at", "add it NOT VALID and validate it in a later file")
		}
	}
}

func (l *linter) createTable(v *pgquery.CreateStmt) {
	for _, e := range v.TableElts {
		if c := e.GetColumnDef(); c != nil {
			l.columnType(c)
		}
	}
}

// typeOf is the type's name as PostgreSQL calls it inside: int4 for integer.
func typeOf(t *pgquery.TypeName) string {
	parts := stringList(t.GetNames())
	if len(parts) == 0 {
		return ""
	}
	return parts[len(parts)-1]
}

// columnType has the types that are regretted later. None of them endangers the migration itself.
func (l *linter) columnType(c *pgquery.ColumnDef) {
	switch t := typeOf(c.TypeName); t {
	case "int4", "serial", "serial4":
		l.report("prefer-bigint-over-int", c.Colname+" ends at 2.1 billion", "bigint")
	case "int2", "smallserial", "serial2":
		l.report("prefer-bigint-over-smallint", c.Colname+" ends at 32767", "bigint")
	case "bpchar":
		l.report("ban-char-field", c.Colname+" is padded with blanks", "text")
	case "varchar":
		if len(c.TypeName.Typmods) > 0 {
			l.report("prefer-text-field", c.Colname+" has a length that can only be made smaller under a lock", "text with a CHECK constraint")
		}
	case "timestamp":
		l.report("prefer-timestamptz", c.Colname+" does not say in which zone it is", "timestamptz")
	}
	if strings.Contains(typeOf(c.TypeName), "serial") {
		l.report("prefer-identity", c.Colname+" is a serial: its sequence has rights and defaults of its own", "bigint generated always as identity")
	}
}
