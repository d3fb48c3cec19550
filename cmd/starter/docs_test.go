package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocuments_NameWhatThereIs: links lead to files, tests and scripts that documents name exist.
func TestDocuments_NameWhatThereIs(t *testing.T) {
	root := filepath.Join("..", "..")
	tests := testNames(t, root)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	code := regexp.MustCompile("(?s)```.*?```")
	test := regexp.MustCompile("`[^`]*?(Test[A-Z]\\w*)(\\*?)[^`]*`")
	script := regexp.MustCompile("`(?:bash )?((?:deploy|docs|internal|cmd|workflows|activities|dbcore)/[\\w./-]+)[` ]")
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no documents %s: %v", pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := string(content)
			for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
					t.Errorf("%s links to %s, which is not there", file, m[1])
				}
			}
			for _, m := range script.FindAllStringSubmatch(text, -1) {
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil && !strings.Contains(m[1], "NNNN") {
					t.Errorf("%s names %s, which is not there", file, m[1])
				}
			}
			for _, m := range test.FindAllStringSubmatch(text, -1) {
				name := m[1] + "(" // a star stands for the rest of a name
				if m[2] == "*" {
					name = m[1]
				}
				if !strings.Contains(tests, "\nfunc "+name) {
					t.Errorf("%s names %s, and there is no such test", file, m[1])
				}
			}
		}
	}
}

// testNames has the first lines of all test functions.
func testNames(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, "func Test") {
				b.WriteString("\n" + line)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
