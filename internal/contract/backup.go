package contract

import (
	"fmt"
	"time"
)

// Types of backups.
const (
	TypeFull        = "full"
	TypeIncremental = "incremental"
	TypeLogical     = "logical"
)

// BackupInput starts workflow Backup.
type BackupInput struct {
	// Cluster is a name of the configuration; required.
	Cluster string `json:"cluster"`
	// Type is full (default) or incremental. An incremental with no backup to build on becomes a full, and says so.
	Type string `json:"type,omitempty"`
}

// Validate names what is wrong.
func (in *BackupInput) Validate() error {
	if in.Cluster == "" {
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	}
	switch in.Type {
	case "", TypeFull, TypeIncremental:
		return nil
	case TypeLogical:
		return fmt.Errorf("backup type %q is not available in this version: use %q or %q", in.Type, TypeFull, TypeIncremental)
	}
	return fmt.Errorf(`field "type" is %q: use %q or %q`, in.Type, TypeFull, TypeIncremental)
}

// PlanBackupInput starts activity PlanBackup on any worker; it decides where the backup is taken.
type PlanBackupInput struct {
	Cluster string `json:"cluster"`
}

// PlanBackupResult binds a backup to one host; both empty: any worker will do.
type PlanBackupResult struct {
	Host  string `json:"host,omitempty"`
	Queue string `json:"queue,omitempty"`
}

// TakeBackupInput starts activity TakeBackup. A retried attempt is a new backup (R6) that does not store again what
// the dead one stored.
type TakeBackupInput struct {
	Cluster string `json:"cluster"`
	Type    string `json:"type"`
	// Queue is that of PlanBackupResult: it names one of the cluster's hosts where the configuration has several.
	Queue string `json:"queue,omitempty"`
}

// BackupResult describes one backup.
type BackupResult struct {
	Cluster          string    `json:"cluster"`
	BackupID         string    `json:"backupId"`
	Type             string    `json:"type"`
	ParentID         string    `json:"parentId"`
	SystemIdentifier string    `json:"systemIdentifier"`
	PostgresVersion  string    `json:"postgresVersion"`
	Timeline         uint32    `json:"timeline"`
	StartLSN         string    `json:"startLsn"`
	StopLSN          string    `json:"stopLsn"`
	StartedAt        time.Time `json:"startedAt"`
	FinishedAt       time.Time `json:"finishedAt"`
	SourceBytes      int64     `json:"sourceBytes"`
	ChangedBytes     int64     `json:"changedBytes"` // plain bytes of chunks that were not in the repository at their place
	StoredBytes      int64     `json:"storedBytes"`
	Chunks           int64     `json:"chunks"`
	NewChunks        int64     `json:"newChunks"`
	Files            int64     `json:"files"`
	// CorruptPages failed their checksum, and replay does not mend them: the backup is kept, and never counts as verified.
	// UnsurePages failed and could not be read a second time. `lifeboat show` names both.
	CorruptPages int64   `json:"corruptPages"`
	UnsurePages  int64   `json:"unsurePages"`
	Seconds      float64 `json:"seconds"`
	WorkflowID   string  `json:"workflowId"`
	// Skipped tells why a scheduled run took no backup: the cluster was busy. Empty: there is one.
	Skipped string `json:"skipped,omitempty"`
}

// BackupList is what `lifeboat backups` prints.
type BackupList struct {
	Cluster string         `json:"cluster"`
	Backups []ListedBackup `json:"backups"`
}

// ListedBackup is a backup and the newest proof of it.
type ListedBackup struct {
	BackupResult
	Verified *Verified `json:"verified"` // null: never
}

// Verified is the newest verification of a backup.
type Verified struct {
	Level   int       `json:"level"`
	Verdict Verdict   `json:"verdict"`
	At      time.Time `json:"at"`
}

// WALStatus is what `lifeboat wal-status` prints.
type WALStatus struct {
	Cluster   string           `json:"cluster"`
	Timelines []TimelineStatus `json:"timelines"`
	// ExposureSeconds is null when it could not be asked.
	ExposureSeconds *float64 `json:"exposureSeconds"`
	ArchiveLagBytes *int64   `json:"archiveLagBytes"`
}

// TimelineStatus is the WAL of one timeline as listed in the repository.
type TimelineStatus struct {
	Timeline     uint32 `json:"timeline"`
	FrontierLSN  string `json:"frontierLsn"`
	FirstSegment string `json:"firstSegment"`
	LastSegment  string `json:"lastSegment"`
	Gaps         []Gap  `json:"gaps"`
}

// Gap is a run of missing segments, both named.
type Gap struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Progress is what activities report by heartbeat, for people: never something to continue from.
type Progress struct {
	Phase string `json:"phase"`
	// Done and Total count bytes; Total 0 is unknown.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Rate is bytes a second over the last interval.
	Rate float64 `json:"rate,omitempty"`
	// Waiting says what is awaited, if anything.
	Waiting string `json:"waiting,omitempty"`
}
