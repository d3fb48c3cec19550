package main

import (
	"bytes"
	"testing"
	"time"

	"lifeboat/internal/contract"
)

func TestTargetFlags(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		flags targetFlags
		want  contract.Target
		bad   bool
	}{
		"none":               {targetFlags{}, contract.Target{}, false},
		"time":               {targetFlags{time: "2026-11-23T13:00:00.5+02:00"}, contract.Target{Kind: "time", Value: "2026-11-23T11:00:00.5Z"}, false},
		"relative time":      {targetFlags{time: "5 minutes ago"}, contract.Target{Kind: "time", Value: "2026-11-23T11:55:00Z"}, false},
		"exclusive time":     {targetFlags{time: "1 hour ago", exclusive: true}, contract.Target{Kind: "time", Value: "2026-11-23T11:00:00Z", Exclusive: true}, false},
		"time without zone":  {targetFlags{time: "2026-11-23T13:00:00"}, contract.Target{}, true},
		"lsn":                {targetFlags{lsn: "0/3000028"}, contract.Target{Kind: "lsn", Value: "0/3000028"}, false},
		"bad lsn":            {targetFlags{lsn: "3000028"}, contract.Target{}, true},
		"name":               {targetFlags{name: "before"}, contract.Target{Kind: "name", Value: "before"}, false},
		"immediate":          {targetFlags{immediate: true}, contract.Target{Kind: "immediate"}, false},
		"two":                {targetFlags{immediate: true, name: "x"}, contract.Target{}, true},
		"exclusive alone":    {targetFlags{exclusive: true}, contract.Target{}, true},
		"exclusive and name": {targetFlags{exclusive: true, name: "x"}, contract.Target{}, true},
		"xid":                {targetFlags{xid: "700"}, contract.Target{}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tt.flags.target(now)
			if (err != nil) != tt.bad || got != tt.want {
				t.Errorf("got %+v, %v", got, err)
			}
			if tt.bad && exitCode(err) != exitUsage {
				t.Errorf("exit code %d for %v", exitCode(err), err)
			}
		})
	}
}

func TestStatusVerdict(t *testing.T) {
	seconds := func(s float64) *float64 { return &s }
	good := func() *clusterStatus {
		return &clusterStatus{
			ExposureSeconds: seconds(10), RPOTarget: 60, LastBackup: &statusBackup{},
			LastVerified: &statusProof{"b", contract.Verified{Verdict: contract.Pass}}, LastDrill: &statusDrill{Verdict: contract.Pass},
		}
	}
	tests := map[string]struct {
		spoil func(s *clusterStatus)
		want  contract.Verdict
	}{
		"all well":              {func(*clusterStatus) {}, contract.Pass},
		"exposure at the limit": {func(s *clusterStatus) { s.ExposureSeconds = seconds(60) }, contract.Pass},
		"exposure beyond":       {func(s *clusterStatus) { s.ExposureSeconds = seconds(60.1) }, contract.Fail},
		"exposure unknown":      {func(s *clusterStatus) { s.ExposureSeconds = nil }, contract.CouldNotVerify},
		"no backup":             {func(s *clusterStatus) { s.LastBackup = nil }, contract.Fail},
		"no backup, no news":    {func(s *clusterStatus) { s.LastBackup, s.ExposureSeconds = nil, nil }, contract.Fail},
		"never verified":        {func(s *clusterStatus) { s.LastVerified = nil }, contract.Partial},
		"verification failed":   {func(s *clusterStatus) { s.LastVerified.Verdict = contract.Fail }, contract.Fail},
		"half verified":         {func(s *clusterStatus) { s.LastVerified.Verdict = contract.CouldNotVerify }, contract.Partial},
		"never drilled":         {func(s *clusterStatus) { s.LastDrill = nil }, contract.Partial},
		"drill failed":          {func(s *clusterStatus) { s.LastDrill.Verdict = contract.Fail }, contract.Fail},
		"drill partial":         {func(s *clusterStatus) { s.LastDrill.Verdict = contract.Partial }, contract.Partial},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good()
			tt.spoil(s)
			s.judge()
			if s.Verdict != tt.want {
				t.Errorf("verdict %s (%v), want %s", s.Verdict, s.reasons, tt.want)
			}
			if (len(s.reasons) == 0) != (s.Verdict == contract.Pass) {
				t.Errorf("reasons %v for %s", s.reasons, s.Verdict)
			}
		})
	}
}

func TestMeter(t *testing.T) {
	reports := []contract.Progress{
		{Phase: "lay", Done: 1e6, Total: 4e6},
		{Phase: "lay", Done: 2e6, Total: 4e6, Rate: 1e6},
		{Phase: "replay", Waiting: "target latest"},
	}
	for name, tt := range map[string]struct {
		terminal bool
		want     string
	}{
		"lines, one a phase": {false, "lay 25% of 4.0 MB\nreplay, waiting for target latest\n"},
		"bar": {true, "\r\x1b[K[======                  ] lay 25% of 4.0 MB" +
			"\r\x1b[K[============            ] lay 50% of 4.0 MB at 1.0 MB/s\r\x1b[Kreplay, waiting for target latest\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			m := &meter{bottom: &bottomLine{out: &out}, terminal: tt.terminal}
			for _, p := range reports {
				m.show(p)
				m.show(p)
			}
			m.end()
			m.end()
			if out.String() != tt.want {
				t.Errorf("got %q, want %q", out.String(), tt.want)
			}
		})
	}
	var none *meter
	none.show(reports[0])
	none.end()
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"quiet", "qiet", 1}, {"json", "jsn", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
