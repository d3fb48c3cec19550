package schedule

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// docs/schedules.md has the policies that the code has.
func TestDocument_Policies(t *testing.T) {
	text, err := os.ReadFile("../../docs/schedules.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 8 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		row := strings.Trim(strings.TrimSpace(cells[1]), "`") + " " + strings.TrimSpace(cells[3])
		for _, cell := range cells[4:6] {
			d, err := time.ParseDuration(strings.TrimSpace(cell))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			row += " " + d.String()
		}
		got = append(got, row)
		if info, ok := infoOf(Verb(strings.Fields(row)[0])); ok && info.remark != "" && !strings.Contains(cells[2], "this version has none") {
			t.Errorf("the document hides that %s %s", info.verb, info.remark)
		}
	}
	for _, v := range verbs {
		want = append(want, fmt.Sprintf("%s %s %v %v", v.verb, v.policy.overlap, v.policy.catchUp, v.policy.jitter))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%s\nthe code\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
