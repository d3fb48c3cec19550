package verify

import (
	"errors"
	"fmt"

	"lifeboat/internal/repo"
)

// MaxLevel is the highest level that Backup and All climb to.
const MaxLevel = 5

// MaxProblems is how many problems a report lists at most; Omitted counts the others.
const MaxProblems = 1000

// Problem is one thing that is wrong, or that could not be looked at.
type Problem struct {
	Level   int
	Outcome Outcome // Failed, Unable, or Skipped for a level that does not apply
	Object  string  // key in the repository; "" if it is none's
	File    string  // path in the data directory; "" if it is none's
	Block   int64   // number of the block in the relation's fork; -1 if it is none's
	Text    string
}

// BackupReport is what was found of one backup.
type BackupReport struct {
	// BackupID is "" for what All finds in objects of the cluster that no visible backup needs.
	BackupID string
	// Levels are the outcomes; "" is a level that was not asked for, or not reached after a failure below it.
	Levels   [MaxLevel + 1]Outcome
	Problems []Problem
	// Omitted is how many problems more there were than are listed.
	Omitted int
}

// Outcome is Failed if anything is wrong, else Unable if anything could not be looked at, else Passed.
func (r *BackupReport) Outcome() Outcome {
	out := Unable
	for _, o := range r.Levels {
		if o == Failed {
			return Failed
		}
		if o == Passed && out == Unable {
			out = Passed
		}
	}
	for _, o := range r.Levels {
		if o == Unable {
			return Unable
		}
	}
	return out
}

// Level is the highest level that passed, with nothing but passes below it (a level that does not apply does not count
// either way). It is 0 also if level 0 did not pass; the outcome is then not Passed.
func (r *BackupReport) Level() int {
	reached := 0
	for level, o := range r.Levels {
		switch o {
		case Passed:
			reached = level
		case Skipped:
		default:
			return reached
		}
	}
	return reached
}

// add takes a problem into account. What was found already of the same place is not listed again.
func (r *BackupReport) add(p Problem) {
	r.Levels[p.Level] = worse(r.Levels[p.Level], p.Outcome)
	if p.Object != "" || p.File != "" {
		for _, q := range r.Problems {
			if q.Object == p.Object && q.File == p.File && q.Block == p.Block && q.Outcome == p.Outcome {
				return
			}
		}
	}
	if len(r.Problems) >= MaxProblems {
		r.Omitted++
		return
	}
	r.Problems = append(r.Problems, p)
}

// passed marks a level that ran to its end.
func (r *BackupReport) passed(level int) { r.Levels[level] = worse(r.Levels[level], Passed) }

// worse combines what two parts of a level say.
func worse(a, b Outcome) Outcome {
	rank := map[Outcome]int{"": 0, Passed: 1, Skipped: 2, Unable: 3, Failed: 4}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// problemOf makes a problem of an error at an object. What a store says of a connection or a disk proves nothing.
func problemOf(level int, object string, err error) Problem {
	p := Problem{Level: level, Outcome: Failed, Object: object, Block: -1}
	var damage *repo.DamageError
	switch {
	case errors.As(err, &damage):
		p.Object, p.Text = damage.Key, "damaged: "+damage.Reason
		if damage.Frame >= 0 {
			p.Text = fmt.Sprintf("damaged at frame %d: %s", damage.Frame, damage.Reason)
		}
	case errors.Is(err, repo.ErrNotFound):
		p.Text = "missing"
	default:
		p.Outcome, p.Text = Unable, "could not be read: "+err.Error()
	}
	return p
}
