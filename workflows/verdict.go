package workflows

import (
	"math"
	"slices"
	"time"

	"lifeboat/internal/contract"
)

// judge is the verdict of a drill. failure is that of the step at which it ended early, or "". leftBehind tells that
// cleaning up failed: what was proved stays proved, but a drill that leaves a server or files behind is not green.
func judge(checks []contract.CheckResult, failure contract.Verdict, leftBehind bool) contract.Verdict {
	parts := make([]contract.Verdict, 0, len(checks)+2)
	for _, c := range checks {
		parts = append(parts, c.Verdict)
	}
	if failure != "" {
		parts = append(parts, failure)
	}
	if leftBehind {
		parts = append(parts, contract.CouldNotVerify)
	}
	return contract.Worst(parts...)
}

// levelReached is the highest level at which a check passed, and at which, as at all levels below it, none did anything
// but pass. Skipped checks do not apply and do not count. It is 0 if there is none; the verdict is then not PASS.
func levelReached(checks []contract.CheckResult) int {
	limit := math.MaxInt // the lowest level at which something is wrong
	for _, c := range checks {
		if c.Verdict != contract.Pass && c.Verdict != contract.Skipped {
			limit = min(limit, c.Level)
		}
	}
	reached := 0
	for _, c := range checks {
		if c.Verdict == contract.Pass && c.Level < limit {
			reached = max(reached, c.Level)
		}
	}
	return reached
}

// failureVerdict is the verdict on a drill that ended with an error of an activity. It is FAIL only where the work
// itself found that the data cannot be recovered: a plan that was refused because its target cannot be reached, or
// files, replay or server that failed in a way that trying again does not mend. A missing worker, an unreachable
// repository or a wrong setting prove nothing about the backup.
func failureVerdict(activity, errorType string) contract.Verdict {
	judged := []string{contract.PlanRestoreActivity, contract.LayFilesActivity, contract.ProveRecoveryActivity}
	switch {
	case errorType == contract.ErrorRefused && activity == contract.PlanRestoreActivity,
		errorType == contract.ErrorFailed && slices.Contains(judged, activity):
		return contract.Fail
	}
	return contract.CouldNotVerify
}

// recoveryTime is the RTO in seconds: what a person would have waited from the decision to restore to a server that
// takes writes, lost attempts and waiting for workers included. Checking comes after that and is taken off.
func recoveryTime(begun, ended time.Time, checking float64) float64 {
	return max(0, ended.Sub(begun).Seconds()-checking)
}

// dataLoss is the RPO in seconds: from the last commit that came back to the disaster. It is nil if the server could
// not tell its last commit, and never negative: commits after the disaster are no loss.
func dataLoss(disaster time.Time, reached *contract.Reached) *float64 {
	if reached == nil || reached.LastCommitAt == nil {
		return nil
	}
	lost := max(0, disaster.Sub(*reached.LastCommitAt).Seconds())
	return &lost
}

// disasterTime is when the data was lost: as given, else the time that the drill aims at, else its start.
func disasterTime(given string, target contract.Target, started time.Time) (time.Time, error) {
	switch {
	case given != "":
		return contract.ParseTime(given, started)
	case target.Kind == targetTime:
		return contract.ParseTime(target.Value, started)
	}
	return started.UTC(), nil
}
