package schedule

import (
	"encoding/json"
	"fmt"

	"lifeboat/internal/contract"
)

// Status is how a run stands.
type Status string

// The statuses.
const (
	Running    Status = "running"
	Completed  Status = "completed"
	Failed     Status = "failed"
	Canceled   Status = "canceled"
	Terminated Status = "terminated"
	TimedOut   Status = "timedOut"
	// Gone: Temporal has dropped the run's history, as it does after the namespace's retention.
	Gone Status = "gone"
)

// Run is what became of a run that a schedule started.
type Run struct {
	Workflow string
	Status   Status
	// Result is the JSON of a completed run, Failure the message of one that failed.
	Result  []byte
	Failure string
}

// Verdict judges a run, and says why where it is not PASS; "" for one that is running, or that Temporal has forgotten. A
// backup that was taken is PASS, unless pages of it are corrupt. A backup that was not taken is FAIL; a verification or a
// drill that ended without a verdict proves nothing either way and is COULD_NOT_VERIFY.
func (r Run) Verdict() (contract.Verdict, string) {
	ended := contract.CouldNotVerify
	if r.Workflow == contract.BackupWorkflow {
		ended = contract.Fail
	}
	switch r.Status {
	case Running:
		return "", ""
	case Gone:
		return "", "its history is no longer in Temporal; reports and backups are in the repository"
	case Completed:
		return r.completed()
	case Failed:
		return ended, r.Failure
	}
	return ended, "the run was " + map[Status]string{Canceled: "cancelled", Terminated: "terminated", TimedOut: "timed out"}[r.Status]
}

func (r Run) completed() (contract.Verdict, string) {
	var result struct {
		Verdict                   contract.Verdict
		Skipped                   string
		BackupID                  string
		CorruptPages, UnsurePages int64
	}
	if err := json.Unmarshal(r.Result, &result); err != nil {
		return contract.CouldNotVerify, "its result cannot be read"
	}
	switch {
	case result.Skipped != "":
		return contract.Skipped, result.Skipped
	case result.Verdict != "":
		return result.Verdict, ""
	case r.Workflow != contract.BackupWorkflow || result.BackupID == "":
		return contract.CouldNotVerify, "its result has no verdict"
	case result.CorruptPages > 0:
		return contract.Fail, fmt.Sprintf("backup %s is kept, but has %d corrupt pages", result.BackupID, result.CorruptPages)
	case result.UnsurePages > 0:
		return contract.Partial, fmt.Sprintf("backup %s has %d pages that may be corrupt", result.BackupID, result.UnsurePages)
	}
	return contract.Pass, ""
}
