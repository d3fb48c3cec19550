package contract

import (
	"encoding/json"
	"fmt"
	"time"
)

// DrillInput starts workflow Drill.
type DrillInput struct {
	Cluster string `json:"cluster"`
	// Scenario is restore by default: a restore to a chosen second in a place of its own. Others come later.
	Scenario string `json:"scenario,omitempty"`
	// Target is, by default, a second between two canary rows that the drill writes into the protected cluster.
	Target Target `json:"target,omitzero"`
	// Backup is, by default, the newest from which the target can be reached.
	Backup   string `json:"backup,omitempty"`
	Timeline uint32 `json:"timeline,omitempty"`
	// DisasterAt is when the data was lost, for the RPO; by default the target's time.
	DisasterAt string `json:"disasterAt,omitempty"`
	// Checks are run besides those of the configuration.
	Checks []SQLCheck `json:"checks,omitempty"`
}

// SQLCheck is one of the owner's checks: a query of one value, and the text that it must give.
type SQLCheck struct {
	Name   string `json:"name"`
	SQL    string `json:"sql"`
	Expect string `json:"expect"`
	// Database is that of the cluster's dsn by default.
	Database string `json:"database,omitempty"`
}

// ScenarioRestore is the default scenario.
const ScenarioRestore = "restore"

// Validate names what is wrong.
func (in *DrillInput) Validate() error {
	if in.Cluster == "" {
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	}
	if in.Scenario != "" && in.Scenario != ScenarioRestore {
		return fmt.Errorf(`scenario %q is not available in this version: use %q`, in.Scenario, ScenarioRestore)
	}
	if in.DisasterAt != "" {
		if _, err := ParseTime(in.DisasterAt, time.Now()); err != nil {
			return fmt.Errorf(`field "disasterAt": %w`, err)
		}
	}
	for i, c := range in.Checks {
		if c.Name == "" || c.SQL == "" {
			return fmt.Errorf("check %d needs a name and sql", i+1)
		}
		if c.Database != "" {
			return fmt.Errorf(`check %d (%s): field "database" is not available in this version: checks run in the database of the cluster's dsn`, i+1, c.Name)
		}
	}
	return in.Target.Validate()
}

// PrepareDrillInput starts activity PrepareDrill on any worker; it decides where and at what the drill aims.
type PrepareDrillInput struct {
	Cluster string `json:"cluster"`
	DrillID string `json:"drillId"`
	Target  Target `json:"target,omitzero"`
}

// PrepareDrillResult binds the rest of the drill to one host.
type PrepareDrillResult struct {
	Host      string    `json:"host"`
	Queue     string    `json:"queue"`
	TargetDir string    `json:"targetDir"`
	Target    Target    `json:"target"`
	StartedAt time.Time `json:"startedAt"`
	// Canary names the rows that the drill wrote; empty if it wrote none.
	Canary string `json:"canary,omitempty"`
}

// ProveRecoveryInput starts activity ProveRecovery: start, replay, assert, check, stop. The server dies with the worker.
type ProveRecoveryInput struct {
	Cluster string          `json:"cluster"`
	Plan    json.RawMessage `json:"plan"`
	DrillID string          `json:"drillId"`
	Canary  string          `json:"canary,omitempty"`
	Checks  []SQLCheck      `json:"checks,omitempty"`
}

// ProveRecoveryResult is what the server showed. A failed check is a result, not an error.
type ProveRecoveryResult struct {
	Reached *Reached      `json:"reached"`
	Checks  []CheckResult `json:"checks"`
	Spans   Spans         `json:"spans"`
}

// CheckResult is one check of a drill.
type CheckResult struct {
	ID       string  `json:"id"`
	Level    int     `json:"level"`
	Verdict  Verdict `json:"verdict"`
	Expected string  `json:"expected"`
	Observed string  `json:"observed"`
	Seconds  float64 `json:"seconds"`
}

// CleanUpDrillInput starts activity CleanUpDrill, which removes the drill's server and files, whoever left them.
type CleanUpDrillInput struct {
	TargetDir string `json:"targetDir"`
	DrillID   string `json:"drillId"`
}

// CleanUpDrillResult tells what was found.
type CleanUpDrillResult struct {
	Removed bool `json:"removed"`
}

// PublishReportInput starts activity PublishReport, which stores the report and the proof of the backup.
type PublishReportInput struct {
	Report Report `json:"report"`
}

// PublishReportResult tells where the report is.
type PublishReportResult struct {
	Report Report `json:"report"`
}

// RTO is the recovery time, in seconds.
type RTO struct {
	Target    float64  `json:"target"`
	Measured  float64  `json:"measured"`
	Predicted *float64 `json:"predicted"` // null until it can be learned
	Spans     Spans    `json:"spans"`
}

// RPO is the data loss, in seconds. Measured is null if it could not be measured.
type RPO struct {
	Target   float64  `json:"target"`
	Measured *float64 `json:"measured"`
}

// DrillResult ends workflow Drill.
type DrillResult struct {
	DrillID    string        `json:"drillId"`
	Cluster    string        `json:"cluster"`
	Scenario   string        `json:"scenario"`
	Verdict    Verdict       `json:"verdict"`
	Level      int           `json:"level"`
	Checks     []CheckResult `json:"checks"`
	RTO        RTO           `json:"rto"`
	RPO        RPO           `json:"rpo"`
	Report     string        `json:"report"`
	WorkflowID string        `json:"workflowId"`
	// Skipped tells why a scheduled run with the verdict SKIPPED rehearsed nothing: the cluster was busy. It has no report.
	Skipped string `json:"skipped,omitempty"`
}

// Report is the evidence of a drill.
type Report struct {
	Format int `json:"format"` // 1
	DrillResult
	BackupID         string          `json:"backupId"`
	SystemIdentifier string          `json:"systemIdentifier"`
	Host             string          `json:"host"`
	Target           Target          `json:"target"`
	Reached          *Reached        `json:"reached"`
	DisasterAt       *time.Time      `json:"disasterAt"`
	StartedAt        time.Time       `json:"startedAt"`
	FinishedAt       time.Time       `json:"finishedAt"`
	Plan             json.RawMessage `json:"plan"`
	Files            int64           `json:"files"`
	Bytes            int64           `json:"bytes"`
	CleanedUp        bool            `json:"cleanedUp"`
	// Failure tells why a drill ended before its checks; empty otherwise.
	Failure string `json:"failure,omitempty"`
}

// ObjectiveChecks hold the measured figures of a report against its objectives. Where there is no objective (0), or the
// server did not come back at all, there is nothing to hold. An objective whose figure could not be measured is
// COULD_NOT_VERIFY: unknown is not within.
func ObjectiveChecks(r *Report) []CheckResult {
	if r.Reached == nil {
		return nil
	}
	var out []CheckResult
	add := func(id string, target float64, measured *float64) {
		if target <= 0 {
			return
		}
		c := CheckResult{ID: id, Level: 5, Verdict: CouldNotVerify, Expected: fmt.Sprintf("at most %.3f s", target), Observed: "not measured"}
		if measured != nil {
			c.Observed, c.Verdict = fmt.Sprintf("%.3f s", *measured), Pass
			if *measured > target {
				c.Verdict = Fail
			}
		}
		out = append(out, c)
	}
	add("rto", r.RTO.Target, &r.RTO.Measured)
	add("rpo", r.RPO.Target, r.RPO.Measured)
	return out
}
