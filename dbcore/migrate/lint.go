package migrate

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// LintOptions say what to lint for.
type LintOptions struct {
	// Major is the version of PostgreSQL that the files are for; 0 is 15.
	Major int
	// RequireTimeouts demands that files set lock_timeout before they lock anything, for files that another tool runs:
	// Apply sets it itself.
	RequireTimeouts bool
}

// Lint looks at all files of a source without a database, for a build server. Findings that a directive accepts are not
// among the result.
func Lint(source fs.FS, opts LintOptions) ([]Finding, error) {
	files, err := readSource(source)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, f := range files {
		for _, s := range []*script{f.up, f.down} {
			if s != nil {
				findings, _ := lintScript(s, lintContext{major: cmp.Or(opts.Major, 15), direction: scriptDirection(f, s), requireTimeouts: opts.RequireTimeouts})
				all = append(all, findings...)
			}
		}
	}
	return all, nil
}

// rules are the names that a directive may ignore, and what they are worth. Most are squawk's (squawkhq.com/docs), so that
// what is known about them can be found.
var rules = map[string]Severity{
	"adding-field-with-default":                    SeverityError,
	"adding-foreign-key-constraint":                SeverityError,
	"adding-not-nullable-field":                    SeverityError,
	"adding-serial-primary-key-field":              SeverityError,
	"adding-required-field":                        SeverityError,
	"ban-alter-domain-with-add-constraint":         SeverityError,
	"ban-char-field":                               SeverityWarning,
	"ban-concurrent-index-creation-in-transaction": SeverityError,
	"ban-create-domain-with-constraint":            SeverityWarning,
	"ban-drop-column":                              SeverityError,
	"ban-drop-database":                            SeverityError,
	"ban-drop-not-null":                            SeverityWarning,
	"ban-drop-table":                               SeverityError,
	"ban-truncate-cascade":                         SeverityError,
	"changing-column-type":                         SeverityError,
	"constraint-missing-not-valid":                 SeverityError,
	"disallowed-unique-constraint":                 SeverityError,
	"identifier-too-long":                          SeverityWarning,
	"prefer-bigint-over-int":                       SeverityWarning,
	"prefer-bigint-over-smallint":                  SeverityWarning,
	"prefer-identity":                              SeverityWarning,
	"prefer-text-field":                            SeverityWarning,
	"prefer-timestamptz":                           SeverityWarning,
	"renaming-column":                              SeverityError,
	"renaming-table":                               SeverityError,
	"require-concurrent-index-creation":            SeverityError,
	"require-concurrent-index-deletion":            SeverityError,
	"require-timeout-settings":                     SeverityError,
	"syntax-error":                                 SeverityError,
	"transaction-nesting":                          SeverityError,
	"ban-drop-schema":                              SeverityError,
	"ban-set-schema":                               SeverityError,
	"prefer-repack":                                SeverityError,
	"require-concurrent-partition-detach":          SeverityWarning,
	"require-concurrent-reindex":                   SeverityError,

	// Those that squawk does not have.
	"adding-exclusion-constraint":   SeverityError,
	"locking-table":                 SeverityError,
	"refreshing-view":               SeverityWarning,
	"require-index-name":            SeverityWarning,
	"rewriting-table":               SeverityError,
	"updating-all-rows":             SeverityWarning,
	"validating-in-the-transaction": SeverityError,
}

func isRule(name string) bool { _, ok := rules[name]; return ok }

type lintContext struct {
	major           int
	direction       Direction
	requireTimeouts bool
}

// linter walks one script.
type linter struct {
	lintContext
	script        *script
	transactional bool

	created   []relation // tables that the file made itself: nobody else uses them yet
	validated []relation // tables of which a constraint was validated before
	unchecked []string   // names of constraints that were added NOT VALID in this transaction
	timeouts  bool       // lock_timeout was set

	at       int // statement, from 1
	findings []Finding
	ignored  []Finding
}

func lintScript(s *script, c lintContext) (findings, ignored []Finding) {
	l := &linter{lintContext: c, script: s}
	l.transactional, _ = s.transactional()
	l.file()
	for i, st := range s.stmts {
		l.at = i + 1
		if st.node == nil {
			l.report("syntax-error", fmt.Sprintf("PostgreSQL 17's grammar, which this was built with, does not know the statement: %v", s.parseErr),
				"mend it; if a newer server knows it, accept it")
			continue
		}
		l.statement(st)
	}
	return l.findings, l.ignored
}

// report adds a finding about the present statement, unless a directive accepts it.
func (l *linter) report(rule, message, remedy string) {
	f := Finding{Rule: rule, Severity: rules[rule], File: l.script.name, Statement: l.at, Line: 1, Message: message, Remedy: remedy}
	reason, ignored := l.script.directives.ignoreFile[rule]
	if l.at > 0 {
		st := l.script.stmts[l.at-1]
		f.Line = st.line
		if r, ok := st.ignores[rule]; ok {
			reason, ignored = r, true
		}
	}
	if ignored {
		f.Reason = reason
		l.ignored = append(l.ignored, f)
		return
	}
	l.findings = append(l.findings, f)
}

// file has what is wrong with the file as a whole.
func (l *linter) file() {
	for _, text := range l.script.directives.bad {
		l.findings = append(l.findings, Finding{Rule: "directive", Severity: SeverityError, File: l.script.name, Line: 1, Message: text, Remedy: "mend the comment"})
	}
	concurrent, other := "", ""
	for _, st := range l.script.stmts {
		switch {
		case st.kind.noTransaction:
			concurrent = cmp.Or(concurrent, st.kind.name)
		case !st.kind.session && st.kind.tx == txNone:
			other = cmp.Or(other, st.kind.name)
		}
	}
	switch {
	case concurrent != "" && l.script.bracketed:
		l.report("ban-concurrent-index-creation-in-transaction", concurrent+" stands between BEGIN and COMMIT, where PostgreSQL refuses it", "take them away")
	case concurrent != "" && other != "":
		l.report("ban-concurrent-index-creation-in-transaction", concurrent+" makes the whole file run without a transaction, "+other+" too: it can stop half-way",
			"give "+concurrent+" a file of its own")
	}
	l.longNames()
}

// longNames looks at the text: in the tree they are cut off already, as the server does without an error.
func (l *linter) longNames() {
	const maxIdentifier = 63
	tokens, err := scan(l.script.text)
	if err != nil {
		return
	}
	for _, t := range tokens {
		text := strings.Trim(l.script.text[t.Start:t.End], `"`)
		if t.Token == pgquery.Token_IDENT && len(text) > maxIdentifier {
			l.report("identifier-too-long", fmt.Sprintf("%s has %d bytes, PostgreSQL cuts it off after %d", text, len(text), maxIdentifier), "shorten it")
		}
	}
}

func (l *linter) statement(st *stmt) {
	switch v := st.node.Node.(type) {
	case *pgquery.Node_TransactionStmt:
		l.report("transaction-nesting", st.kind.name+" in a file, which has a transaction of its own", "take it away")
	case *pgquery.Node_VariableSetStmt:
		l.set(v.VariableSetStmt)
		return
	case *pgquery.Node_CreateStmt:
		l.created = append(l.created, relationOf(v.CreateStmt.Relation))
		l.createTable(v.CreateStmt)
		return
	case *pgquery.Node_CreateTableAsStmt:
		l.created = append(l.created, relationOf(v.CreateTableAsStmt.Into.GetRel()))
		return
	}
	l.timeout(st)
	switch v := st.node.Node.(type) {
	case *pgquery.Node_IndexStmt:
		l.createIndex(v.IndexStmt)
	case *pgquery.Node_AlterTableStmt:
		if v.AlterTableStmt.Objtype == pgquery.ObjectType_OBJECT_TABLE {
			l.alterTable(v.AlterTableStmt)
		}
	case *pgquery.Node_DropStmt:
		l.drop(v.DropStmt)
	case *pgquery.Node_RenameStmt:
		l.rename(v.RenameStmt)
	default:
		l.other(st)
	}
}

// isNew says whether the file made the table itself.
func (l *linter) isNew(r relation) bool { return containsRelation(l.created, r) }

func containsRelation(list []relation, r relation) bool {
	return slices.ContainsFunc(list, func(o relation) bool {
		return o.name == r.name && (o.schema == r.schema || (cmp.Or(o.schema, "public") == cmp.Or(r.schema, "public")))
	})
}

// set looks whether a file switches off the bound that the runner has set.
func (l *linter) set(v *pgquery.VariableSetStmt) {
	if v.Name != "lock_timeout" {
		return
	}
	l.timeouts = true
	value := ""
	if len(v.Args) > 0 {
		c := v.Args[0].GetAConst()
		value = c.GetSval().GetSval()
		if i, ok := c.GetVal().(*pgquery.A_Const_Ival); ok {
			value = fmt.Sprint(i.Ival.GetIval())
		}
	}
	off := v.Kind != pgquery.VariableSetKind_VAR_SET_VALUE || strings.Trim(value, "0 msinhd") == ""
	if off {
		l.report("require-timeout-settings", "the file switches lock_timeout off: whoever needs the table queues up behind it", "leave it to the runner, or set seconds")
	}
}

// timeout demands lock_timeout of files that other tools run.
func (l *linter) timeout(st *stmt) {
	if !l.requireTimeouts || l.timeouts || len(st.kind.tables) == 0 || st.kind.noTransaction || l.isNew(st.kind.tables[0]) {
		return
	}
	switch st.node.Node.(type) {
	case *pgquery.Node_InsertStmt, *pgquery.Node_UpdateStmt, *pgquery.Node_DeleteStmt:
		return
	}
	l.timeouts = true // once is enough
	l.report("require-timeout-settings", st.kind.name+" waits for its lock without a bound, and everybody behind it", "begin the file with set lock_timeout = '2s'")
}
