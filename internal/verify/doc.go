// Package verify holds the checks of the ladder, each as a function that gives findings.
//
// A check has three outcomes, and keeps them apart: it ran and found nothing wrong, it ran and found something, or it
// could not run. The last is never taken for the first (invariant 8). This version has the checks that a drill runs on
// restored files and servers: levels 3 (page checksums), 4 (pg_verifybackup), 6 (pg_amcheck, invalid indexes, collation
// versions) and 7 (the owner's SQL).
package verify

import "time"

// Outcome is what a check did.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Unable  Outcome = "unable"  // it could not run: nothing is known
	Skipped Outcome = "skipped" // it does not apply; Observed says why
)

// Finding is the outcome of one check.
type Finding struct {
	ID       string // such as "manifest"
	Level    int    // of the ladder, 0 to 8
	Outcome  Outcome
	Expected string
	Observed string
	Took     time.Duration
}

// timed runs a check and fills the time that it took.
func timed(f func() Finding) Finding {
	begin := time.Now()
	out := f()
	out.Took = time.Since(begin)
	return out
}
