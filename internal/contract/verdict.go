package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"time"
)

// ReportFormat is the version of Report that this program writes.
const ReportFormat = 1

// DrillID names a drill by its time and, so that two of one second differ, by the run that rehearses. The same time
// and run give the same id, which a workflow's replay depends on.
func DrillID(at time.Time, run string) string {
	sum := sha256.Sum256([]byte(run))
	return at.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(sum[:])[:6]
}

// Judge is the verdict of a drill. failure is that of the step at which it ended early, or "". leftBehind tells that
// cleaning up failed: what was proved stays proved, but a drill that leaves a server or files behind is not green.
func Judge(checks []CheckResult, failure Verdict, leftBehind bool) Verdict {
	parts := make([]Verdict, 0, len(checks)+2)
	for _, c := range checks {
		parts = append(parts, c.Verdict)
	}
	if failure != "" {
		parts = append(parts, failure)
	}
	if leftBehind {
		parts = append(parts, CouldNotVerify)
	}
	return Worst(parts...)
}

// LevelReached is the highest level at which a check passed, and at which, as at all levels below it, none did anything
// but pass. Skipped checks do not apply and do not count, as in Worst. It is 0 if there is none; the verdict is then
// not PASS.
func LevelReached(checks []CheckResult) int {
	limit := math.MaxInt // the lowest level at which something is wrong
	for _, c := range checks {
		if c.Verdict != Pass && c.Verdict != Skipped {
			limit = min(limit, c.Level)
		}
	}
	reached := 0
	for _, c := range checks {
		if c.Verdict == Pass && c.Level < limit {
			reached = max(reached, c.Level)
		}
	}
	return reached
}

// FailureVerdict is the verdict on a drill that ended with an error of an activity. It is FAIL only where the work
// itself found that the data cannot be recovered: a plan that was refused because its target cannot be reached, or
// files, replay or server that failed in a way that trying again does not mend. A missing worker, an unreachable
// repository or a wrong setting prove nothing about the backup.
func FailureVerdict(activity, errorType string) Verdict {
	judged := []string{PlanRestoreActivity, LayFilesActivity, ProveRecoveryActivity}
	switch {
	case errorType == ErrorRefused && activity == PlanRestoreActivity,
		errorType == ErrorFailed && slices.Contains(judged, activity):
		return Fail
	}
	return CouldNotVerify
}

// RecoveryTime is the RTO in seconds: what a person would have waited from the decision to restore to a server that
// takes writes, lost attempts and waiting for workers included. Checking, in seconds, comes after that and is taken off.
func RecoveryTime(begun, ended time.Time, checking float64) float64 {
	return max(0, ended.Sub(begun).Seconds()-checking)
}

// DataLoss is the RPO in seconds: from the last commit that came back to the disaster. It is nil if the server could
// not tell its last commit, and never negative: commits after the disaster are no loss.
func DataLoss(disaster time.Time, reached *Reached) *float64 {
	if reached == nil || reached.LastCommitAt == nil {
		return nil
	}
	lost := max(0, disaster.Sub(*reached.LastCommitAt).Seconds())
	return &lost
}

// DisasterTime is when the data was lost: as given, else the time that the drill aims at, else its start. A given time
// may be relative to the start ("5 minutes ago").
func DisasterTime(given string, target Target, started time.Time) (time.Time, error) {
	switch {
	case given != "":
		return ParseTime(given, started)
	case target.Kind == "time":
		return ParseTime(target.Value, started)
	}
	return started.UTC(), nil
}
