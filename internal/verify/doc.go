// Package verify holds the ladder: the checks that tell, step by step and at rising cost, whether a backup can be
// restored.
//
// A check has three outcomes, and keeps them apart: it ran and found nothing wrong, it ran and found something, or it
// could not run. The last is never taken for the first (invariant 8).
//
// [Backup] and [All] climb levels 0 to 5 by themselves: packs are there (0), every object is what was written (1), WAL
// is continuous and says what its records say (2), pages match their checksums (3), PostgreSQL's own pg_verifybackup
// accepts the restored files (4), and a server replays them to a commit chosen inside the archive (5). Objects are read
// once, however many backups share them, and memory does not grow with their size. A finding names the object, and where
// it can the file and the block. docs/verification.md tells what each level proves and what it misses.
//
// The other functions are single checks of restored files and servers, which drills also run: [Checksums], [Manifest],
// [Transaction], [Amcheck], [Catalog] (level 6) and [SQL] (level 7).
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
