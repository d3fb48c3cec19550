package contract

import (
	"fmt"
	"time"
)

// HealthCheckInput starts workflow HealthCheck and activity CheckHealth.
type HealthCheckInput struct {
	Cluster string `json:"cluster"`
	// Previous is the check before this one; null: there was none, and what is seen opens at once. A workflow that a
	// schedule starts takes it from the schedule's last result by itself.
	Previous *HealthMemory `json:"previous,omitempty"`
}

// Validate names what is wrong.
func (in *HealthCheckInput) Validate() error {
	if in.Cluster == "" {
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	}
	return nil
}

// HealthMemory is what a check leaves to the next.
type HealthMemory struct {
	At        time.Time        `json:"at"`
	Findings  []HealthFinding  `json:"findings"`
	Positions []HealthPosition `json:"positions,omitempty"`
}

// HealthPosition is where the server was at a check.
type HealthPosition struct {
	At  time.Time `json:"at"`
	LSN string    `json:"lsn"`
}

// HealthCheckResult ends workflow HealthCheck, and is what `lifeboat health` prints.
type HealthCheckResult struct {
	Cluster string `json:"cluster"`
	// Verdict is FAIL if a critical finding is open, else COULD_NOT_VERIFY if something could not be looked at, else PASS.
	Verdict   Verdict   `json:"verdict"`
	CheckedAt time.Time `json:"checkedAt"`
	// Findings are those that are open or pending, the worst first.
	Findings []HealthFinding `json:"findings"`
	// Opened are the ids of those that this check opened, Closed are those that it closed.
	Opened []string        `json:"opened"`
	Closed []HealthFinding `json:"closed"`
	// NotLookedAt are the areas that could not be looked at: findings of theirs stay as they were.
	NotLookedAt []HealthUnseen `json:"notLookedAt"`
	// ExposureSeconds is null when it is not known.
	ExposureSeconds *float64 `json:"exposureSeconds"`
	// Positions are for the next check.
	Positions  []HealthPosition `json:"positions"`
	Seconds    float64          `json:"seconds"`
	WorkflowID string           `json:"workflowId"`
}

// Memory is what this check leaves to the next.
func (r *HealthCheckResult) Memory() *HealthMemory {
	return &HealthMemory{At: r.CheckedAt, Findings: r.Findings, Positions: r.Positions}
}

// HealthStatus is where a finding is in its life.
type HealthStatus string

// The states. A pending finding was seen too few times in a row to count; it is not part of the verdict.
const (
	FindingPending HealthStatus = "pending"
	FindingOpen    HealthStatus = "open"
	FindingClosed  HealthStatus = "closed"
)

// HealthFinding is one thing that is wrong, over several checks. docs/health.md lists the rules.
type HealthFinding struct {
	// ID stays the same as long as it is the same thing: the rule and, where it finds several, the object.
	ID       string       `json:"id"`
	Rule     string       `json:"rule"`
	Severity string       `json:"severity"` // critical, warning or info
	Status   HealthStatus `json:"status"`
	Evidence string       `json:"evidence"`
	Remedy   string       `json:"remedy"`
	// Sightings in a row, of a pending one; Absences in a row, of one that is open.
	Sightings int `json:"sightings"`
	Absences  int `json:"absences"`

	FirstSeenAt time.Time  `json:"firstSeenAt"`
	LastSeenAt  time.Time  `json:"lastSeenAt"`
	OpenedAt    *time.Time `json:"openedAt"` // null while it is pending
}

// HealthUnseen is an area that could not be looked at.
type HealthUnseen struct {
	Area   string `json:"area"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}
