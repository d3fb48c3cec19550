package migrate

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that callers decide on. Test with errors.Is; the types below carry the details.
var (
	// ErrSource says that the migration files cannot be used: names, duplicates, grammar.
	ErrSource = errors.New("migration files cannot be used")
	// ErrEdited says that a file was changed after it was applied.
	ErrEdited = errors.New("edited after it was applied")
	// ErrMissing says that a version is applied of which there is no file.
	ErrMissing = errors.New("applied, but its file is missing")
	// ErrGap says that a number is missing in the row of files.
	ErrGap = errors.New("gap in the numbers")
	// ErrOutOfOrder says that a file that is not applied is older than one that is.
	ErrOutOfOrder = errors.New("older than the newest applied version")
	// ErrDirty says that a file stopped half-way and its state must be looked at: see Repair.
	ErrDirty = errors.New("stopped half-way")
	// ErrMismatch says that golang-migrate's table and the history disagree: another tool has migrated.
	ErrMismatch = errors.New("version table and history disagree")
	// ErrLocked says that another migrator held the lock for longer than Options.LockWait. Nothing was done.
	ErrLocked = errors.New("another migrator is at work")
	// ErrLockLost says that the session that held the lock is no longer the one that it was.
	ErrLockLost = errors.New("the migration lock was lost")
	// ErrLockTimeout says that a statement did not get its locks in time, in all attempts: see BlockedError.
	ErrLockTimeout = errors.New("a lock was not granted in time")
	// ErrPlanChanged says that what would be done now is not what was planned.
	ErrPlanChanged = errors.New("the plan has changed")
	// ErrUnsafe says that findings of the lint stand against the plan: see UnsafeError.
	ErrUnsafe = errors.New("unsafe statements")
	// ErrIrreversible says that there is no way down.
	ErrIrreversible = errors.New("irreversible")
	// ErrDestructive says that going down would destroy data, which was not allowed.
	ErrDestructive = errors.New("destroys data")
	// ErrStandby says that the server is in recovery and takes no changes.
	ErrStandby = errors.New("the server is a standby")
	// ErrInvalidIndex says that an index is there but INVALID: it is kept up to date and used by no query. Repair drops it.
	ErrInvalidIndex = errors.New("the index is INVALID")
	// ErrNoVersion says that a target version is not among the files.
	ErrNoVersion = errors.New("no such version")
)

// Problem is one thing that is wrong between the files and the database.
type Problem struct {
	// Err is one of ErrEdited, ErrMissing, ErrGap, ErrOutOfOrder, ErrDirty, ErrMismatch.
	Err error `json:"-"`
	// Code is Err as a word: edited, missing, gap, out-of-order, dirty, mismatch.
	Code    string `json:"code"`
	Version int64  `json:"version"`
	Detail  string `json:"detail"`
	Remedy  string `json:"remedy"`
}

func (p Problem) String() string {
	return fmt.Sprintf("version %d: %v: %s; %s", p.Version, p.Err, p.Detail, p.Remedy)
}

var problemCodes = map[error]string{
	ErrEdited: "edited", ErrMissing: "missing", ErrGap: "gap", ErrOutOfOrder: "out-of-order", ErrDirty: "dirty", ErrMismatch: "mismatch",
}

func problem(err error, version int64, detail, remedy string) Problem {
	return Problem{Err: err, Code: problemCodes[err], Version: version, Detail: detail, Remedy: remedy}
}

// StateError lists what is wrong between files and database. Nothing was changed. errors.Is finds each Problem's Err.
type StateError struct{ Problems []Problem }

func (e *StateError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "migrations and database do not fit: " + strings.Join(lines, "; ")
}

// Unwrap returns the errors of the problems.
func (e *StateError) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p.Err
	}
	return errs
}

// StatementError says which statement failed, and what is left of its file.
type StatementError struct {
	Version int64
	File    string
	// Statement is its number in the file from 1, Line where it begins.
	Statement, Line int
	SQL             string
	// Left says what remains of the file.
	Left string
	Err  error
}

func (e *StatementError) Error() string {
	return fmt.Sprintf("%s: statement %d, line %d (%s): %v; %s", e.File, e.Statement, e.Line, shorten(e.SQL, 80), e.Err, e.Left)
}

// Unwrap returns the server's error.
func (e *StatementError) Unwrap() error { return e.Err }

// BlockedError is ErrLockTimeout with those who were in the way.
type BlockedError struct {
	Attempts int
	// Blockers are those last seen; empty if none was caught in the act.
	Blockers []Blocker
	Err      error
}

func (e *BlockedError) Error() string {
	who := "nobody was caught holding it"
	if len(e.Blockers) > 0 {
		names := make([]string, len(e.Blockers))
		for i, b := range e.Blockers {
			names[i] = b.String()
		}
		who = "in the way: " + strings.Join(names, "; ")
	}
	return fmt.Sprintf("%v in %d attempts, %s: %v", ErrLockTimeout, e.Attempts, who, e.Err)
}

// Is says that the error is an ErrLockTimeout.
func (e *BlockedError) Is(target error) bool { return target == ErrLockTimeout }

// Unwrap returns the last attempt's error.
func (e *BlockedError) Unwrap() error { return e.Err }

// LockedError is ErrLocked with the one who holds the lock.
type LockedError struct {
	Waited  time.Duration
	Holders []Blocker
}

func (e *LockedError) Error() string {
	who := "its holder was not seen"
	if len(e.Holders) > 0 {
		who = "held by " + e.Holders[0].String()
	}
	return fmt.Sprintf("%v: waited %v for the migration lock, %s; wait for it, or end it and run status", ErrLocked, e.Waited.Round(time.Millisecond), who)
}

// Is says that the error is an ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// UnsafeError is ErrUnsafe with the findings.
type UnsafeError struct{ Findings []Finding }

func (e *UnsafeError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return fmt.Sprintf("%v: %s; mend them, or accept each by a comment \"-- migrate:ignore RULE: REASON\"", ErrUnsafe, strings.Join(lines, "; "))
}

// Is says that the error is an ErrUnsafe.
func (e *UnsafeError) Is(target error) bool { return target == ErrUnsafe }

func shorten(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}

// openError is the error of a statement outside a transaction that may have left something behind.
type openError struct{ err error }

func (e *openError) Error() string {
	return e.err.Error() + " (what it left behind is for repair to find)"
}
func (e *openError) Unwrap() error { return e.err }

func asOpen(err error) bool {
	var open *openError
	return errors.As(err, &open)
}
