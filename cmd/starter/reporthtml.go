package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/contract"
)

//go:embed report.html.tmpl
var reportTemplate string

// reportPage is one file without scripts and without anything to fetch: it is read years later, offline, by an auditor.
var reportPage = template.Must(template.New("report").Parse(reportTemplate))

// ladderTop is the highest level of the ladder that the page shows.
const ladderTop = 8

// ladderNames are the levels in a few words (docs/verification.md).
var ladderNames = [ladderTop + 1]string{
	"objects there", "objects whole", "WAL continuous", "page checksums", "pg_verifybackup", "restored and started",
	"indexes and catalogs", "owner's checks", "joins as standby",
}

// htmlReport is a report as its page shows it.
type htmlReport struct {
	*contract.Report
	Summary string
	Ladder  []rung
	Figures []figure
	Spans   []spanBar
	Facts   []fact
	Version string
}

// rung is one level of the ladder. Class is pass, fail, warn, skip or none; none was not looked at by itself.
type rung struct {
	Level       int
	Name, Class string
}

// figure is an objective and what was measured against it.
type figure struct {
	Name, Meaning, Value, Target, Class string
	Percent                             float64 // of the objective, at most 100; 0 without a measurement or an objective
	Share                               string  // in words
}

// spanBar is a part of the recovery time.
type spanBar struct {
	Name, Class, Value string
	Percent            float64 // of the recovery time
}

type fact struct{ Name, Value string }

// Class names the colour of a verdict.
func verdictClass(v contract.Verdict) string {
	switch v {
	case contract.Pass:
		return "pass"
	case contract.Fail:
		return "fail"
	case contract.Skipped:
		return "skip"
	}
	return "warn"
}

// writeReportHTML renders a report as one self-contained page.
func writeReportHTML(w io.Writer, r *contract.Report, version string) error {
	page := &htmlReport{Report: r, Version: version, Summary: reportSummary(r), Ladder: reportLadder(r.Checks)}
	page.Spans = reportSpans(&r.RTO)
	rto := r.RTO.Measured
	measured := &rto
	if r.Reached == nil {
		measured = nil // the server did not come back: what was measured is no recovery time
	}
	page.Figures = []figure{
		newFigure("Recovery time", "RTO: from the decision to a server that takes writes", r.RTO.Target, measured),
		newFigure("Data loss", "RPO: from the last commit that came back to the disaster", r.RPO.Target, r.RPO.Measured),
	}
	page.Facts = reportFacts(r)
	if err := reportPage.Execute(w, page); err != nil {
		return fmt.Errorf("render report %s: %w", r.DrillID, err)
	}
	return nil
}

// VerdictClass, CheckClass and Took are for the template.
func (p *htmlReport) VerdictClass() string                     { return verdictClass(p.Verdict) }
func (p *htmlReport) CheckClass(c contract.CheckResult) string { return verdictClass(c.Verdict) }
func (p *htmlReport) Took(c contract.CheckResult) string       { return seconds(c.Seconds) }

// VerdictText is the verdict in the words of people.
func (p *htmlReport) VerdictText() string { return strings.ReplaceAll(string(p.Verdict), "_", " ") }

func reportSummary(r *contract.Report) string {
	passed := 0
	for _, c := range r.Checks {
		if c.Verdict == contract.Pass {
			passed++
		}
	}
	switch {
	case r.Failure != "":
		return strings.Join(strings.Fields(r.Failure), " ")
	case r.Reached == nil:
		return "No server came back."
	}
	return fmt.Sprintf("The cluster was restored, replayed to its target and started in %s; %d of %d checks passed.",
		seconds(r.RTO.Measured), passed, len(r.Checks))
}

// reportLadder colours each level by the worst check on it.
func reportLadder(checks []contract.CheckResult) []rung {
	out := make([]rung, ladderTop+1)
	for level := range out {
		out[level] = rung{Level: level, Name: ladderNames[level], Class: "none"}
		var of []contract.Verdict
		for _, c := range checks {
			if c.Level == level {
				of = append(of, c.Verdict)
			}
		}
		if len(of) > 0 {
			out[level].Class = verdictClass(contract.Worst(of...))
		}
		if len(of) > 0 && !slices.ContainsFunc(of, func(v contract.Verdict) bool { return v != contract.Skipped }) {
			out[level].Class = "skip"
		}
	}
	if out[0].Class == "none" && out[1].Class == "pass" {
		out[0].Class = "pass" // what was read whole was there
	}
	return out
}

func newFigure(name, meaning string, target float64, measured *float64) figure {
	f := figure{Name: name, Meaning: meaning, Value: "not measured", Target: "no objective", Class: "warn"}
	if target > 0 {
		f.Target = "objective " + seconds(target)
	}
	if measured == nil {
		return f
	}
	f.Value, f.Class = seconds(*measured), "pass"
	if target <= 0 {
		return f
	}
	share := 100 * *measured / target
	f.Percent, f.Share = min(100, max(0.5, share)), fmt.Sprintf("%.3g %% of the objective", share)
	if *measured > target {
		f.Class = "fail"
	}
	return f
}

// reportSpans divides the recovery time. What no span covers is planning and waiting for workers.
func reportSpans(r *contract.RTO) []spanBar {
	other := max(0, r.Measured-r.Spans.Fetch-r.Spans.Replay-r.Spans.Start)
	parts := []struct {
		name, class string
		seconds     float64
	}{
		{"Plan and wait", "other", other},
		{"Fetch files", "fetch", r.Spans.Fetch},
		{"Replay WAL", "replay", r.Spans.Replay},
		{"Open for writes", "start", r.Spans.Start},
	}
	var total float64
	for _, p := range parts {
		total += p.seconds
	}
	if total <= 0 || math.IsInf(total, 0) || math.IsNaN(total) {
		return nil
	}
	out := make([]spanBar, len(parts))
	for i, p := range parts {
		out[i] = spanBar{Name: p.name, Class: p.class, Value: seconds(p.seconds), Percent: 100 * p.seconds / total}
	}
	return out
}

func reportFacts(r *contract.Report) []fact {
	out := []fact{
		{"Cluster", r.Cluster + ", system identifier " + r.SystemIdentifier},
		{"Scenario", r.Scenario},
		{"Backup", fmt.Sprintf("%s: %d files, %s", r.BackupID, r.Files, size(r.Bytes))},
		{"Target", strings.TrimSpace(r.Target.Kind + " " + r.Target.Value)},
	}
	if r.Reached != nil {
		out = append(out, fact{"Reached", fmt.Sprintf("%s on timeline %d, last commit %s", r.Reached.LSN, r.Reached.Timeline, exactly(r.Reached.LastCommitAt))})
	}
	cleaned := "yes: nothing was left behind"
	if !r.CleanedUp {
		cleaned = "no: see above what may still be there"
	}
	return append(out,
		fact{"Disaster", exactly(r.DisasterAt)},
		fact{"Run", fmt.Sprintf("%s to %s on host %s", when(&r.StartedAt), when(&r.FinishedAt), r.Host)},
		fact{"Workflow", r.WorkflowID},
		fact{"Cleaned up", cleaned},
		fact{"Report", r.Report},
	)
}

// exactly is a time to the millisecond, in UTC; "-" for none.
func exactly(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000Z")
}

// seconds puts a length of time into words with as many digits as matter.
func seconds(s float64) string {
	switch {
	case s < 0.0005:
		return "0 s"
	case s < 1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case s < 60:
		return fmt.Sprintf("%.1f s", s)
	}
	return (time.Duration(min(s, 1e9)) * time.Second).String()
}
