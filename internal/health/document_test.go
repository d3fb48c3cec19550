package health

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of findings into docs/health.md")

// TestDocument: docs/health.md lists the rules as they are.
func TestDocument(t *testing.T) {
	const path, begin, end = "../../docs/health.md", "<!-- findings -->\n", "<!-- end of findings -->\n"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + begin + Table() + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(content) != want {
		t.Errorf("%s is not as the code is: go test ./internal/health -run TestDocument -update", path)
	}
}
