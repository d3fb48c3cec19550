package workflows

import (
	"testing"
	"time"

	"lifeboat/internal/contract"
)

func check(level int, v contract.Verdict) contract.CheckResult {
	return contract.CheckResult{ID: "c", Level: level, Verdict: v}
}

func TestJudge(t *testing.T) {
	pass, fail, could, skipped := contract.Pass, contract.Fail, contract.CouldNotVerify, contract.Skipped
	for _, c := range []struct {
		name       string
		checks     []contract.CheckResult
		failure    contract.Verdict
		leftBehind bool
		verdict    contract.Verdict
		level      int
	}{
		{"no checks", nil, "", false, could, 0},
		{"all pass", []contract.CheckResult{check(5, pass), check(7, pass), check(6, pass)}, "", false, pass, 7},
		{"highest fails", []contract.CheckResult{check(7, fail), check(5, pass), check(6, pass)}, "", false, fail, 6},
		{"lowest fails", []contract.CheckResult{check(5, fail), check(6, pass), check(7, pass)}, "", false, fail, 0},
		{"one of two at a level fails", []contract.CheckResult{check(5, pass), check(5, fail)}, "", false, fail, 0},
		{"two fail, the lower counts", []contract.CheckResult{check(7, fail), check(4, pass), check(5, fail)}, "", false, fail, 4},
		{"one that passes between two that fail", []contract.CheckResult{check(5, fail), check(6, pass), check(7, fail)}, "", false, fail, 0},
		{"middle could not run", []contract.CheckResult{check(5, pass), check(6, could), check(7, pass)}, "", false, contract.Partial, 5},
		{"middle skipped", []contract.CheckResult{check(5, pass), check(6, skipped), check(7, pass)}, "", false, pass, 7},
		{"highest skipped", []contract.CheckResult{check(5, pass), check(7, skipped)}, "", false, pass, 5},
		{"all skipped", []contract.CheckResult{check(5, skipped), check(7, skipped)}, "", false, could, 0},
		{"none could run", []contract.CheckResult{check(5, could), check(6, skipped)}, "", false, could, 0},
		{"pass but left behind", []contract.CheckResult{check(5, pass)}, "", true, contract.Partial, 5},
		{"fail and left behind", []contract.CheckResult{check(5, fail)}, "", true, fail, 0},
		{"refused", nil, fail, false, fail, 0},
		{"refused and left behind", nil, fail, true, fail, 0},
		{"no host", nil, could, false, could, 0},
		{"no host and left behind", nil, could, true, could, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judge(c.checks, c.failure, c.leftBehind); got != c.verdict {
				t.Errorf("verdict is %s, want %s", got, c.verdict)
			}
			if got := levelReached(c.checks); got != c.level {
				t.Errorf("level is %d, want %d", got, c.level)
			}
		})
	}
}

func TestFailureVerdict(t *testing.T) {
	for _, c := range []struct {
		activity, kind string
		want           contract.Verdict
	}{
		{contract.PlanRestoreActivity, contract.ErrorRefused, contract.Fail},
		{contract.PlanRestoreActivity, contract.ErrorFailed, contract.Fail},
		{contract.PlanRestoreActivity, errorNoWorker, contract.CouldNotVerify},
		{contract.PlanRestoreActivity, "", contract.CouldNotVerify},
		{contract.LayFilesActivity, contract.ErrorFailed, contract.Fail},
		{contract.LayFilesActivity, contract.ErrorRefused, contract.CouldNotVerify},
		{contract.ProveRecoveryActivity, contract.ErrorFailed, contract.Fail},
		{contract.ProveRecoveryActivity, contract.ErrorBusy, contract.CouldNotVerify},
		{contract.PrepareDrillActivity, contract.ErrorFailed, contract.CouldNotVerify},
		{contract.PrepareDrillActivity, contract.ErrorRefused, contract.CouldNotVerify},
	} {
		if got := failureVerdict(c.activity, c.kind); got != c.want {
			t.Errorf("%s with %q is %s, want %s", c.activity, c.kind, got, c.want)
		}
	}
}

func TestRecoveryTime(t *testing.T) {
	if got := recoveryTime(start, start.Add(90*time.Second), 30); got != 60 {
		t.Errorf("got %v, want 60", got)
	}
	if got := recoveryTime(start, start.Add(time.Second), 30); got != 0 {
		t.Errorf("got %v, want 0: never negative", got)
	}
}

func TestDataLoss(t *testing.T) {
	commit := start.Add(-90 * time.Second)
	later := start.Add(time.Second)
	for _, c := range []struct {
		name    string
		reached *contract.Reached
		want    float64 // -1: unknown
	}{
		{"nothing reached", nil, -1},
		{"no commit known", &contract.Reached{LSN: "0/1"}, -1},
		{"90 s lost", &contract.Reached{LastCommitAt: &commit}, 90},
		{"commits after the disaster", &contract.Reached{LastCommitAt: &later}, 0},
	} {
		got := dataLoss(start, c.reached)
		switch {
		case got == nil && c.want != -1, got != nil && *got != c.want:
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDisasterTime(t *testing.T) {
	for _, c := range []struct {
		name, given string
		target      contract.Target
		want        time.Time
	}{
		{"given", "2026-11-23T08:45:00+01:00", contract.Target{Kind: "time", Value: "2026-11-23T07:00:00Z"}, start.Add(-time.Second)},
		{"given relative to the start", "1 minute ago", contract.Target{}, start.Add(-time.Minute)},
		{"time target", "", contract.Target{Kind: "time", Value: "2026-11-23T07:45:00Z"}, start.Add(-time.Second)},
		{"restore point", "", contract.Target{Kind: "name", Value: "canary"}, start},
		{"latest", "", contract.Target{}, start},
	} {
		got, err := disasterTime(c.given, c.target, start)
		if err != nil || !got.Equal(c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	if _, err := disasterTime("", contract.Target{Kind: "time", Value: "noon"}, start); err == nil {
		t.Error("a target that is no time gave one")
	}
}

func TestDrillID(t *testing.T) {
	berlin := time.FixedZone("Berlin", 3600)
	a, b := drillID(start, "run a"), drillID(start.In(berlin), "run a")
	if a != b || a != "20261123T074501Z-4ece8f" {
		t.Errorf("got %s and %s", a, b)
	}
	if other := drillID(start, "run b"); other == a {
		t.Errorf("two runs have the id %s", a)
	}
}

func TestSystemIdentifier(t *testing.T) {
	for raw, want := range map[string]string{`"7300"`: "7300", `7300`: "7300", `null`: "", ``: ""} {
		if got := (planFacts{System: []byte(raw)}).systemIdentifier(); got != want {
			t.Errorf("%s gave %q, want %q", raw, got, want)
		}
	}
}
