package migrate

import "fmt"

// Severity is how much a finding matters.
type Severity string

// The severities.
const (
	// SeverityError: it can take a service down or break it; Apply refuses it.
	SeverityError Severity = "error"
	// SeverityWarning: it is worth a thought.
	SeverityWarning Severity = "warning"
)

// Finding is what the lint has to say about one statement.
type Finding struct {
	// Rule is squawk's name for it, where squawk has the rule.
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	// Statement is its number from 1, 0 for the file as a whole; Line where it begins.
	Statement int    `json:"statement"`
	Line      int    `json:"line"`
	Message   string `json:"message"`
	Remedy    string `json:"remedy"`
	// Reason is why it was accepted, if it was.
	Reason string `json:"reason,omitempty"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%s %s: %s:%d: %s; %s", f.Severity, f.Rule, f.File, f.Line, f.Message, f.Remedy)
}
