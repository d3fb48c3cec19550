package migrate

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// txControl is what a statement does to the transaction that it runs in.
type txControl int

const (
	txNone txControl = iota
	txBegin
	txCommit
	txOther // ROLLBACK, SAVEPOINT, PREPARE TRANSACTION ...
)

// kind is what the runner must know of a statement.
type kind struct {
	name string // for people: "CREATE INDEX CONCURRENTLY"
	// noTransaction: PostgreSQL refuses it in a transaction block (PreventInTransactionBlock in src/backend/commands).
	noTransaction bool
	// session: it only changes the session (SET), and must be said again when a stopped file is continued.
	session bool
	tx      txControl
	tables  []relation // that it locks or changes, as written
	// destroys says what data it destroys, "" if none.
	destroys string
}

// relation is a name as written; schema may be "".
type relation struct{ schema, name string }

func (r relation) String() string {
	if r.schema == "" {
		return r.name
	}
	return r.schema + "." + r.name
}

func relationOf(v *pgquery.RangeVar) relation {
	return relation{v.GetSchemaname(), v.GetRelname()}
}

func classify(n *pgquery.Node) kind {
	if n == nil {
		return kind{name: "unknown statement"}
	}
	switch v := n.Node.(type) {
	case *pgquery.Node_IndexStmt:
		return kind{name: concurrently("CREATE INDEX", v.IndexStmt.Concurrent), noTransaction: v.IndexStmt.Concurrent, tables: []relation{relationOf(v.IndexStmt.Relation)}}
	case *pgquery.Node_DropStmt:
		return classifyDrop(v.DropStmt)
	case *pgquery.Node_ReindexStmt:
		return classifyReindex(v.ReindexStmt)
	case *pgquery.Node_AlterTableStmt:
		return classifyAlterTable(v.AlterTableStmt)
	case *pgquery.Node_TransactionStmt:
		return classifyTransaction(v.TransactionStmt)
	case *pgquery.Node_VariableSetStmt:
		return kind{name: "SET", session: !v.VariableSetStmt.IsLocal}
	case *pgquery.Node_TruncateStmt:
		k := kind{name: "TRUNCATE", destroys: "the rows of " + names(v.TruncateStmt.Relations)}
		for _, r := range v.TruncateStmt.Relations {
			k.tables = append(k.tables, relationOf(r.GetRangeVar()))
		}
		return k
	case *pgquery.Node_DeleteStmt:
		r := relationOf(v.DeleteStmt.Relation)
		return kind{name: "DELETE", tables: []relation{r}, destroys: "rows of " + r.String()}
	case *pgquery.Node_UpdateStmt:
		r := relationOf(v.UpdateStmt.Relation)
		return kind{name: "UPDATE", tables: []relation{r}, destroys: "what is overwritten in " + r.String()}
	case *pgquery.Node_InsertStmt:
		return kind{name: "INSERT", tables: []relation{relationOf(v.InsertStmt.Relation)}}
	case *pgquery.Node_RenameStmt:
		return kind{name: "ALTER ... RENAME", tables: optional(v.RenameStmt.Relation)}
	case *pgquery.Node_CreateStmt:
		return kind{name: "CREATE TABLE"}
	}
	return classifyOther(n)
}

// classifyOther has the statements that matter for nothing but their transaction.
func classifyOther(n *pgquery.Node) kind {
	switch v := n.Node.(type) {
	case *pgquery.Node_VacuumStmt:
		k := kind{name: "ANALYZE"}
		if v.VacuumStmt.IsVacuumcmd {
			k = kind{name: "VACUUM", noTransaction: true}
		}
		for _, r := range v.VacuumStmt.Rels {
			k.tables = append(k.tables, optional(r.GetVacuumRelation().GetRelation())...)
		}
		return k
	case *pgquery.Node_ClusterStmt:
		return kind{name: "CLUSTER", noTransaction: v.ClusterStmt.Relation == nil, tables: optional(v.ClusterStmt.Relation)}
	case *pgquery.Node_CreatedbStmt:
		return kind{name: "CREATE DATABASE", noTransaction: true}
	case *pgquery.Node_DropdbStmt:
		return kind{name: "DROP DATABASE", noTransaction: true, destroys: "the database " + v.DropdbStmt.Dbname}
	case *pgquery.Node_AlterDatabaseStmt:
		return kind{name: "ALTER DATABASE", noTransaction: hasOption(v.AlterDatabaseStmt.Options, "tablespace")}
	case *pgquery.Node_CreateTableSpaceStmt:
		return kind{name: "CREATE TABLESPACE", noTransaction: true}
	case *pgquery.Node_DropTableSpaceStmt:
		return kind{name: "DROP TABLESPACE", noTransaction: true}
	case *pgquery.Node_AlterSystemStmt:
		return kind{name: "ALTER SYSTEM", noTransaction: true}
	case *pgquery.Node_CreateSubscriptionStmt:
		return kind{name: "CREATE SUBSCRIPTION", noTransaction: subscriptionConnects(v.CreateSubscriptionStmt.Options)}
	case *pgquery.Node_DropSubscriptionStmt:
		return kind{name: "DROP SUBSCRIPTION", noTransaction: true}
	case *pgquery.Node_AlterSubscriptionStmt:
		return kind{name: "ALTER SUBSCRIPTION", noTransaction: v.AlterSubscriptionStmt.Kind != pgquery.AlterSubscriptionType_ALTER_SUBSCRIPTION_OPTIONS}
	case *pgquery.Node_RefreshMatViewStmt:
		return kind{name: concurrently("REFRESH MATERIALIZED VIEW", v.RefreshMatViewStmt.Concurrent), tables: optional(v.RefreshMatViewStmt.Relation)}
	case *pgquery.Node_DropOwnedStmt:
		return kind{name: "DROP OWNED", destroys: "all objects of the roles"}
	}
	return kind{name: nodeName(n)}
}

func classifyDrop(v *pgquery.DropStmt) kind {
	what := strings.ReplaceAll(strings.TrimPrefix(v.RemoveType.String(), "OBJECT_"), "_", " ")
	k := kind{name: concurrently("DROP "+what, v.Concurrent), noTransaction: v.Concurrent}
	switch v.RemoveType {
	case pgquery.ObjectType_OBJECT_TABLE, pgquery.ObjectType_OBJECT_MATVIEW, pgquery.ObjectType_OBJECT_SCHEMA,
		pgquery.ObjectType_OBJECT_SEQUENCE, pgquery.ObjectType_OBJECT_FOREIGN_TABLE, pgquery.ObjectType_OBJECT_TYPE,
		pgquery.ObjectType_OBJECT_EXTENSION:
		k.destroys = strings.ToLower(what) + " " + objectNames(v.Objects)
	}
	if v.RemoveType == pgquery.ObjectType_OBJECT_TABLE || v.RemoveType == pgquery.ObjectType_OBJECT_INDEX {
		for _, o := range v.Objects {
			k.tables = append(k.tables, relationOfList(o))
		}
	}
	return k
}

func classifyReindex(v *pgquery.ReindexStmt) kind {
	concurrent := hasOption(v.Params, "concurrently")
	whole := v.Kind == pgquery.ReindexObjectType_REINDEX_OBJECT_SCHEMA || v.Kind == pgquery.ReindexObjectType_REINDEX_OBJECT_SYSTEM ||
		v.Kind == pgquery.ReindexObjectType_REINDEX_OBJECT_DATABASE
	return kind{name: concurrently("REINDEX", concurrent), noTransaction: concurrent || whole, tables: optional(v.Relation)}
}

func classifyAlterTable(v *pgquery.AlterTableStmt) kind {
	k := kind{name: "ALTER TABLE", tables: optional(v.Relation)}
	for _, c := range v.Cmds {
		cmd := c.GetAlterTableCmd()
		switch cmd.GetSubtype() {
		case pgquery.AlterTableType_AT_DropColumn:
			k.destroys = "column " + relationOf(v.Relation).String() + "." + cmd.Name
		case pgquery.AlterTableType_AT_DetachPartition:
			if cmd.Def.GetPartitionCmd().GetConcurrent() {
				k.name, k.noTransaction = "ALTER TABLE ... DETACH PARTITION CONCURRENTLY", true
			}
		}
	}
	return k
}

func classifyTransaction(v *pgquery.TransactionStmt) kind {
	name := strings.ReplaceAll(strings.TrimPrefix(v.Kind.String(), "TRANS_STMT_"), "_", " ")
	switch v.Kind {
	case pgquery.TransactionStmtKind_TRANS_STMT_BEGIN, pgquery.TransactionStmtKind_TRANS_STMT_START:
		return kind{name: name, tx: txBegin}
	case pgquery.TransactionStmtKind_TRANS_STMT_COMMIT:
		return kind{name: name, tx: txCommit}
	}
	return kind{name: name, tx: txOther}
}

// subscriptionConnects says whether CREATE SUBSCRIPTION makes a slot, which it refuses to do in a transaction.
func subscriptionConnects(options []*pgquery.Node) bool {
	for _, o := range options {
		d := o.GetDefElem()
		if (d.GetDefname() == "connect" || d.GetDefname() == "create_slot") && isFalse(d.Arg) {
			return false
		}
	}
	return true
}

func isFalse(n *pgquery.Node) bool {
	if n.GetBoolean() != nil {
		return !n.GetBoolean().Boolval
	}
	switch strings.ToLower(n.GetString_().GetSval()) {
	case "false", "off", "no", "0":
		return true
	}
	return n.GetInteger() != nil && n.GetInteger().Ival == 0
}

// hasOption says whether a boolean option is on; without a value it is.
func hasOption(options []*pgquery.Node, name string) bool {
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == name {
			return d.Arg == nil || !isFalse(d.Arg)
		}
	}
	return false
}

func optional(v *pgquery.RangeVar) []relation {
	if v == nil {
		return nil
	}
	return []relation{relationOf(v)}
}

// relationOfList reads a name that the grammar gives as a list of strings.
func relationOfList(n *pgquery.Node) relation {
	parts := stringList(n.GetList().GetItems())
	switch len(parts) {
	case 0:
		return relation{name: n.GetString_().GetSval()}
	case 1:
		return relation{name: parts[0]}
	}
	return relation{schema: parts[len(parts)-2], name: parts[len(parts)-1]}
}

func stringList(nodes []*pgquery.Node) []string {
	parts := make([]string, 0, len(nodes))
	for _, n := range nodes {
		parts = append(parts, n.GetString_().GetSval())
	}
	return parts
}

func names(relations []*pgquery.Node) string {
	list := make([]string, len(relations))
	for i, r := range relations {
		list[i] = relationOf(r.GetRangeVar()).String()
	}
	return strings.Join(list, ", ")
}

func objectNames(objects []*pgquery.Node) string {
	list := make([]string, len(objects))
	for i, o := range objects {
		if t := o.GetTypeName(); t != nil {
			list[i] = strings.Join(stringList(t.Names), ".")
			continue
		}
		list[i] = relationOfList(o).String()
	}
	return strings.Join(list, ", ")
}

func concurrently(name string, yes bool) string {
	if yes {
		return name + " CONCURRENTLY"
	}
	return name
}

// nodeName makes "CREATE FUNCTION" of CreateFunctionStmt, well enough for a list.
func nodeName(n *pgquery.Node) string {
	name := string(n.ProtoReflect().WhichOneof(n.ProtoReflect().Descriptor().Oneofs().Get(0)).Name())
	return strings.ToUpper(strings.ReplaceAll(strings.TrimSuffix(name, "_stmt"), "_", " "))
}
