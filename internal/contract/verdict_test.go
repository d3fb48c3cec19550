package contract

import (
	"testing"
	"time"
)

// start is when the drills of these tests begin.
var start = time.Date(2026, 11, 23, 7, 45, 1, 0, time.UTC)

func check(level int, v Verdict) CheckResult {
	return CheckResult{ID: "c", Level: level, Verdict: v}
}

func TestJudge(t *testing.T) {
	pass, fail, could, skipped := Pass, Fail, CouldNotVerify, Skipped
	for _, c := range []struct {
		name       string
		checks     []CheckResult
		failure    Verdict
		leftBehind bool
		verdict    Verdict
		level      int
	}{
		{"no checks", nil, "", false, could, 0},
		{"all pass", []CheckResult{check(5, pass), check(7, pass), check(6, pass)}, "", false, pass, 7},
		{"highest fails", []CheckResult{check(7, fail), check(5, pass), check(6, pass)}, "", false, fail, 6},
		{"lowest fails", []CheckResult{check(5, fail), check(6, pass), check(7, pass)}, "", false, fail, 0},
		{"one of two at a level fails", []CheckResult{check(5, pass), check(5, fail)}, "", false, fail, 0},
		{"two fail, the lower counts", []CheckResult{check(7, fail), check(4, pass), check(5, fail)}, "", false, fail, 4},
		{"one that passes between two that fail", []CheckResult{check(5, fail), check(6, pass), check(7, fail)}, "", false, fail, 0},
		{"middle could not run", []CheckResult{check(5, pass), check(6, could), check(7, pass)}, "", false, Partial, 5},
		{"middle skipped", []CheckResult{check(5, pass), check(6, skipped), check(7, pass)}, "", false, pass, 7},
		{"highest skipped", []CheckResult{check(5, pass), check(7, skipped)}, "", false, pass, 5},
		{"all skipped", []CheckResult{check(5, skipped), check(7, skipped)}, "", false, could, 0},
		{"none could run", []CheckResult{check(5, could), check(6, skipped)}, "", false, could, 0},
		{"pass but left behind", []CheckResult{check(5, pass)}, "", true, Partial, 5},
		{"fail and left behind", []CheckResult{check(5, fail)}, "", true, fail, 0},
		{"refused", nil, fail, false, fail, 0},
		{"refused and left behind", nil, fail, true, fail, 0},
		{"no host", nil, could, false, could, 0},
		{"no host and left behind", nil, could, true, could, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Judge(c.checks, c.failure, c.leftBehind); got != c.verdict {
				t.Errorf("verdict is %s, want %s", got, c.verdict)
			}
			if got := LevelReached(c.checks); got != c.level {
				t.Errorf("level is %d, want %d", got, c.level)
			}
		})
	}
}

func TestFailureVerdict(t *testing.T) {
	for _, c := range []struct {
		activity, kind string
		want           Verdict
	}{
		{PlanRestoreActivity, ErrorRefused, Fail},
		{PlanRestoreActivity, ErrorFailed, Fail},
		{PlanRestoreActivity, "NoWorker", CouldNotVerify},
		{PlanRestoreActivity, "", CouldNotVerify},
		{LayFilesActivity, ErrorFailed, Fail},
		{LayFilesActivity, ErrorRefused, CouldNotVerify},
		{ProveRecoveryActivity, ErrorFailed, Fail},
		{ProveRecoveryActivity, ErrorBusy, CouldNotVerify},
		{PrepareDrillActivity, ErrorFailed, CouldNotVerify},
		{PrepareDrillActivity, ErrorRefused, CouldNotVerify},
	} {
		if got := FailureVerdict(c.activity, c.kind); got != c.want {
			t.Errorf("%s with %q is %s, want %s", c.activity, c.kind, got, c.want)
		}
	}
}

func TestRecoveryTime(t *testing.T) {
	if got := RecoveryTime(start, start.Add(90*time.Second), 30); got != 60 {
		t.Errorf("got %v, want 60", got)
	}
	if got := RecoveryTime(start, start.Add(time.Second), 30); got != 0 {
		t.Errorf("got %v, want 0: never negative", got)
	}
}

func TestDataLoss(t *testing.T) {
	commit := start.Add(-90 * time.Second)
	later := start.Add(time.Second)
	for _, c := range []struct {
		name    string
		reached *Reached
		want    float64 // -1: unknown
	}{
		{"nothing reached", nil, -1},
		{"no commit known", &Reached{LSN: "0/1"}, -1},
		{"90 s lost", &Reached{LastCommitAt: &commit}, 90},
		{"commits after the disaster", &Reached{LastCommitAt: &later}, 0},
	} {
		got := DataLoss(start, c.reached)
		switch {
		case got == nil && c.want != -1, got != nil && *got != c.want:
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDisasterTime(t *testing.T) {
	for _, c := range []struct {
		name, given string
		target      Target
		want        time.Time
	}{
		{"given", "2026-11-23T08:45:00+01:00", Target{Kind: "time", Value: "2026-11-23T07:00:00Z"}, start.Add(-time.Second)},
		{"given relative to the start", "1 minute ago", Target{}, start.Add(-time.Minute)},
		{"time target", "", Target{Kind: "time", Value: "2026-11-23T07:45:00Z"}, start.Add(-time.Second)},
		{"restore point", "", Target{Kind: "name", Value: "canary"}, start},
		{"latest", "", Target{}, start},
	} {
		got, err := DisasterTime(c.given, c.target, start)
		if err != nil || !got.Equal(c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	if _, err := DisasterTime("", Target{Kind: "time", Value: "noon"}, start); err == nil {
		t.Error("a target that is no time gave one")
	}
}

func TestDrillID(t *testing.T) {
	berlin := time.FixedZone("Berlin", 3600)
	a, b := DrillID(start, "run a"), DrillID(start.In(berlin), "run a")
	if a != b || a != "20261123T074501Z-4ece8f" {
		t.Errorf("got %s and %s", a, b)
	}
	if other := DrillID(start, "run b"); other == a {
		t.Errorf("two runs have the id %s", a)
	}
}
