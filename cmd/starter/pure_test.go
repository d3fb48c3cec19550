package main

import (
	"bytes"
	"testing"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

const segment = pg.DefaultSegmentSize

func lsn(n pg.LSN) *pg.LSN { return &n }

func TestExposure(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	frontier := pg.LSN(5 * segment)
	tests := map[string]struct {
		c        coverage
		exposure any // nil or seconds
		lag      any // nil or bytes
	}{
		"server behind the frontier":   {coverage{server: lsn(frontier - 1), frontier: frontier}, 0.0, int64(0)},
		"server at the frontier":       {coverage{server: lsn(frontier), frontier: frontier}, 0.0, int64(0)},
		"empty segment":                {coverage{server: lsn(frontier + 40), frontier: frontier, newest: ago(time.Hour)}, 0.0, int64(40)},
		"running transactions only":    {coverage{server: lsn(frontier + 0x60), frontier: frontier, newest: ago(time.Hour)}, 0.0, int64(0x60)},
		"room for a change":            {coverage{server: lsn(frontier + 0x61), frontier: frontier, newest: ago(time.Hour)}, 3600.0, int64(0x61)},
		"server at a frontier inside":  {coverage{server: lsn(frontier + 8), frontier: frontier + 8, newest: ago(time.Hour)}, 0.0, int64(0)},
		"frontier inside a segment":    {coverage{server: lsn(frontier + 48), frontier: frontier + 8, newest: ago(time.Minute)}, 60.0, int64(40)},
		"server ahead":                 {coverage{server: lsn(frontier + pg.LSN(segment)), frontier: frontier, newest: ago(90 * time.Second)}, 90.0, int64(segment)},
		"server ahead, nothing known":  {coverage{server: lsn(frontier + pg.LSN(segment)), frontier: frontier}, nil, int64(segment)},
		"server silent":                {coverage{frontier: frontier, newest: ago(time.Minute)}, 60.0, nil},
		"server silent, nothing known": {coverage{frontier: frontier}, nil, nil},
		"no WAL":                       {coverage{server: lsn(frontier)}, nil, nil},
		"clock of the commit ahead":    {coverage{server: lsn(2 * frontier), frontier: frontier, newest: ago(-time.Second)}, 0.0, int64(frontier)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.c.now, tt.c.segment = now, segment
			if got := value(tt.c.exposure()); got != tt.exposure {
				t.Errorf("exposure %v, want %v", got, tt.exposure)
			}
			if got := value(tt.c.lag()); got != tt.lag {
				t.Errorf("lag %v, want %v", got, tt.lag)
			}
		})
	}
}

// value is what p points to, or nil.
func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func TestTimelineFrontier(t *testing.T) {
	at := func(n uint64) pg.LSN { return pg.LSN(n * uint64(segment)) }
	backup := func(tli pg.Timeline, n uint64) *repo.Manifest {
		return &repo.Manifest{Timeline: tli, StartLSN: at(n) + 40}
	}
	runs := []wal.Run{{First: 1, Last: 3}, {First: 6, Last: 9}, {First: 12, Last: 12}}
	tests := map[string]struct {
		timeline  wal.Timeline
		manifests []*repo.Manifest
		want      pg.LSN
	}{
		"no backup":           {wal.Timeline{Timeline: 1, Runs: runs}, nil, at(4)},
		"newest backup":       {wal.Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2), backup(1, 7)}, at(10)},
		"older backup":        {wal.Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2)}, at(4)},
		"of another timeline": {wal.Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 2), backup(2, 7)}, at(4)},
		"backup in a gap":     {wal.Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 4)}, at(4)},
		"backup not archived": {wal.Timeline{Timeline: 1, Runs: runs}, []*repo.Manifest{backup(1, 20)}, at(20)},
		"partial alone":       {wal.Timeline{Timeline: 1, Partial: 7, HasPartial: true}, nil, at(7)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := timelineFrontier(&tt.timeline, tt.manifests, segment); got != tt.want {
				t.Errorf("frontier %v, want %v", got, tt.want)
			}
		})
	}
}

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
