package workflows

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"lifeboat/internal/contract"
)

func TestMarkdown(t *testing.T) {
	at := start
	p := Progress{
		Workflow: "Drill", Cluster: "orders", Subject: "Drill 1",
		Phases: []Phase{
			{Name: "prepare", State: PhaseDone, Seconds: 0.25, Note: "host db1"},
			{Name: "plan", State: PhaseActive, StartedAt: &at},
			{Name: "lay files", State: PhasePending},
		},
		Waiting: "plan the restore",
	}
	want := "### Drill of orders\n\nDrill 1\n\n" +
		"- ✅ prepare · 0.25 s · host db1\n- ▶️ **plan** · since 2026-11-23T07:45:01Z\n- ⬜ lay files\n\n" +
		"**Waiting for:** plan the restore\n"
	if got := p.Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	p.Phases[1].Report = &contract.ProgressReport{Attempt: 2, At: at, Progress: contract.Progress{
		Phase: "copy", Done: 3 << 29, Total: 3 << 30, Rate: 64 << 20, Waiting: "a|b",
	}}
	if got, want := p.Markdown(), "⬜ lay files"; !strings.Contains(got, "since 2026-11-23T07:45:01Z\n  - copy · `██████████░░░░░░░░░░` 50 % of 3.0 GiB · 64.0 MiB/s"+
		" · about 25 s left · waiting for a\\|b · attempt 2 · as of 2026-11-23T07:45:01Z\n- "+want) {
		t.Errorf("got\n%s", got)
	}

	p.Phases[1].State, p.Phases[1].Note, p.Waiting, p.Outcome = PhaseFailed, "no worker", "", "Failed: no worker"
	p.Verdict = contract.Fail
	p.Checks = []contract.CheckResult{{ID: "a|b", Level: 7, Verdict: contract.Fail, Expected: "<b>", Observed: "x\n| y [z](u)", Seconds: 61}}
	want = "### Drill of orders\n\nDrill 1\n\n" +
		"- ✅ prepare · 0.25 s · host db1\n- ❌ plan · 0.00 s · no worker\n- ➖ lay files · not reached\n\n" +
		"**Verdict: FAIL**\n\nFailed: no worker\n\n" +
		"| Level | Check | Verdict | Expected | Observed | Time |\n|---|---|---|---|---|---|\n" +
		`| 7 | a\|b | FAIL | &lt;b&gt; | x \| y \[z\](u) | 1 min 1 s |` + "\n"
	if got := p.Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d bytes: got %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.00 s", 59.5: "59.50 s", 75: "1 min 15 s", 3700: "1 h 1 min", 90000: "25 h 0 min"} {
		if got := formatSeconds(s); got != want {
			t.Errorf("%v s: got %s, want %s", s, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	if got := shorten(" one\n two\t", 100); got != "one two" {
		t.Errorf("got %q", got)
	}
	for limit := 3; limit < 40; limit++ {
		got := shorten(strings.Repeat("añ€😀", 10), limit)
		if len(got) > limit || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
			t.Errorf("limit %d: %q has %d bytes", limit, got, len(got))
		}
	}
}

// Servers allow summaries of 400 bytes, as JSON.
func TestSummarize(t *testing.T) {
	for _, text := range []string{strings.Repeat("<", 4096), strings.Repeat("😀", 300), strings.Repeat("\"\\\x01&", 300)} {
		encoded, err := json.Marshal(summarize(text))
		if err != nil || len(encoded) > maxSummary+2 {
			t.Errorf("%d bytes, %v", len(encoded), err)
		}
	}
	if got := summarize("lay the files in /restore"); got != "lay the files in /restore" {
		t.Errorf("got %q", got)
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		target contract.Target
		want   string
	}{
		{contract.Target{}, "latest"},
		{contract.Target{Kind: "lsn", Value: "0/5", Exclusive: true}, "lsn 0/5 (exclusive)"},
	} {
		if got := describe(c.target); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
