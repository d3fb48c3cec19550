package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoad_SearchOrder(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"flag", "variable", "first", "second"} {
		text := strings.ReplaceAll(smallest, "orders", name)
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("broken"), []byte("version: 1\nnonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	set := func(path string) func(string) (string, bool) {
		return func(name string) (string, bool) { return path, name == "LIFEBOAT_CONFIG" }
	}
	both := []string{at("first"), at("second")}
	tests := []struct {
		name    string
		options LoadOptions
		want    string // the cluster's name, or "" for an error
		is      error
	}{
		{"flag first", LoadOptions{Path: at("flag"), Env: set(at("variable")), SearchPaths: both}, "flag", nil},
		{"then the variable", LoadOptions{Env: set(at("variable")), SearchPaths: both}, "variable", nil},
		{"empty variable counts as unset", LoadOptions{Env: set(""), SearchPaths: both}, "first", nil},
		{"then the search paths in order", LoadOptions{SearchPaths: both}, "first", nil},
		{"of which absent ones are passed over", LoadOptions{SearchPaths: []string{at("absent"), at("second")}}, "second", nil},
		{"a flag's file must be there", LoadOptions{Path: at("absent"), SearchPaths: both}, "", fs.ErrNotExist},
		{"a variable's file must be there", LoadOptions{Env: set(at("absent")), SearchPaths: both}, "", fs.ErrNotExist},
		{"a broken file is not passed over", LoadOptions{SearchPaths: []string{at("broken"), at("second")}}, "", nil},
		{"nor an unreadable one", LoadOptions{SearchPaths: []string{at("folder"), at("second")}}, "", nil},
		{"nothing anywhere", LoadOptions{SearchPaths: []string{at("absent")}}, "", ErrNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := Load(test.options)
			if test.want == "" {
				if err == nil || test.is != nil && !errors.Is(err, test.is) {
					t.Fatalf("Load: %v, want an error that is %v", err, test.is)
				}
				if c != nil {
					t.Error("a configuration beside the error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.ClusterNames(); !slices.Equal(got, []string{test.want}) {
				t.Errorf("read the file with the clusters %v, want %s", got, test.want)
			}
		})
	}
}

func TestLoad_Refusals_NameFileAndRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte("version: 1\nclusers: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(LoadOptions{Path: path})
	var refused *Error
	if want := path + `:2:1: unknown key "clusers"; did you mean "clusters"?`; !errors.As(err, &refused) || err.Error() != want {
		t.Errorf("Load: %v, want %s", err, want)
	}
	_, err = Load(LoadOptions{SearchPaths: []string{"/nonexistent/a", "/nonexistent/b"}})
	if want := "no configuration found in /nonexistent/a, /nonexistent/b: write one with `lifeboat init`, or name it by --config or LIFEBOAT_CONFIG"; err == nil || err.Error() != want {
		t.Errorf("Load: %v, want %s", err, want)
	}
}

func TestSearchPaths(t *testing.T) {
	if got := SearchPaths(); !slices.Equal(got, []string{"./lifeboat.yaml", "/etc/lifeboat/lifeboat.yaml"}) {
		t.Errorf("SearchPaths is %v", got)
	}
}
