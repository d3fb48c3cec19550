package verify_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documentFolders reads the program's source for the folders that documents are stored in: the first part of the name
// in every call of PutDocument. So a new kind of document takes part in the campaign the day it is written.
func documentFolders(t *testing.T) []string {
	t.Helper()
	var folders []string
	byDir := map[string][]*ast.File{}
	set := token.NewFileSet()
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		byDir[filepath.Dir(name)] = append(byDir[filepath.Dir(name)], f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range byDir {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 4 {
					return true
				}
				if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "PutDocument" {
					return true
				}
				text, err := beginning(call.Args[2], files)
				folder, _, cut := strings.Cut(text, "/")
				if err != nil || !cut {
					t.Errorf("%s: cannot tell where this document is stored (%q, %v): begin its name with a constant folder",
						set.Position(call.Pos()), text, err)
					return true
				}
				folders = append(folders, folder)
				return true
			})
		}
	}
	slices.Sort(folders)
	folders = slices.Compact(folders)
	if len(folders) < 2 {
		t.Fatalf("found only the folders %v: has PutDocument another name?", folders)
	}
	return folders
}

// beginning is the constant text that an expression of a package begins with.
func beginning(e ast.Expr, files []*ast.File) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strconv.Unquote(e.Value)
	case *ast.BinaryExpr:
		return beginning(e.X, files)
	case *ast.ParenExpr:
		return beginning(e.X, files)
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok {
			return declared(id.Name, files)
		}
		if len(e.Args) > 0 { // fmt.Sprintf, path.Join
			return beginning(e.Args[0], files)
		}
	case *ast.Ident:
		return declared(e.Name, files)
	}
	return "", fmt.Errorf("an expression of type %T", e)
}

// declared looks for a constant, a variable's first value, or what a function returns.
func declared(name string, files []*ast.File) (text string, err error) {
	err = fmt.Errorf("no declaration of %s", name)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if id.Name == name && i < len(n.Values) {
						text, err = beginning(n.Values[i], files)
					}
				}
			case *ast.AssignStmt:
				for i, lhs := range n.Lhs {
					if id, ok := lhs.(*ast.Ident); ok && id.Name == name && n.Tok == token.DEFINE && len(n.Rhs) == len(n.Lhs) {
						if got, berr := beginning(n.Rhs[i], files); berr == nil && strings.Contains(got, "/") {
							text, err = got, nil
						}
					}
				}
			case *ast.FuncDecl:
				if n.Name.Name == name && n.Recv == nil && n.Body != nil {
					ast.Inspect(n.Body, func(n ast.Node) bool {
						if ret, ok := n.(*ast.ReturnStmt); ok && len(ret.Results) > 0 {
							text, err = beginning(ret.Results[0], files)
						}
						return true
					})
				}
			}
			return true
		})
	}
	return text, err
}
