package health

import (
	"slices"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// Area is a part of a cluster that is looked at as a whole: what keeps one of its rules from being judged keeps all.
type Area string

// The areas.
const (
	AreaServer       Area = "server"   // whether it answers
	AreaRole         Area = "role"     // what it is
	AreaIdentity     Area = "identity" // whether it is the one that the repository knows
	AreaSettings     Area = "settings"
	AreaArchiving    Area = "archiving"
	AreaReplication  Area = "replication"
	AreaStandbys     Area = "standbys"
	AreaWraparound   Area = "wraparound"
	AreaTransactions Area = "transactions"
	AreaDisk         Area = "disk"
	AreaRepository   Area = "repository" // whether it can be opened
	AreaStore        Area = "store"      // whether it keeps what is written
	AreaExposure     Area = "exposure"
	AreaBackups      Area = "backups"
	AreaSchedules    Area = "schedules"
)

// Areas lists them, in the order in which findings are told.
func Areas() []Area {
	return []Area{
		AreaServer, AreaRole, AreaIdentity, AreaSettings, AreaArchiving, AreaReplication, AreaStandbys, AreaWraparound, AreaTransactions,
		AreaDisk, AreaRepository, AreaStore, AreaExposure, AreaBackups, AreaSchedules,
	}
}

// Failure is what went wrong, and what a person can do about it.
type Failure struct{ Problem, Remedy string }

// Unseen is an area that could not be looked at.
type Unseen struct {
	Area   Area
	Reason Failure
}

// Snapshot is what one look at a cluster found. Nil and empty parts are parts that do not exist, or that Unseen names.
type Snapshot struct {
	// At is when it began, in UTC, by the clock of the host that looks.
	At      time.Time
	Cluster string
	// ConfigFile is named in remedies.
	ConfigFile string
	// RPO is the owner's objective; 0: there is none.
	RPO time.Duration

	// Unreachable tells why the server did not answer; nil: it did.
	Unreachable *Failure
	Server      *Server
	// Queue is how many segments wait for archive_command; nil: not asked, for lack of the privilege.
	Queue      *int64
	Slots      []Slot
	Standbys   []Standby
	SyncNames  string // synchronous_standby_names
	Databases  []Database
	Long       []Transaction // transactions that are open
	Prepared   []Transaction // that are prepared
	Disks      []Disk
	Repository Repository
	// Schedules are what is wrong with the cluster's schedules. Collect does not look at them: they are Temporal's.
	Schedules []ScheduleProblem
	// Coverage is how far the WAL in the repository goes; nil: not known.
	Coverage *wal.Coverage
	// Exposure is, in seconds, how old the oldest commit may be that would be lost; nil: not known. Memory.Exposure
	// gives it.
	Exposure *float64
	Backups  []Backup // visible ones, oldest first

	// Unseen lists the areas that could not be looked at.
	Unseen []Unseen
}

// Server is what check and health ask a server about itself.
type Server struct {
	VersionNum     int      `db:"version_num"`
	Version        string   `db:"version"`
	InRecovery     bool     `db:"in_recovery"`
	WALLevel       string   `db:"wal_level"`
	ArchiveMode    string   `db:"archive_mode"`
	ArchiveCommand string   `db:"archive_command"`
	ArchiveLibrary string   `db:"archive_library"`
	ArchiveTimeout int64    `db:"archive_timeout"` // seconds
	Checksums      bool     `db:"checksums"`
	FSync          bool     `db:"fsync"`
	FullPageWrites bool     `db:"full_page_writes"`
	SystemID       string   `db:"system_id"`
	LSN            string   `db:"lsn"`   // where it writes, or how far it has replayed
	Clock          float64  `db:"clock"` // seconds since 1970
	IdleSlots      int      `db:"idle_slots"`
	SlotKeepMB     int64    `db:"slot_keep_mb"` // -1: no bound
	LastFailed     *string  `db:"last_failed"`  // the segment that archiving failed at and that nothing was archived after
	FailedFor      *float64 `db:"failed_for"`   // seconds since then

	// Ahead is how many seconds the server's clock is ahead of this host's, exact to Within.
	Ahead, Within float64 `db:"-"`
}

// Slot is a replication slot.
type Slot struct {
	Name   string `db:"name"`
	Kind   string `db:"kind"` // physical or logical
	Active bool   `db:"active"`
	// Status is reserved, extended, unreserved or lost; "" of one that reserves nothing yet.
	Status   string `db:"status"`
	Retained int64  `db:"retained"` // bytes of WAL that it keeps
}

// Standby is a server that receives WAL.
type Standby struct {
	Name   string `db:"name"` // application_name
	State  string `db:"state"`
	Sync   string `db:"sync"`
	Behind int64  `db:"behind"` // bytes of WAL that it has not replayed
}

// Database is how far a database's oldest transaction ids have aged, in ids.
type Database struct {
	Name        string `db:"name"`
	XIDAge      int64  `db:"xid_age"`
	MultiAge    int64  `db:"multi_age"`
	FreezeMax   int64  `db:"freeze_max"`   // autovacuum_freeze_max_age
	MultiFreeze int64  `db:"multi_freeze"` // autovacuum_multixact_freeze_max_age
}

// Transaction is one that is open, or prepared.
type Transaction struct {
	// Name is the process id, or the id of a prepared one.
	Name        string  `db:"name"`
	Age         float64 `db:"age"` // seconds
	Database    string  `db:"database"`
	User        string  `db:"role"`
	Application string  `db:"application"`
	State       string  `db:"state"`
}

// Disk is a file system that this host sees.
type Disk struct {
	// Role says what it holds: data directory, pg_wal, repository.
	Role, Path  string
	Free, Total int64 // bytes; what a user without privileges may still write
}

// Repository is how the repository answered.
type Repository struct {
	Name string
	// Failed tells why it could not be opened; nil: it could.
	Failed *Failure
	// Broken tells why it could not be written to, or which promise it did not keep; nil: it did all.
	Broken *Failure
	// Identity is the cluster's in the repository; nil: the repository does not know the cluster.
	Identity *repo.Identity
}

// Backup is a visible backup.
type Backup struct {
	ID         string
	FinishedAt time.Time
	// Corrupt is the number of pages that are known to be corrupt in it.
	Corrupt int64
	// Proof is its newest verification; nil: there is none.
	Proof *Proof
}

// Proof is a verification of a backup.
type Proof struct {
	At time.Time
	// Passed: it said PASS. Failed: it said FAIL. Neither: it could not tell.
	Passed, Failed bool
	Level          int
}

// unseen tells whether an area could not be looked at.
func (s *Snapshot) unseen(a Area) bool {
	return slices.ContainsFunc(s.Unseen, func(u Unseen) bool { return u.Area == a })
}

// cannotSee notes areas that could not be looked at.
func (s *Snapshot) cannotSee(why Failure, areas ...Area) {
	for _, a := range areas {
		if !s.unseen(a) {
			s.Unseen = append(s.Unseen, Unseen{a, why})
		}
	}
}

// position is where the server writes; ok is false if it was not asked, or is not the one that the repository's WAL is of.
func (s *Snapshot) position() (lsn pg.LSN, ok bool) {
	id := s.Repository.Identity
	if s.Server == nil || id != nil && id.SystemID.String() != s.Server.SystemID {
		return 0, false
	}
	lsn, err := pg.ParseLSN(s.Server.LSN)
	return lsn, err == nil
}
