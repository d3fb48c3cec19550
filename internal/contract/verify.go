package contract

import "fmt"

// VerifyInput starts workflow Verify and activity VerifyBackups.
type VerifyInput struct {
	Cluster string `json:"cluster"`
	// Backup is latest (default), all, or an id. All takes every visible backup, all WAL, and every object of the cluster.
	Backup string `json:"backup,omitempty"`
	// Level is the last level of the ladder to run: 0 to MaxVerifyLevel; DefaultVerifyLevel by default.
	Level *int `json:"level,omitempty"`
}

// Words for VerifyInput.Backup.
const (
	VerifyLatest = "latest"
	VerifyAll    = "all"
)

// Levels of VerifyInput.
const (
	DefaultVerifyLevel = 2
	MaxVerifyLevel     = 5
)

// Validate names what is wrong. Whether a backup of that id exists is for the activity to say.
func (in *VerifyInput) Validate() error {
	if in.Cluster == "" {
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	}
	if l := in.UpTo(); l < 0 || l > MaxVerifyLevel {
		return fmt.Errorf(`field "level" is %d: verify climbs levels 0 to %d; a drill goes to 7`, l, MaxVerifyLevel)
	}
	return nil
}

// UpTo is the level to climb to.
func (in *VerifyInput) UpTo() int {
	if in.Level == nil {
		return DefaultVerifyLevel
	}
	return *in.Level
}

// VerifyResult ends workflow Verify, and is what `lifeboat verify` prints. Level is the lowest that a backup reached.
type VerifyResult struct {
	Cluster    string           `json:"cluster"`
	Verdict    Verdict          `json:"verdict"`
	Level      int              `json:"level"`
	Backups    []VerifiedBackup `json:"backups"`
	WorkflowID string           `json:"workflowId"`
	// Skipped tells why a scheduled run with the verdict SKIPPED verified nothing: the cluster was busy.
	Skipped string `json:"skipped,omitempty"`
}

// VerifiedBackup is what was found of one backup. Level is the highest level that passed, with nothing but passes below
// it. With "all", an entry with an empty BackupID holds what is wrong with objects that no visible backup needs: reports,
// WAL older than every backup, packs that nothing refers to.
type VerifiedBackup struct {
	BackupID string          `json:"backupId"`
	Verdict  Verdict         `json:"verdict"`
	Level    int             `json:"level"`
	Findings []VerifyFinding `json:"findings"`
}

// VerifyFinding is one thing that is wrong, that could not be looked at, or that does not apply; Problem says which.
type VerifyFinding struct {
	Level int `json:"level"`
	// Object is a key in the repository, File a path in the data directory; either may be empty.
	Object string `json:"object"`
	File   string `json:"file"`
	// Block is the number of the page in its relation's fork; null if it is not about a page.
	Block   *int64 `json:"block"`
	Problem string `json:"problem"`
}
