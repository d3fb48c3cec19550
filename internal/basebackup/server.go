package basebackup

import (
	"context"
	"fmt"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// serverFacts is what a backup needs to know before it begins.
type serverFacts struct {
	VersionNum     int    `db:"version_num"`
	VersionText    string `db:"version_text"`
	SystemID       string `db:"system_id"`
	SegmentSize    int64  `db:"segment_size"`
	BlockSize      int    `db:"block_size"`
	SegmentBlocks  uint32 `db:"segment_blocks"`
	Checksums      bool   `db:"checksums"`
	Superuser      string `db:"superuser"`
	InRecovery     bool   `db:"in_recovery"`
	ArchiveMode    string `db:"archive_mode"`
	ArchiveCommand string `db:"archive_command"`
	ArchiveLibrary string `db:"archive_library"`
	WALLevel       string `db:"wal_level"`
	Role           string `db:"role"`
	MayBackup      bool   `db:"may_backup"`

	systemID pg.SystemID
}

// UnsupportedError says that a server cannot be backed up as it is set up. Trying again does not help before somebody
// changes that.
type UnsupportedError struct{ Reason, Mend string }

// Error is the reason with its remedy.
func (e *UnsupportedError) Error() string {
	if e.Mend == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Mend
}

// Remedy is what to do about it.
func (e *UnsupportedError) Remedy() string { return e.Mend }

// BackupGrant is the statement that lets a role, written as an identifier, take backups from the data directory. It is
// for the database that the role connects to.
func BackupGrant(role string) string {
	return "grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to " + role
}

// MissingGrant returns the statement that the role of a session lacks for backups from the data directory; "" if it may
// take them.
func MissingGrant(ctx context.Context, q dbcore.Querier) (string, error) {
	type rights struct {
		Role string `db:"role"`
		May  bool   `db:"may"`
	}
	r, err := dbcore.One[rights](ctx, q, "select quote_ident(current_user) as role, "+mayBackup+" as may")
	if err != nil || r.May {
		return "", err
	}
	return BackupGrant(r.Role), nil
}

// mayBackup is true for a role that may bring the server into backup mode and out of it.
const mayBackup = `(has_function_privilege('pg_backup_start(text, boolean)', 'execute')
	and has_function_privilege('pg_backup_stop(boolean)', 'execute'))`

// inspect asks the server by SQL. archive_command is readable by everyone: it is no secret to PostgreSQL.
func inspect(ctx context.Context, opts Options) (*serverFacts, error) {
	conn, err := dbcore.Connect(ctx, opts.Server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	s, err := dbcore.One[serverFacts](ctx, conn, `
		select current_setting('server_version_num')::int as version_num, current_setting('server_version') as version_text,
		       (select system_identifier::text from pg_control_system()) as system_id,
		       (select setting::bigint from pg_settings where name = 'wal_segment_size') as segment_size,
		       current_setting('block_size')::int as block_size,
		       (select setting::int from pg_settings where name = 'segment_size') as segment_blocks,
		       current_setting('data_checksums')::bool as checksums,
		       (select rolname from pg_roles where oid = 10) as superuser,
		       pg_is_in_recovery() as in_recovery, current_setting('archive_mode') as archive_mode,
		       current_setting('archive_command') as archive_command,
		       coalesce(current_setting('archive_library', true), '') as archive_library,
		       current_setting('wal_level') as wal_level, quote_ident(current_user) as role,
		       `+mayBackup+` as may_backup`)
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	if err := pg.CheckMajor(pg.Version(s.VersionNum).Major()); err != nil {
		return nil, err
	}
	if s.systemID, err = pg.ParseSystemID(s.SystemID); err != nil {
		return nil, err
	}
	if obstacle := s.obstacle(opts.DataDirectory != ""); obstacle != nil {
		return nil, obstacle
	}
	if opts.DataDirectory != "" {
		if _, err := proveDirectory(ctx, conn, opts.DataDirectory, 0); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// obstacle tells why the server cannot be backed up as it is, nil if it can. local: from its data directory.
func (s *serverFacts) obstacle(local bool) error {
	const push = "archive_command = 'lifeboat wal-push %p --cluster NAME'"
	switch {
	case s.InRecovery:
		return &UnsupportedError{"the server is a standby, and this version backs up primaries only", "use the primary's dsn"}
	case s.BlockSize != pg.BlockSize:
		return &UnsupportedError{
			fmt.Sprintf("the server was built with a block size of %d bytes, and this version knows %d only", s.BlockSize, pg.BlockSize),
			"back it up with another tool",
		}
	case local && !s.MayBackup:
		return &UnsupportedError{
			"role " + s.Role + " may not call pg_backup_start and pg_backup_stop, which a backup from the data directory needs",
			BackupGrant(s.Role),
		}
	case s.WALLevel == "minimal":
		return &UnsupportedError{"wal_level is minimal, so a backup could not be recovered", "set wal_level = replica and restart the server"}
	case s.ArchiveMode == "off":
		return &UnsupportedError{
			"archive_mode is off, so the backup's WAL would never reach the repository",
			"set archive_mode = on and " + push + ", and restart the server",
		}
	case s.ArchiveCommand == "" && s.ArchiveLibrary == "":
		return &UnsupportedError{
			"archive_command is empty, so the backup's WAL would never reach the repository",
			"set " + push + " and reload the configuration",
		}
	}
	return nil
}

func (s *serverFacts) identity() repo.Identity {
	return repo.Identity{SystemID: s.systemID, WALSegmentSize: pg.SegmentSize(s.SegmentSize)}
}

func (s *serverFacts) describe(m *repo.Manifest) {
	m.SystemID, m.WALSegmentSize = s.systemID, pg.SegmentSize(s.SegmentSize)
	m.PostgresMajor, m.PostgresText = pg.Version(s.VersionNum).Major(), s.VersionText
	m.DataChecksums, m.Superuser = s.Checksums, s.Superuser
	m.RelationSegmentBlocks = s.SegmentBlocks
}
