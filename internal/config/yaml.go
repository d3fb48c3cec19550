package config

import (
	"errors"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxBytes bounds a configuration: thousands of clusters fit.
	maxBytes = 1 << 20
	// maxNesting bounds brackets in brackets and dashes in a line, in which the parser's time grows with the square
	// of the depth. The schema needs four.
	maxNesting = 32
)

// parseYAML returns the document's root, nil for an empty document.
func parseYAML(data []byte) (ast.Node, *Problem) {
	tokens := lexer.Tokenize(string(data))
	if problem := tooDeep(tokens); problem != nil {
		return nil, problem
	}
	// Duplicate keys are let through here, and refused by decoder.entries with the others' kind of message.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(err, data)
	}
	var root ast.Node
	for i, doc := range file.Docs {
		if i > 0 {
			line, column := position(doc.Start)
			return nil, &Problem{Line: line, Column: column, Text: "a second YAML document begins here: there must be only one"}
		}
		root = doc.Body
	}
	return root, nil
}

func tooDeep(tokens token.Tokens) *Problem {
	open, dashes, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			dashes, line = 0, tk.Position.Line
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open--
		case token.SequenceEntryType:
			dashes++
		}
		if open > maxNesting || dashes > maxNesting {
			return &Problem{Line: line, Column: tk.Position.Column, Text: "nested too deeply"}
		}
	}
	return nil
}

// syntaxProblem takes message and place from the parser's error and leaves the source lines, which may hold a password.
func syntaxProblem(err error, data []byte) *Problem {
	p := &Problem{Text: "no valid YAML"}
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		return p
	}
	p.Line, p.Column = position(syntax.GetToken())
	if message := syntax.GetMessage(); !strings.Contains(message, `"`) { // a quoted part comes from the source
		p.Text += ": " + message
	}
	lines := strings.Split(string(data), "\n")
	if p.Line > 0 && p.Line <= len(lines) && strings.Contains(lines[p.Line-1], "${") {
		p.Text += `; inside { } and [ ] a reference needs quotes: "${NAME}"`
	}
	return p
}

func position(tk *token.Token) (line, column int) {
	if tk == nil || tk.Position == nil {
		return 0, 0
	}
	return tk.Position.Line, tk.Position.Column
}

func absent(n ast.Node) bool {
	if n == nil {
		return true
	}
	_, null := n.(*ast.NullNode)
	return null
}

// describe names the kind of a node as a person would.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a fraction or a number beyond all bounds"
	case *ast.BoolNode:
		return "true or false"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a group of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "an anchor, alias or tag, which are not supported: write the value out"
	}
	return "something else"
}

// firstOf is the node with which an item of a list begins: a mapping's own token is the colon behind its first key.
func firstOf(n ast.Node) ast.Node {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key
	}
	return n
}
