package workflows

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

// planFacts is the little that results need of a plan, which is otherwise passed on as the engine made it.
type planFacts struct {
	BackupID    string `json:"backupId"`
	WALSegments int64  `json:"walSegments"`
	// System is a JSON string or number.
	System json.RawMessage `json:"systemIdentifier"`
}

// systemIdentifier is the identifier in digits, or "" if the plan does not tell it.
func (f planFacts) systemIdentifier() string {
	text := strings.Trim(string(f.System), `"`)
	if text == "null" {
		return ""
	}
	return text
}

// readPlan reads the facts. It comes before anything is changed, so that a plan which cannot be read changes nothing.
func readPlan(planned contract.PlanRestoreResult) (planFacts, error) {
	var facts planFacts
	//workflowcheck:ignore // decoding into a struct does the same each time
	if err := json.Unmarshal(planned.Plan, &facts); err != nil {
		return facts, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("%s: its plan cannot be read: %v; are all workers of one version?", contract.PlanRestoreActivity, err),
			contract.ErrorConfiguration, err)
	}
	return facts, nil
}
