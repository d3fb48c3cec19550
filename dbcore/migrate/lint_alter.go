package migrate

import (
	"fmt"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

func (l *linter) alterTable(v *pgquery.AlterTableStmt) {
	table := relationOf(v.Relation)
	for _, c := range v.Cmds {
		cmd := c.GetAlterTableCmd()
		switch cmd.GetSubtype() {
		case pgquery.AlterTableType_AT_AddColumn:
			l.columnType(cmd.Def.GetColumnDef())
		case pgquery.AlterTableType_AT_ValidateConstraint:
			l.validate(table, cmd.Name)
		}
		if !l.isNew(table) {
			l.alter(table, cmd)
		}
	}
}

func (l *linter) alter(table relation, cmd *pgquery.AlterTableCmd) {
	column := table.String() + "." + cmd.Name
	switch cmd.Subtype {
	case pgquery.AlterTableType_AT_AddColumn:
		l.addColumn(table, cmd.Def.GetColumnDef())
	case pgquery.AlterTableType_AT_AddConstraint:
		l.addConstraint(table, cmd.Def.GetConstraint())
	case pgquery.AlterTableType_AT_AlterColumnType:
		l.report("changing-column-type", "most changes of "+column+"'s type write the table anew while nobody can read it, and break programs", "add a new column, write both, move over; accept what only makes a varchar longer")
	case pgquery.AlterTableType_AT_SetNotNull:
		l.setNotNull(table, column)
	case pgquery.AlterTableType_AT_DropNotNull:
		if l.direction == Up {
			l.report("ban-drop-not-null", "programs that do not expect NULL in "+column+" fail", "deploy programs that do first")
		}
	case pgquery.AlterTableType_AT_DropColumn:
		if l.direction == Up {
			l.report("ban-drop-column", "programs that still name "+column+" fail, and only a backup brings it back", "deploy programs that do not use it first, then accept this")
		}
	case pgquery.AlterTableType_AT_SetLogged, pgquery.AlterTableType_AT_SetUnLogged, pgquery.AlterTableType_AT_SetTableSpace, pgquery.AlterTableType_AT_SetAccessMethod:
		l.report("rewriting-table", table.String()+" is written anew while nobody can read it", "copy it in batches, or accept the outage")
	case pgquery.AlterTableType_AT_AddIdentity:
		l.report("adding-not-nullable-field", "identity needs NOT NULL, for which all rows of "+table.String()+" are looked at under a lock", "set NOT NULL by a validated CHECK constraint first, then accept this")
	case pgquery.AlterTableType_AT_DetachPartition:
		if !cmd.Def.GetPartitionCmd().GetConcurrent() && l.major >= 14 {
			l.report("require-concurrent-partition-detach", "DETACH PARTITION locks "+table.String()+" for everybody", "DETACH PARTITION ... CONCURRENTLY, in a file of its own")
		}
	}
}

func (l *linter) addColumn(table relation, c *pgquery.ColumnDef) {
	name := table.String() + "." + c.GetColname()
	var def *pgquery.Node
	notNull, identity := false, strings.Contains(typeOf(c.GetTypeName()), "serial")
	var constraints []*pgquery.Constraint
	for _, n := range c.GetConstraints() {
		switch k := n.GetConstraint(); k.GetContype() {
		case pgquery.ConstrType_CONSTR_DEFAULT:
			def = k.RawExpr
		case pgquery.ConstrType_CONSTR_NOTNULL:
			notNull = true
		case pgquery.ConstrType_CONSTR_IDENTITY:
			identity = true
		case pgquery.ConstrType_CONSTR_GENERATED:
			def, identity = nil, true
		default:
			constraints = append(constraints, k)
		}
	}
	const remedy = "add the column without it, set the default for new rows, fill old rows in batches"
	switch {
	case identity:
		l.report("adding-field-with-default", "for serial, identity and generated columns the whole table is written anew while nobody can read it: "+name, remedy)
	case def != nil && l.major < 11:
		l.report("adding-field-with-default", "before PostgreSQL 11 every default writes the whole table anew: "+name, remedy)
	case def != nil && volatileCall(def) != "":
		l.report("adding-field-with-default", fmt.Sprintf("%s may give each row another value, so the whole table is written anew while nobody can read it: %s", volatileCall(def), name), remedy)
	case notNull && def == nil:
		l.report("adding-required-field", name+" is NOT NULL and has no default: it fails if there is a row, and programs that do not fill it fail", "give it a default")
	}
	for _, k := range constraints {
		l.columnConstraint(table, name, k, def != nil)
	}
}

// columnConstraint is for a constraint within ADD COLUMN. For a column of NULLs PostgreSQL takes a foreign key as valid
// without looking (transformFKConstraints in parse_utilcmd.c), but a CHECK is evaluated for every row.
func (l *linter) columnConstraint(table relation, column string, k *pgquery.Constraint, hasDefault bool) {
	switch k.GetContype() {
	case pgquery.ConstrType_CONSTR_PRIMARY:
		l.report("adding-serial-primary-key-field", "the index of "+column+" is built while nobody can use the table", "add the column, then a unique index CONCURRENTLY, then the key USING INDEX")
	case pgquery.ConstrType_CONSTR_UNIQUE:
		l.report("disallowed-unique-constraint", "the index of "+column+" is built while nobody can use the table", "add the column, then a unique index CONCURRENTLY, then the constraint USING INDEX")
	case pgquery.ConstrType_CONSTR_FOREIGN:
		if hasDefault {
			l.report("adding-foreign-key-constraint", "all rows of "+table.String()+" are looked up under a lock on both tables", "add the key NOT VALID, and validate it in a later file")
		}
	case pgquery.ConstrType_CONSTR_CHECK:
		l.report("constraint-missing-not-valid", "all rows of "+table.String()+" are looked at while nobody can use it", "add the column, then the CHECK NOT VALID, and validate it in a later file")
	}
}

func (l *linter) addConstraint(table relation, k *pgquery.Constraint) {
	where := " of " + table.String()
	switch k.GetContype() {
	case pgquery.ConstrType_CONSTR_PRIMARY:
		if k.Indexname == "" {
			l.report("adding-serial-primary-key-field", "the index"+where+" is built while nobody can use the table", "build a unique index CONCURRENTLY, then ADD PRIMARY KEY USING INDEX")
		}
	case pgquery.ConstrType_CONSTR_UNIQUE:
		if k.Indexname == "" {
			l.report("disallowed-unique-constraint", "the index"+where+" is built while nobody can use the table", "build a unique index CONCURRENTLY, then ADD UNIQUE USING INDEX")
		}
	case pgquery.ConstrType_CONSTR_EXCLUSION:
		l.report("adding-exclusion-constraint", "the index"+where+" is built while nobody can use the table, and it cannot be built concurrently", "accept the outage, or begin with a new table")
	case pgquery.ConstrType_CONSTR_FOREIGN:
		if !k.SkipValidation {
			l.report("adding-foreign-key-constraint", "all rows"+where+" are looked up under a lock on both tables", "add it NOT VALID, and validate it in a later file")
			return
		}
		l.unchecked = append(l.unchecked, k.Conname)
	case pgquery.ConstrType_CONSTR_CHECK:
		if !k.SkipValidation {
			l.report("constraint-missing-not-valid", "all rows"+where+" are looked at while nobody can use it", "add it NOT VALID, and validate it in a later file")
			return
		}
		l.unchecked = append(l.unchecked, k.Conname)
	}
}

// validate needs a transaction after the one that added the constraint: that one still holds its lock.
func (l *linter) validate(table relation, name string) {
	l.validated = append(l.validated, table)
	if l.transactional && slices.Contains(l.unchecked, name) {
		l.report("validating-in-the-transaction", name+" is validated under the lock that adding it took", "validate it in a later file")
	}
}

// setNotNull is quick from PostgreSQL 12 on where a valid CHECK constraint says the same. That it does cannot be seen in
// the file; that one was validated before can.
func (l *linter) setNotNull(table relation, column string) {
	if l.major >= 12 && containsRelation(l.validated, table) {
		return
	}
	remedy := "add CHECK (... IS NOT NULL) NOT VALID, validate it in a later file, and set NOT NULL after it there"
	if l.major < 12 {
		remedy = "before PostgreSQL 12 a validated CHECK (... IS NOT NULL) must do in its place"
	}
	l.report("adding-not-nullable-field", "all rows of "+table.String()+" are looked at while nobody can use it, for "+column, remedy)
}

// steady are functions that give all rows of one statement the same value.
var steady = []string{
	"now", "transaction_timestamp", "statement_timestamp", "current_setting", "current_schema", "pg_backend_pid", "txid_current", "pg_current_xact_id",
	"lower", "upper", "coalesce", "nullif", "jsonb_build_object", "json_build_object", "jsonb_build_array", "json_build_array", "to_jsonb", "md5",
	"make_interval", "make_date", "date_trunc", "timezone", "concat", "format", "array_append", "int4range", "int8range", "tstzrange", "daterange",
}

// volatileCall returns a function of an expression that may give each row another value: any that is not known not to.
func volatileCall(n *pgquery.Node) string {
	found := ""
	walk(n, func(n *pgquery.Node) {
		if f := n.GetFuncCall(); f != nil {
			parts := stringList(f.Funcname)
			if name := parts[len(parts)-1]; !slices.Contains(steady, name) && found == "" {
				found = name + "()"
			}
		}
	})
	return found
}

// walk visits the nodes of an expression, as far as defaults go.
func walk(n *pgquery.Node, visit func(*pgquery.Node)) {
	if n == nil {
		return
	}
	visit(n)
	all := func(list []*pgquery.Node) {
		for _, m := range list {
			walk(m, visit)
		}
	}
	switch v := n.Node.(type) {
	case *pgquery.Node_FuncCall:
		all(v.FuncCall.Args)
	case *pgquery.Node_TypeCast:
		walk(v.TypeCast.Arg, visit)
	case *pgquery.Node_AExpr:
		walk(v.AExpr.Lexpr, visit)
		walk(v.AExpr.Rexpr, visit)
	case *pgquery.Node_BoolExpr:
		all(v.BoolExpr.Args)
	case *pgquery.Node_CoalesceExpr:
		all(v.CoalesceExpr.Args)
	case *pgquery.Node_AArrayExpr:
		all(v.AArrayExpr.Elements)
	case *pgquery.Node_RowExpr:
		all(v.RowExpr.Args)
	case *pgquery.Node_List:
		all(v.List.Items)
	case *pgquery.Node_CaseExpr:
		walk(v.CaseExpr.Arg, visit)
		all(v.CaseExpr.Args)
		walk(v.CaseExpr.Defresult, visit)
	case *pgquery.Node_CaseWhen:
		walk(v.CaseWhen.Expr, visit)
		walk(v.CaseWhen.Result, visit)
	case *pgquery.Node_MinMaxExpr:
		all(v.MinMaxExpr.Args)
	case *pgquery.Node_CollateClause:
		walk(v.CollateClause.Arg, visit)
	}
}
