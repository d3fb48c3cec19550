package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/repo"
)

// clockLimit is how many seconds the clocks of server and host may differ before targets that people type by the one
// miss what they meant by the other.
const clockLimit = 2.0

// oneCluster checks a server and what it must agree with. It fails only for a wrong configuration.
func (k *checker) oneCluster(ctx context.Context, name string) error {
	k.cluster = name
	set, c, err := k.a.cluster(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := dbcore.Connect(ctx, c.Server)
	if err != nil {
		k.fail("server", err)
		return nil
	}
	defer conn.Close()
	s, err := askServer(ctx, conn)
	if err != nil {
		k.unknown("server", fmt.Errorf("read the server's settings: %w", err))
		return nil
	}
	k.server(s)
	k.archiving(s, c.RPO)
	k.archiveQueue(ctx, conn)
	k.slots(s)
	k.clock(s)
	k.privileges(ctx, conn)
	if c.DataDirectory == "" && len(c.Hosts) == 0 {
		k.replication(ctx, c.Server, s)
	} else {
		k.sources(ctx, c, conn, s)
	}
	k.identity(ctx, c, s)
	k.binaries(s)
	k.workDirectory(ctx, conn, set.WorkDir)
	return nil
}

// serverState is what check asks a server.
type serverState struct {
	VersionNum     int      `db:"version_num"`
	Version        string   `db:"version"`
	InRecovery     bool     `db:"in_recovery"`
	WALLevel       string   `db:"wal_level"`
	ArchiveMode    string   `db:"archive_mode"`
	ArchiveCommand string   `db:"archive_command"`
	ArchiveLibrary string   `db:"archive_library"`
	ArchiveTimeout int64    `db:"archive_timeout"`
	Checksums      bool     `db:"checksums"`
	FSync          bool     `db:"fsync"`
	FullPageWrites bool     `db:"full_page_writes"`
	SystemID       string   `db:"system_id"`
	Clock          float64  `db:"clock"`
	Slots          int      `db:"slots"`
	SlotKeepMB     int64    `db:"slot_keep_mb"`
	LastFailed     *string  `db:"last_failed"`
	FailedFor      *float64 `db:"failed_for"`

	// ahead is how many seconds the server's clock is ahead of this host's, exact to within.
	ahead, within float64
}

func askServer(ctx context.Context, conn *dbcore.Conn) (*serverState, error) {
	sent := time.Now()
	s, err := dbcore.One[serverState](ctx, conn, serverQuery)
	if err != nil {
		return nil, err
	}
	took := time.Since(sent)
	middle := float64(sent.Add(took/2).UnixMicro()) / 1e6
	s.ahead, s.within = s.Clock-middle, took.Seconds()/2
	return &s, nil
}

// serverQuery fills serverState. A failure of archiving counts while nothing was archived after it.
const serverQuery = `
	select current_setting('server_version_num')::int as version_num, current_setting('server_version') as version,
	       pg_is_in_recovery() as in_recovery, current_setting('wal_level') as wal_level,
	       current_setting('archive_mode') as archive_mode, current_setting('archive_command') as archive_command,
	       coalesce(current_setting('archive_library', true), '') as archive_library,
	       (select setting::bigint from pg_settings where name = 'archive_timeout') as archive_timeout,
	       current_setting('data_checksums')::bool as checksums, current_setting('fsync')::bool as fsync,
	       current_setting('full_page_writes')::bool as full_page_writes,
	       (select count(*)::int from pg_replication_slots where not active) as slots,
	       (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size') as slot_keep_mb,
	       (select system_identifier::text from pg_control_system()) as system_id,
	       extract(epoch from clock_timestamp())::float8 as clock,
	       a.last_failed_wal as last_failed, extract(epoch from clock_timestamp() - a.last_failed_time)::float8 as failed_for
	  from (values (1)) one left join pg_stat_archiver a on a.last_failed_time > coalesce(a.last_archived_time, '-infinity')`

func (k *checker) server(s *serverState) {
	switch err := pg.CheckMajor(pg.Version(s.VersionNum).Major()); {
	case err != nil:
		k.fail("server", err)
	case s.InRecovery:
		k.add("server", outcomeFail, "use the primary's dsn", "PostgreSQL %s is a standby; this version backs up primaries only", s.Version)
	default:
		k.ok("server", "PostgreSQL %s, a primary", s.Version)
	}
	switch {
	case s.WALLevel == "minimal":
		k.add("wal_level", outcomeFail, "set wal_level = replica and restart the server", "wal_level is minimal: backups could not be recovered")
	default:
		k.ok("wal_level", "%s", s.WALLevel)
	}
	k.durability(s)
	if s.Checksums {
		k.ok("checksums", "on")
	} else {
		k.add("checksums", outcomeWarning, "pg_checksums --enable, while the server is stopped", "page checksums are off: rot on the server's disk goes into backups unseen")
	}
}

// durability checks what a crash, or a backup, of the server can lose.
func (k *checker) durability(s *serverState) {
	if s.FullPageWrites {
		k.ok("full_page_writes", "on")
	} else {
		k.add("full_page_writes", outcomeFail, "set full_page_writes = on and reload the configuration",
			"full_page_writes is off: a page that is written while a backup reads it may be torn, also after a crash")
	}
	if s.FSync {
		k.ok("fsync", "on")
	} else {
		k.add("fsync", outcomeWarning, "set fsync = on and reload the configuration", "fsync is off: a crash of the server's host may destroy its data")
	}
}

// archiving checks that WAL reaches the repository, and often enough (R18).
func (k *checker) archiving(s *serverState, rpo time.Duration) {
	push := fmt.Sprintf("set archive_mode = on and archive_command = 'lifeboat wal-push %%p --cluster %s --config %s'", k.cluster, k.cfg.File())
	if s.ArchiveMode == "off" {
		k.add("archive_mode", outcomeFail, push+", and restart the server", "archive_mode is off: no WAL reaches the repository")
		return
	}
	k.ok("archive_mode", "%s", s.ArchiveMode)
	shown := basebackup.WithoutSecrets(s.ArchiveCommand)
	switch {
	case s.ArchiveLibrary != "":
		k.add("archive_command", outcomeWarning, "set archive_library = '' and "+push, "archive_library is %s: the server does not call archive_command", s.ArchiveLibrary)
	case s.ArchiveCommand == "":
		k.add("archive_command", outcomeFail, push, "archive_command is empty: no WAL reaches the repository")
	case strings.Contains(s.ArchiveCommand, "wal-push") && strings.Contains(s.ArchiveCommand, k.cluster):
		k.ok("archive_command", "%s", shown)
	case strings.Contains(s.ArchiveCommand, "wal-push"):
		k.add("archive_command", outcomeWarning, push, "archive_command does not name cluster %s: %s", k.cluster, shown)
	default:
		k.add("archive_command", outcomeWarning, push, "archive_command does not call lifeboat wal-push: %q", shown)
	}
	timeout := time.Duration(s.ArchiveTimeout) * time.Second
	half := rpo / 2
	switch {
	case timeout == 0 || rpo > 0 && timeout > half:
		k.add("archive_timeout", outcomeFail, fmt.Sprintf("set archive_timeout = %d (seconds) or less, and reload", max(1, int64(half/time.Second))),
			"archive_timeout is %v: the RPO of %v needs a segment at least every %v", timeout, rpo, half)
	default:
		k.ok("archive_timeout", "%v, for an RPO of %v", timeout, rpo)
	}
	if s.LastFailed != nil && s.FailedFor != nil {
		k.add("archiver", outcomeFail, "the server's log has what wal-push said", "archiving %s failed %.0f s ago, and nothing was archived since", *s.LastFailed, *s.FailedFor)
	}
}

func (k *checker) clock(s *serverState) {
	if math.Abs(s.ahead) > clockLimit+s.within {
		k.add("clock", outcomeWarning, "run an NTP client on both", "the server's clock is %+.1f s from this host's: a time target means the server's clock", s.ahead)
		return
	}
	k.ok("clock", "within %.1f s of the server's", max(0.1, math.Abs(s.ahead)+s.within))
}

// replication checks the kind of connection that a backup reads through.
func (k *checker) replication(ctx context.Context, server dbcore.Config, s *serverState) {
	conn, err := dbcore.ConnectReplication(ctx, server)
	if err != nil {
		k.fail("replication", err)
		return
	}
	defer conn.Close()
	id, err := conn.IdentifySystem(ctx)
	switch {
	case err != nil:
		k.fail("replication", err)
	case fmt.Sprint(id.SystemID) != s.SystemID:
		k.add("replication", outcomeFail, "name one server in the dsn", "the replication connection leads to another server: system identifier %d, not %s", id.SystemID, s.SystemID)
	default:
		k.ok("replication", "a replication connection works, timeline %d", id.Timeline)
	}
}

// identity checks that the repository's cluster of this name is this server.
func (k *checker) identity(ctx context.Context, c activities.Cluster, s *serverState) {
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return // told by the check of the repository
	}
	have, err := r.Identity(ctx, k.cluster)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		k.ok("identity", "the repository does not know cluster %s yet", k.cluster)
	case err != nil:
		k.fail("identity", err)
	case have.SystemID.String() != s.SystemID:
		id, _ := pg.ParseSystemID(s.SystemID)
		k.fail("identity", &repo.IdentityError{Cluster: k.cluster, Want: have, Have: repo.Identity{SystemID: id, WALSegmentSize: have.WALSegmentSize}})
	default:
		k.ok("identity", "system identifier %s, as the repository has it", s.SystemID)
	}
}

// binaries checks that this host could start a restored server.
func (k *checker) binaries(s *serverState) {
	major := pg.Version(s.VersionNum).Major()
	b, err := pginstance.FindBinaries(major, k.cfg.Worker.PostgresBin)
	if err != nil {
		k.add("binaries", outcomeWarning, "install them where restores and drills run, or name their folder in worker.postgres_bin", "%v", err)
		return
	}
	k.ok("binaries", "PostgreSQL %s in %s", b.Version, b.Dir)
}
