package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/contract"
)

// drillReport is a report with something in every field.
func drillReport(change func(*contract.Report)) *contract.Report {
	at := time.Date(2026, 11, 25, 20, 10, 11, 42e6, time.UTC)
	rpo := 0.25
	r := &contract.Report{
		Format: 1, BackupID: "20261125T200000Z-full-1f3a9c", SystemIdentifier: "7391", Host: "db2", StartedAt: at, FinishedAt: at.Add(time.Minute),
		Target: contract.Target{Kind: "time", Value: "2026-11-25T20:10:11Z"}, DisasterAt: &at, Files: 900, Bytes: 25e6, CleanedUp: true,
		Reached: &contract.Reached{LSN: "0/5000028", Timeline: 1, LastCommitAt: &at},
		DrillResult: contract.DrillResult{
			DrillID: "20261125T201011Z-1f3a9c", Cluster: "orders", Scenario: "restore", Verdict: contract.Pass, Level: 7,
			Checks: []contract.CheckResult{
				{ID: "manifest", Level: 4, Verdict: contract.Pass, Expected: "accepted", Observed: "accepted", Seconds: 0.8},
				{ID: "amcheck", Level: 6, Verdict: contract.Skipped, Observed: "amcheck is not installed"},
				{ID: "orders", Level: 7, Verdict: contract.Pass, Expected: "1000", Observed: "1000"},
			},
			RTO: contract.RTO{Target: 600, Measured: 10, Spans: contract.Spans{Fetch: 5, Replay: 3, Start: 1, Check: 4}},
			RPO: contract.RPO{Target: 300, Measured: &rpo}, Report: "clusters/orders/reports/20261125T201011Z-1f3a9c", WorkflowID: "drill-orders",
		},
	}
	if change != nil {
		change(r)
	}
	return r
}

func page(t *testing.T, r *contract.Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := writeReportHTML(&out, r, "test"); err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(bytes.NewReader(out.Bytes())); ; { // it is written so that tags match
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v\n%s", err, out.String())
		}
	}
}

func TestReportHTML_SaysWhatTheReportSays(t *testing.T) {
	got := page(t, drillReport(nil))
	contains(t, "page", got, `<div class="stamp">PASS<small>level 7</small>`, "drill of orders", "2 of 3 checks passed", "10.0 s", "1.67 % of the objective",
		"250 ms", "0.0833 % of the objective", "20261125T200000Z-full-1f3a9c: 900 files, 25.0 MB", "2026-11-25 20:10:11.042Z", "amcheck is not installed",
		`<i class="fetch" style="width: 50%"`, `<i class="other" style="width: 10%"`, `<li class="skip"><b>6</b>`, `<li class="pass"><b>7</b>`, `<li class="none"><b>8</b>`)
}

// TestReportHTML_NeverLooksGreenUnlessItIs goes through what must catch the eye.
func TestReportHTML_NeverLooksGreenUnlessItIs(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*contract.Report)
		want   []string
		not    string
	}{
		"a check failed": {func(r *contract.Report) {
			r.Verdict, r.Checks[2].Verdict = contract.Fail, contract.Fail
		}, []string{`<header class="fail">`, `badge fail">FAIL`, `<li class="fail"><b>7</b>`}, `<header class="pass">`},
		"could not verify": {func(r *contract.Report) {
			r.Verdict = contract.CouldNotVerify
		}, []string{`<header class="warn">`, "COULD NOT VERIFY"}, `<header class="pass">`},
		"no server came back": {func(r *contract.Report) {
			r.Verdict, r.Reached, r.Failure, r.Checks, r.RPO.Measured, r.CleanedUp = contract.Fail, nil, "LayFiles: object x is damaged", nil, nil, false
		}, []string{"LayFiles: object x is damaged", "not measured", "No check was reached", "may still be there"}, `class="figure num">10.0 s`},
		"slower than its objective": {func(r *contract.Report) {
			r.RTO.Measured = 700
		}, []string{`<section class="fail">`, "11m40s", `style="width: 100%"`}, ""},
		"no objective": {func(r *contract.Report) {
			r.RTO.Target = 0
		}, []string{"no objective"}, "Inf"},
		"nothing measured at all": {func(r *contract.Report) {
			*r = contract.Report{DrillResult: contract.DrillResult{Verdict: contract.CouldNotVerify}}
		}, []string{"No server came back"}, "NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			got := page(t, drillReport(tt.change))
			contains(t, "page", got, tt.want...)
			if tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("the page has %q:\n%s", tt.not, got)
			}
		})
	}
}

// TestReportHTML_IsSelfContainedAndInert: whatever a server or an owner's check said, the page runs nothing and fetches
// nothing.
func TestReportHTML_IsSelfContainedAndInert(t *testing.T) {
	const hostile = `</style></title><script>alert(1)</script><img src="http://evil.example/x" onerror=alert(1)>`
	got := page(t, drillReport(func(r *contract.Report) {
		r.Cluster, r.DrillID, r.Failure, r.Host, r.Target.Value = hostile, hostile, hostile, hostile, hostile
		r.Checks[0].ID, r.Checks[0].Observed, r.Checks[0].Verdict = hostile, hostile, contract.Verdict(hostile)
	}))
	tag := regexp.MustCompile(`(?i)<\s*(script|img|link|iframe|object|embed|base|a)\b|\s(src|href|on\w+)\s*=\s*"|url\(|@import`)
	if bad := tag.FindAllString(got, -1); len(bad) > 0 {
		t.Errorf("the page has %q", bad)
	}
	contains(t, "page", got, "default-src 'none'", "&lt;script&gt;")
}
