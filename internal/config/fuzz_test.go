package config

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: whatever the file, Parse ends, shows no value of the environment, and what it accepts survives Sanitized.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/errors/*.yaml", "testdata/valid/*.yaml", "example.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	const secret = "\x7fhunter2\u00fc: [\"" // control characters never pass into a file's own text unnoticed
	env := func(name string) (string, bool) {
		if name == "URL" {
			return "file:///var/lib/lifeboat", true
		}
		return secret, name == "SECRET" || name == "PASSWORD"
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "hunter2\u00fc") {
			t.Skip("the input itself holds the marker")
		}
		c, err := Parse(data, "lifeboat.yaml", env)
		if err != nil {
			if strings.Contains(err.Error(), "hunter2\u00fc") {
				t.Fatalf("a secret shows in: %v", err)
			}
			return
		}
		for _, name := range c.ClusterNames() {
			text, err := c.Sanitized(name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "hunter2\u00fc") {
				t.Fatalf("a secret shows in:\n%s", text)
			}
			again, err := Parse(text, "sanitized", env)
			if err != nil {
				t.Fatalf("what Sanitized wrote is refused: %v\n%s", err, text)
			}
			assertSameCluster(t, c, again, name)
		}
	})
}

// FuzzSanitized: any text, password and user come back from Sanitized as they were, but for the password.
func FuzzSanitized(f *testing.F) {
	for _, text := range []string{
		"0", "true", "~", "1m", "- a", "a: b", "# c", "${X}", "$${X}", "'", `"\`, " x ", "\t", "a\n b\n\n", "|", "&a", "*a", "!x", "@", "%", "?", "0x1", "1_000",
		".inf", "\u0085", "\u2028", "\ufeff", "=", "<<", "yes", "2001-01-01", "a\r\nb", "\x00", "\x1b", "{", "[", "`", "key: |\n  x", "--- a", "...",
	} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, text, password string) {
		if !utf8.ValidString(text) || strings.TrimSpace(text) == "" {
			return // no YAML file can hold the one, Validate refuses the other
		}
		c := Default()
		c.Repositories = map[string]*Repository{"main": DefaultRepository("file:///a")}
		cluster := DefaultCluster()
		cluster.Repository = "main"
		cluster.Checks = []Check{{Name: text, SQL: text, Expect: text}}
		cluster.DSN = NewDSN("host=h application_name='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) +
			"' password=" + url.QueryEscape(password))
		c.Clusters = map[string]*Cluster{"orders": cluster}
		if c.Validate() != nil {
			return
		}
		out, err := c.Sanitized("orders")
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out, "sanitized", nil)
		if err != nil {
			t.Fatalf("what Sanitized wrote is refused: %v\n%s", err, out)
		}
		assertSameCluster(t, c, again, "orders")
	})
}
