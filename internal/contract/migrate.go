package contract

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// MaxMigrationBytes bounds the files of one run through Temporal, as JSON: a server refuses a payload above 2 MB, and
// each activity that needs the files has them once more in the history.
const MaxMigrationBytes = 1 << 20

// MigrationFile is one file of a folder of migrations.
type MigrationFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// MigrationSource says what is migrated by which files.
type MigrationSource struct {
	Cluster string `json:"cluster"`
	// Database is that of the cluster's dsn by default.
	Database string          `json:"database,omitempty"`
	Files    []MigrationFile `json:"files"`
	// AllowGaps and AllowOutOfOrder accept what is an error otherwise: missing numbers, and files older than the newest
	// applied one.
	AllowGaps       bool `json:"allowGaps,omitempty"`
	AllowOutOfOrder bool `json:"allowOutOfOrder,omitempty"`
	// AppVersion is written into the history of migrations.
	AppVersion string `json:"appVersion,omitempty"`
}

// MigrateInput starts workflow Migrate.
type MigrateInput struct {
	MigrationSource
	// To is the version to end at; the newest by default.
	To *int64 `json:"to,omitempty"`
	// PlanHash binds the run to a plan that was looked at: another plan is refused. Empty takes what there is.
	PlanHash string `json:"planHash,omitempty"`
	// RehearseOnly ends after the rehearsal; the database is not changed.
	RehearseOnly bool `json:"rehearseOnly,omitempty"`
	// SkipRehearsal and SkipBackup leave these steps out; the result says so. Without a backup there is no restore point.
	SkipRehearsal bool `json:"skipRehearsal,omitempty"`
	SkipBackup    bool `json:"skipBackup,omitempty"`
	// AllowUnsafe goes on in spite of lint findings that are errors.
	AllowUnsafe bool `json:"allowUnsafe,omitempty"`
	// AllowDestructiveDown lets the way back after a failure destroy what was written since into new tables and columns.
	// Without it such a way back is only told.
	AllowDestructiveDown bool `json:"allowDestructiveDown,omitempty"`
}

// Validate names what is wrong.
func (in *MigrateInput) Validate() error {
	if in.Cluster == "" {
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	}
	if len(in.Files) == 0 {
		return fmt.Errorf(`field "files" is required: the migration files, each {"name": "1_title.up.sql", "text": "..."}`)
	}
	if in.RehearseOnly && in.SkipRehearsal {
		return fmt.Errorf(`fields "rehearseOnly" and "skipRehearsal" contradict each other`)
	}
	return nil
}

// CheckPayload refuses what must not, or cannot, go through Temporal.
func (in *MigrateInput) CheckPayload() error {
	data, err := json.Marshal(in.Files)
	if err != nil {
		return fmt.Errorf("migration files: %w", err)
	}
	if len(data) > MaxMigrationBytes {
		return fmt.Errorf("the migration files are %d bytes in all: at most %d can go through Temporal; run it with --local on a host that has the files, or squash old migrations",
			len(data), MaxMigrationBytes)
	}
	for _, f := range in.Files {
		if secret.MatchString(f.Text) {
			return fmt.Errorf("%s seems to hold a password, which must not get into Temporal's history: set it outside of migrations, or run it with --local", f.Name)
		}
	}
	return nil
}

// secret finds the ways in which SQL names a password: PASSWORD '...' of a role, and password=... of a connection.
var secret = regexp.MustCompile(`(?i)\bpassword\s*=?\s*e?'|password=[^\s'"]`)

// MigrationPlan is what a plan would do, in as few words as results and histories need.
type MigrationPlan struct {
	Hash string `json:"hash"`
	// From and To are versions of the database before and after; -1 is a database without migrations.
	From  int64              `json:"from"`
	To    int64              `json:"to"`
	Files []MigrationPlanned `json:"files"`
	// Unsafe are the lint findings that are errors, Warnings the others; the first MaxMigrationFindings of each.
	Unsafe   []string `json:"unsafe"`
	Warnings []string `json:"warnings"`
	// Destroys says what data going up destroys.
	Destroys []string `json:"destroys"`
}

// MigrationPlanned is one file of a plan.
type MigrationPlanned struct {
	Version  int64  `json:"version"`
	Name     string `json:"name"`
	Checksum string `json:"checksum"`
	// Transactional says that either all of the file happens or nothing.
	Transactional bool `json:"transactional"`
	Statements    int  `json:"statements"`
	// Reversible says that there is a way down.
	Reversible bool `json:"reversible"`
}

// MaxMigrationFindings bounds lists of findings in results.
const MaxMigrationFindings = 100

// MigrationHealth is what is compared before and after.
type MigrationHealth struct {
	// InvalidIndexes are those of the database that are INVALID.
	InvalidIndexes []string `json:"invalidIndexes"`
	// ArchiverFailures counts WAL segments whose archiving failed since the statistics were reset.
	ArchiverFailures int64 `json:"archiverFailures"`
}

// PlanMigrationResult is that of activity PlanMigration: the plan, what was checked, and the state before.
type PlanMigrationResult struct {
	Plan   MigrationPlan   `json:"plan"`
	Checks []CheckResult   `json:"checks"`
	Before MigrationHealth `json:"before"`
}

// RestorePoint is a named place in the WAL to go back to.
type RestorePoint struct {
	Name string `json:"name"`
	LSN  string `json:"lsn"`
}

// MarkRestorePointInput starts activity MarkRestorePoint.
type MarkRestorePointInput struct {
	Cluster string `json:"cluster"`
	// PlanHash becomes part of the name.
	PlanHash string `json:"planHash"`
}

// ApplyMigrationInput starts activity ApplyMigration.
type ApplyMigrationInput struct {
	MigrationSource
	To *int64 `json:"to,omitempty"`
	// Plan is what was planned: an attempt after a killed one goes on with what is left of it, and with nothing else.
	Plan        MigrationPlan `json:"plan"`
	AllowUnsafe bool          `json:"allowUnsafe,omitempty"`
}

// ApplyMigrationResult says what is in the database. A migration that failed is a result, not an error.
type ApplyMigrationResult struct {
	State MigrationState `json:"state"`
	// Failure is why not all of the plan is applied; empty if it is.
	Failure string `json:"failure,omitempty"`
	// Files are those that this activity finished.
	Files []AppliedMigration `json:"files"`
}

// AppliedMigration is a file that was applied.
type AppliedMigration struct {
	Version  int64    `json:"version"`
	Name     string   `json:"name"`
	Seconds  float64  `json:"seconds"`
	Attempts int      `json:"attempts"`
	Blockers []string `json:"blockers,omitempty"`
}

// MigrationState is what the database says of itself after a migration.
type MigrationState struct {
	// Version is that of the database; -1 is a database without migrations.
	Version int64 `json:"version"`
	// Applied are the versions of the plan that are applied, Pending those that are not.
	Applied []int64 `json:"applied"`
	Pending []int64 `json:"pending"`
	// HalfWay says of a file that stopped between two statements what is done of it, and Next what to do; empty if
	// there is none.
	HalfWay string `json:"halfWay,omitempty"`
	Next    string `json:"next,omitempty"`
}

// CheckMigratedInput starts activity CheckMigrated, the health gate.
type CheckMigratedInput struct {
	MigrationSource
	Before MigrationHealth `json:"before"`
	// Version is what the database must be at.
	Version int64 `json:"version"`
}

// CheckMigratedResult is what the gate saw. A failed check is a result, not an error.
type CheckMigratedResult struct {
	Checks []CheckResult `json:"checks"`
}

// RevertMigrationInput starts activity RevertMigration: down to Plan.From.
type RevertMigrationInput struct {
	MigrationSource
	Plan             MigrationPlan `json:"plan"`
	AllowDestructive bool          `json:"allowDestructive,omitempty"`
}

// Outcomes of a migration, in MigrateResult.
const (
	MigrationNothing   = "nothing to do"
	MigrationRehearsed = "rehearsed"
	MigrationApplied   = "applied"
	// MigrationRefused: a check or the rehearsal said no; the database was not changed.
	MigrationRefused = "refused"
	// MigrationReverted: it failed, and the way down brought the database back to the version before.
	MigrationReverted = "reverted"
	// MigrationUnchanged: it failed, and nothing of it remains.
	MigrationUnchanged = "failed, nothing changed"
	// MigrationPartial: it failed, and the database is between two versions of the plan; State says where.
	MigrationPartial = "failed, partly applied"
	// MigrationUnhealthy: all is applied, and the gate afterwards said no.
	MigrationUnhealthy = "applied, unhealthy"
	// MigrationUnknown: the server could not be asked any more how far it came.
	MigrationUnknown = "failed, state not known"
)

// MigrateResult ends workflow Migrate, and is what `lifeboat migrate apply` prints.
type MigrateResult struct {
	Cluster  string  `json:"cluster"`
	Database string  `json:"database"`
	Outcome  string  `json:"outcome"`
	Verdict  Verdict `json:"verdict"`
	// Explanation says in a sentence or two what is in the database now, and Next what to do, ready to run.
	Explanation  string             `json:"explanation"`
	Next         []string           `json:"next"`
	Plan         MigrationPlan      `json:"plan"`
	Checks       []CheckResult      `json:"checks"`
	Rehearsal    *MigrationTrial    `json:"rehearsal"`
	BackupID     string             `json:"backupId"`
	RestorePoint *RestorePoint      `json:"restorePoint"`
	Files        []AppliedMigration `json:"files"`
	State        *MigrationState    `json:"state"`
	Skipped      []string           `json:"skipped"`
	StartedAt    time.Time          `json:"startedAt"`
	FinishedAt   time.Time          `json:"finishedAt"`
	WorkflowID   string             `json:"workflowId"`
}

// RehearseMigrationInput starts activity RehearseMigration, on the host where a clone's files are laid.
type RehearseMigrationInput struct {
	MigrationSource
	To       *int64          `json:"to,omitempty"`
	PlanHash string          `json:"planHash"`
	Restore  json.RawMessage `json:"restore"` // the plan of the clone's restore
	DrillID  string          `json:"drillId"`
}

// MigrationTrial is a rehearsal on a restored clone.
type MigrationTrial struct {
	BackupID string `json:"backupId"`
	// Failure is why the plan cannot be applied on the clone; empty if it can.
	Failure string `json:"failure,omitempty"`
	// Reversed says that the way down was rehearsed too, and led back; NotReversed why not.
	Reversed    bool            `json:"reversed"`
	NotReversed string          `json:"notReversed,omitempty"`
	Files       []RehearsedFile `json:"files"`
	Seconds     float64         `json:"seconds"`
	WALBytes    int64           `json:"walBytes"`
	// LeftBehind says where parts of the clone may still be; empty if it is gone.
	LeftBehind string `json:"leftBehind,omitempty"`
}

// RehearsedFile is what one file did to the clone.
type RehearsedFile struct {
	Version int64   `json:"version"`
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Locks are the strongest locks that it took on tables that others use, Rewrites the tables that it wrote anew.
	Locks    []string `json:"locks"`
	Rewrites []string `json:"rewrites"`
}

// VersionText is a version for people.
func VersionText(v int64) string {
	if v < 0 {
		return "nothing"
	}
	return fmt.Sprint(v)
}
