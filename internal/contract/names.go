package contract

// Names of workflows, as typed into the Temporal UI.
const (
	BackupWorkflow  = "Backup"
	RestoreWorkflow = "Restore"
	DrillWorkflow   = "Drill"
	VerifyWorkflow  = "Verify"
	HealthWorkflow  = "HealthCheck"
	MigrateWorkflow = "Migrate"
)

// Names of activities.
const (
	PlanBackupActivity    = "PlanBackup"
	TakeBackupActivity    = "TakeBackup"
	PlanRestoreActivity   = "PlanRestore"
	LayFilesActivity      = "LayFiles"
	StartServerActivity   = "StartServer"
	PrepareDrillActivity  = "PrepareDrill"
	ProveRecoveryActivity = "ProveRecovery"
	CleanUpDrillActivity  = "CleanUpDrill"
	PublishReportActivity = "PublishReport"
	VerifyBackupsActivity = "VerifyBackups"
	CheckHealthActivity   = "CheckHealth"

	PlanMigrationActivity     = "PlanMigration"
	RehearseMigrationActivity = "RehearseMigration"
	MarkRestorePointActivity  = "MarkRestorePoint"
	ApplyMigrationActivity    = "ApplyMigration"
	CheckMigratedActivity     = "CheckMigrated"
	RevertMigrationActivity   = "RevertMigration"
)

// ProgressSignal is the name of the signal by which an activity's worker tells its workflow, now and then, how far it is
// (ProgressReport); workflows do not see heartbeats.
const ProgressSignal = "lifeboat-progress"

// DefaultTaskQueue takes all work that needs no particular host.
const DefaultTaskQueue = "lifeboat"

// HostQueue is the queue for work that needs one host: a data directory, a local server.
func HostQueue(taskQueue, host string) string { return taskQueue + "@" + host }

// Search attributes, all of type Keyword, that a Temporal namespace needs for Lifeboat.
const (
	AttributeCluster = "LifeboatCluster"
	AttributePhase   = "LifeboatPhase"
	AttributeVerdict = "LifeboatVerdict"
)

// Attributes lists the search attributes.
func Attributes() []string { return []string{AttributeCluster, AttributePhase, AttributeVerdict} }

// Types of application errors that workflows and callers decide on.
const (
	// ErrorInvalidInput: the input cannot be meant; never retried.
	ErrorInvalidInput = "InvalidInput"
	// ErrorRefused: refused for safety, before anything was changed; never retried. Exit code 5.
	ErrorRefused = "Refused"
	// ErrorBusy: another run holds the lease; never retried by the workflow.
	ErrorBusy = "Busy"
	// ErrorConfiguration: the worker's configuration does not allow it; never retried.
	ErrorConfiguration = "Configuration"
	// ErrorFailed: the work was done and its outcome is a failure that trying again does not mend.
	ErrorFailed = "Failed"

	// The following are retried: what is in the way may pass, or be mended meanwhile.

	// ErrorNoSpace: a file system is full, or a quota reached: the repository's, or that of a target or work directory.
	ErrorNoSpace = "NoSpace"
	// ErrorNoAccess: a file or folder may not be read or written: read-only file system, missing permission.
	ErrorNoAccess = "NoAccess"
	// ErrorServerUnavailable: the protected server does not answer, or not yet.
	ErrorServerUnavailable = "ServerUnavailable"
	// ErrorTransient: anything else that trying again may mend.
	ErrorTransient = "Transient"
)

// Verdict is the outcome of a check, drill or verification. Only PASS is green.
type Verdict string

// The verdicts.
const (
	Pass           Verdict = "PASS"
	Fail           Verdict = "FAIL"
	Partial        Verdict = "PARTIAL"
	CouldNotVerify Verdict = "COULD_NOT_VERIFY"
	Skipped        Verdict = "SKIPPED"
)

// Worst combines the verdicts of parts: any FAIL is FAIL; otherwise anything that could not be checked makes the
// whole PARTIAL, or COULD_NOT_VERIFY if nothing passed at all. SKIPPED parts do not apply and do not count. No parts
// at all is COULD_NOT_VERIFY.
func Worst(parts ...Verdict) Verdict {
	var pass, other int
	for _, v := range parts {
		switch v {
		case Fail:
			return Fail
		case Pass:
			pass++
		case Skipped:
		default:
			other++
		}
	}
	switch {
	case pass == 0:
		return CouldNotVerify
	case other > 0:
		return Partial
	}
	return Pass
}
