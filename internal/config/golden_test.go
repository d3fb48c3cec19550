package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files of this package")

// testEnv is the environment of all tests of this package.
func testEnv(name string) (string, bool) {
	value, found := map[string]string{
		"SECRET":       "hunter2 is what nobody may read",
		"SECRET_LINE":  "hunter2\n",
		"SECRET_SLASH": "hunt/er2",
		"PASSWORD":     "hunter2",
		"URL":          "file:///var/lib/lifeboat",
		"DAYS":         "7",
		"RTO":          "30m",
		"INJECTION":    "zstd\n    encryption: {}\nversion: 2 # \" ' ${SECRET}",
	}[name]
	return value, found
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// Every refused file has its exact messages beside it.
func TestParse_RefusedFiles_SayWhatAndWhere(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d files in testdata/errors: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(data, "lifeboat.yaml", testEnv)
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("Parse: %v, want an *Error", err)
			}
			for _, p := range refused.Problems {
				if p.Line == 0 || p.Column == 0 {
					t.Errorf("no place in %+v", p)
				}
			}
			if strings.Contains(err.Error(), "hunt") {
				t.Errorf("a secret shows in: %v", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}
