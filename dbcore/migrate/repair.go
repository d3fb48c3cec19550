package migrate

import "context"

// RepairOptions say what Repair may do. The zero value only looks.
type RepairOptions struct {
	// Execute takes the lock and does what is proposed, as far as the catalogs decide it.
	Execute bool
	// Resolve decides what the catalogs cannot tell: ResolveDone or ResolveNotRun for a statement or file,
	// ResolveVersionTable or ResolveHistory where these disagree. "" decides nothing.
	Resolve Resolution
	// AcceptEdited are versions whose files may stay as they are now, although they were applied otherwise.
	AcceptEdited []int64
	// AcceptDrift takes the schema as it is now for what the last migration left.
	AcceptDrift bool
}

// Resolution is a person's decision.
type Resolution string

// The decisions.
const (
	ResolveDone         Resolution = "done"
	ResolveNotRun       Resolution = "not-run"
	ResolveVersionTable Resolution = "version-table"
	ResolveHistory      Resolution = "history"
)

// RepairReport is what Repair found.
type RepairReport struct {
	// Items are empty if there is nothing to repair.
	Items []RepairItem `json:"items"`
}

// RepairItem is one thing that is not as it should be.
type RepairItem struct {
	// Kind is statement (one of a file that stopped), file (dirty by golang-migrate), index (INVALID, of a pending file),
	// versions (table and history disagree), edited, drift, or other-index (INVALID, of nobody's file: never touched).
	Kind    string `json:"kind"`
	Version int64  `json:"version,omitempty"`
	File    string `json:"file,omitempty"`
	// Statement is its number in the file, from 1.
	Statement int `json:"statement,omitempty"`
	// Outcome is what the catalogs say: done, not-run, leftover, running, unknown.
	Outcome  string   `json:"outcome,omitempty"`
	Evidence string   `json:"evidence"`
	Proposal string   `json:"proposal"`
	SQL      []string `json:"sql,omitempty"`
	// NeedsDecision says that only RepairOptions can decide it.
	NeedsDecision bool `json:"needsDecision,omitempty"`
	Executed      bool `json:"executed,omitempty"`
}

// Repair finds out what a migration left that stopped half-way, by asking the catalogs: an INVALID index, a statement
// whose end nobody has written down. It proposes, and does it if opts.Execute is set. It never guesses: what the catalogs
// cannot tell waits for opts.Resolve.
//
// Errors: as for Apply. Calling it again is safe.
func (m *Migrator) Repair(ctx context.Context, opts RepairOptions) (*RepairReport, error) {
	if !opts.Execute {
		return m.proposeRepair(ctx, opts)
	}
	return m.executeRepair(ctx, opts)
}
