package migrate

import (
	"fmt"
	"regexp"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// stmt is one statement of a script.
type stmt struct {
	text string // without leading white space and trailing semicolon
	line int    // of its first token
	node *pgquery.Node
	kind kind
	// ignores are the directives right before it.
	ignores map[string]string
}

// directives are those of a whole file.
type directives struct {
	noTransaction bool
	ignoreFile    map[string]string // rule → reason
	bad           []string          // what is not understood, or lacks its reason
}

// parse splits the text by PostgreSQL's own grammar, so that bodies in $$, BEGIN ATOMIC or rules stay whole. Where the
// grammar fails (a newer server's syntax, or a mistake) its scanner still splits.
func (s *script) parse() {
	tokens, err := scan(s.text)
	if err != nil {
		s.parseErr = err
		s.stmts = []*stmt{{text: strings.TrimSpace(s.text), line: 1}}
		return
	}
	ranges, err := splitByGrammar(s.text)
	if err != nil {
		s.parseErr = err
		ranges = splitByTokens(s.text, tokens)
	}
	next := 0
	for _, r := range ranges {
		st := &stmt{node: r.node, ignores: map[string]string{}}
		first := -1
		for ; next < len(tokens) && int(tokens[next].Start) < r.end; next++ {
			t := tokens[next]
			if isComment(t) {
				s.directive(s.text[t.Start:t.End], st.ignores)
			} else if first < 0 && int(t.Start) >= r.start { // not the semicolon before it
				first = int(t.Start)
			}
		}
		if first < 0 { // nothing but comments
			continue
		}
		if st.node == nil {
			st.node = parseOne(s.text[first:r.end])
		}
		st.text = strings.TrimSpace(s.text[first:r.end])
		st.line = 1 + strings.Count(s.text[:first], "\n")
		st.kind = classify(st.node)
		s.stmts = append(s.stmts, st)
	}
	for ; next < len(tokens); next++ {
		if t := tokens[next]; isComment(t) {
			s.directive(s.text[t.Start:t.End], map[string]string{})
		}
	}
	s.stripBrackets()
}

// stripBrackets takes away a BEGIN at the beginning and a COMMIT at the end, which many files for golang-migrate have:
// the runner's own transaction does the same, and holds the version as well.
func (s *script) stripBrackets() {
	n := len(s.stmts)
	if n < 2 || s.stmts[0].kind.tx != txBegin || s.stmts[n-1].kind.tx != txCommit {
		return
	}
	for _, st := range s.stmts[1 : n-1] {
		if st.kind.tx != txNone {
			return
		}
	}
	s.stmts, s.bracketed = s.stmts[1:n-1], true
}

// transactional says whether the script runs in one transaction, and if not, why.
func (s *script) transactional() (bool, string) {
	if s.directives.noTransaction {
		return false, "migrate:no-transaction"
	}
	for _, st := range s.stmts {
		if st.kind.noTransaction {
			return false, fmt.Sprintf("%s (line %d) refuses transactions", st.kind.name, st.line)
		}
	}
	return true, ""
}

type textRange struct {
	start, end int
	node       *pgquery.Node
}

func splitByGrammar(text string) ([]textRange, error) {
	tree, err := parseSQL(text)
	if err != nil {
		return nil, err
	}
	ranges := make([]textRange, len(tree.Stmts))
	for i, raw := range tree.Stmts {
		r := textRange{start: int(raw.StmtLocation), node: raw.Stmt}
		r.end = r.start + int(raw.StmtLen)
		if raw.StmtLen == 0 {
			r.end = len(text)
		}
		ranges[i] = r
	}
	return ranges, nil
}

// splitByTokens splits at semicolons outside parentheses and outside BEGIN ATOMIC ... END.
func splitByTokens(text string, tokens []*pgquery.ScanToken) []textRange {
	var ranges []textRange
	start, parens, atomic := 0, 0, 0
	var before pgquery.Token
	for _, t := range tokens {
		switch t.Token {
		case pgquery.Token_ASCII_40:
			parens++
		case pgquery.Token_ASCII_41:
			parens--
		case pgquery.Token_ATOMIC:
			if before == pgquery.Token_BEGIN_P {
				atomic++
			}
		case pgquery.Token_CASE:
			if atomic > 0 {
				atomic++
			}
		case pgquery.Token_END_P:
			if atomic > 0 {
				atomic--
			}
		case pgquery.Token_ASCII_59:
			if parens == 0 && atomic == 0 {
				ranges = append(ranges, textRange{start: start, end: int(t.Start)})
				start = int(t.End)
			}
		}
		if !isComment(t) {
			before = t.Token
		}
	}
	return append(ranges, textRange{start: start, end: len(text)})
}

func parseSQL(text string) (*pgquery.ParseResult, error) {
	data, err := parseToProtobuf(text)
	if err != nil {
		return nil, err
	}
	tree := &pgquery.ParseResult{}
	return tree, proto.Unmarshal(data, tree)
}

// parseOne returns the tree of a single statement, nil if the grammar does not know it.
func parseOne(text string) *pgquery.Node {
	tree, err := parseSQL(text)
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	return tree.Stmts[0].Stmt
}

func scan(text string) ([]*pgquery.ScanToken, error) {
	data, err := scanToProtobuf(text)
	if err != nil {
		return nil, err
	}
	result := &pgquery.ScanResult{}
	if err := proto.Unmarshal(data, result); err != nil {
		return nil, err
	}
	return result.Tokens, nil
}

func isComment(t *pgquery.ScanToken) bool {
	return t.Token == pgquery.Token_SQL_COMMENT || t.Token == pgquery.Token_C_COMMENT
}

var directiveRE = regexp.MustCompile(`^(?:--|/\*)\s*migrate:([a-z-]+)\s*(.*?)\s*(?:\*/)?\s*$`)

// directive reads a comment. Those that are not ours are left alone; ours must be right, because a directive with a
// slip in it would otherwise be a comment that nobody obeys.
func (s *script) directive(comment string, ignores map[string]string) {
	m := directiveRE.FindStringSubmatch(comment)
	if m == nil {
		return
	}
	bad := func(format string, args ...any) {
		s.directives.bad = append(s.directives.bad, fmt.Sprintf(format, args...))
	}
	switch name, rest := m[1], m[2]; name {
	case "no-transaction":
		s.directives.noTransaction = true
	case "irreversible":
		reason := strings.TrimSpace(strings.TrimPrefix(rest, ":"))
		if reason == "" {
			bad("migrate:irreversible needs a reason: -- migrate:irreversible: REASON")
			reason = "no reason given"
		}
		s.irreversible = reason
	case "ignore", "ignore-file":
		if name == "ignore-file" {
			if s.directives.ignoreFile == nil {
				s.directives.ignoreFile = map[string]string{}
			}
			ignores = s.directives.ignoreFile
		}
		rules, reason, _ := strings.Cut(rest, ":")
		reason = strings.TrimSpace(reason)
		if reason == "" {
			bad("migrate:%s %s needs a reason: -- migrate:%s RULE: REASON", name, rules, name)
			return
		}
		for _, rule := range strings.FieldsFunc(rules, func(r rune) bool { return r == ',' || r == ' ' }) {
			if !isRule(rule) {
				bad("migrate:%s names the rule %q, which there is not", name, rule)
				continue
			}
			ignores[rule] = reason
		}
	default:
		bad("migrate:%s is not a directive; there are ignore, ignore-file, no-transaction and irreversible", name)
	}
}
