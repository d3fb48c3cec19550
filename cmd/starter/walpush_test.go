package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/assemble"
)

// TestOpenToArchive_CreatesOnlyWhereNothingCanBeMissing: an unmounted file system must not swallow acknowledged WAL.
func TestOpenToArchive_CreatesOnlyWhereNothingCanBeMissing(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) // dir/repo is the repository
		created bool
	}{
		"missing beside other things":        {func(dir string) { mkdir(t, dir, "other") }, true},
		"missing from an empty mount point":  {func(string) {}, false},
		"an empty folder: not mounted?":      {func(dir string) { mkdir(t, dir, "other", "repo") }, false},
		"a store that has no header yet":     {func(dir string) { mkdir(t, dir, "repo/.tmp") }, true},
		"a repository that is there already": {func(dir string) { create(t, dir) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.prepare(dir)
			set, err := assemble.WithoutConfiguration("file://"+dir+"/repo", "c1", assemble.Host{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = openToArchive(t.Context(), set.Clusters["c1"])
			if (err == nil) != c.created {
				t.Errorf("created: %v, want %v: %v", err == nil, c.created, err)
			}
			if err != nil && !strings.Contains(problemOf(err).Hint, "take the first backup") {
				t.Errorf("no remedy in %q", err)
			}
			if _, serr := os.Stat(filepath.Join(dir, "repo/lifeboat.json")); (serr == nil) != c.created {
				t.Errorf("header there: %v, want %v", serr == nil, c.created)
			}
		})
	}
}

func mkdir(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func create(t *testing.T, dir string) {
	t.Helper()
	if _, err := assemble.OpenRepository(t.Context(), "file://"+dir+"/repo", true); err != nil {
		t.Fatal(err)
	}
}
