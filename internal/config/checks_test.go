package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadChecks(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "checks.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := ReadChecks(write("checks:\n- {name: a, sql: select 1, expect: \"1\"}\n- {name: b, sql: select 2, expect: \"\"}\n"), nil)
	if err != nil || len(got) != 2 || got[0] != (Check{"a", "select 1", "1"}) || got[1].Name != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"checks:\n- {name: a, sql: select 1}\n":                                  "expect",
		"checks:\n- {name: a, sq: select 1, expect: x}\n":                        "sql",
		"checks:\n- {name: \"\", sql: select 1, expect: x}\n":                    "empty",
		"checks: [{name: a, sql: s, expect: x}, {name: a, sql: s, expect: x}]\n": "checks[0]",
		"- {name: a, sql: select 1, expect: x}\n":                                "group of keys",
		"other: 1\n": "other",
		"checks: [{name: a, sql: \"select ${NO_SUCH_VARIABLE}\", expect: x}]\nversion: 1": "NO_SUCH_VARIABLE",
	} {
		var refused *Error
		if _, err := ReadChecks(write(text), nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an *Error that tells of %q", text, err, want)
		}
	}
	if _, err := ReadChecks(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
