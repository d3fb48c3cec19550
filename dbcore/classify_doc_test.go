package dbcore_test

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"lifeboat/dbcore"
)

// classifyTable prints the table as docs/dbcore.md has it.
func classifyTable() string {
	rows := classifyRows()
	sort.SliceStable(rows, func(i, j int) bool { return rows[i].name < rows[j].name })
	words := map[dbcore.Action]string{dbcore.Never: "never", dbcore.Retry: "retry", dbcore.RetryIfIdempotent: "idempotent", dbcore.Ambiguous: "**ambiguous**"}
	var b strings.Builder
	b.WriteString("| error | connect | in a transaction | autocommit | COMMIT | wait | breaker | remarks |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		if r.name == "ERROR " || r.name == "ERROR 1" {
			continue
		}
		var cells []string
		var best dbcore.Verdict
		for _, p := range []dbcore.Phase{dbcore.PhaseConnect, dbcore.PhaseTx, dbcore.PhaseAutocommit, dbcore.PhaseCommit} {
			v := dbcore.Classify(r.err, p)
			cells = append(cells, words[v.Action])
			if v.Class != dbcore.ClassNone {
				best = v
			}
		}
		last := dbcore.Classify(r.err, dbcore.PhaseTx)
		var remarks []string
		if best.OptIn != dbcore.OptInNone {
			remarks = append(remarks, "only with RetryConfig's permission for "+best.OptIn.String())
		}
		if best.Once {
			remarks = append(remarks, "once")
		}
		if last.SuspectPool {
			remarks = append(remarks, "pings the pool's other connections")
		}
		if last.SuspectRole {
			remarks = append(remarks, "asks again which server is the primary")
		}
		if last.Alert {
			remarks = append(remarks, "a person must act")
		}
		health := map[dbcore.Health]string{dbcore.HealthAlive: "success", dbcore.HealthFailure: "failure", dbcore.HealthUnknown: "not counted"}[last.Health]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.name, strings.Join(cells, " | "), best.Class, health, strings.Join(remarks, "; "))
	}
	return b.String()
}

// TestClassifyDocument: the published table is the one that holds.
func TestClassifyDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/dbcore.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := classifyTable(); !strings.Contains(string(text), table) {
		t.Errorf("docs/dbcore.md must have this table:\n%s", table)
	}
}
