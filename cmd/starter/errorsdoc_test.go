package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.temporal.io/sdk/temporal"
)

// constants are the values of a package's constants whose names begin with prefix, unquoted.
func constants(t *testing.T, dir, prefix string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no code in %s: %v", dir, err)
	}
	var out []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !regexp.MustCompile("^"+prefix+"[A-Z]").MatchString(spec.Names[0].Name) {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				v, err := strconv.Unquote(lit.Value)
				if err != nil {
					v = lit.Value
				}
				out = append(out, v)
			}
			return true
		})
	}
	return out
}

// typesInCode are the types of application errors that are written where they are made.
func typesInCode(t *testing.T, dirs ...string) []string {
	t.Helper()
	var out []string
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no code in %s: %v", dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) < 2 {
					return true
				}
				fun, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !strings.Contains(fun.Sel.Name, "ApplicationError") {
					return true
				}
				if lit, ok := call.Args[1].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					v, _ := strconv.Unquote(lit.Value)
					out = append(out, v)
				}
				return true
			})
		}
	}
	return out
}

// TestErrorsDocument: docs/errors.md has exactly the exit codes and error codes that the code has.
func TestErrorsDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	exits, codes := map[string]bool{}, map[string]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		first := strings.TrimSpace(cells[1])
		if _, err := strconv.Atoi(first); err == nil {
			exits[first] = true
		}
		if code, ok := strings.CutPrefix(first, "`"); ok {
			codes[strings.TrimSuffix(code, "`")] = strings.TrimSpace(cells[2])
		}
		if last := strings.TrimSpace(cells[len(cells)-2]); last == "" {
			t.Errorf("no word on what to do: %s", line)
		}
	}
	same(t, "exit codes", slices.Collect(maps.Keys(exits)), append(constants(t, ".", "exit"), "0"))
	inCode := slices.Concat(constants(t, ".", "code"), constants(t, "../../internal/contract", "Error"),
		constants(t, "../../workflows", "error"), typesInCode(t, "../../workflows", "../../activities"))
	same(t, "error codes", slices.Collect(maps.Keys(codes)), inCode)
	for code, exit := range codes {
		if code == codeInterrupted {
			continue // a wrapper of the command line's own: TestExitCode
		}
		if got := strconv.Itoa(exitCode(temporal.NewNonRetryableApplicationError("m", code, nil))); got != exit {
			t.Errorf("%s: the document says exit code %s, the program %s", code, exit, got)
		}
	}
}

func same(t *testing.T, what string, document, code []string) {
	t.Helper()
	slices.Sort(document)
	slices.Sort(code)
	document, code = slices.Compact(document), slices.Compact(code)
	if len(code) == 0 || !slices.Equal(document, code) {
		t.Errorf("%s: the document has %q, the code %q", what, document, code)
	}
}
