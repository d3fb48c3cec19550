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
type UnsupportedError struct{ Reason string }

// Error is the reason with its remedy.
func (e *UnsupportedError) Error() string { return e.Reason }

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
	if reason := s.obstacle(opts.DataDirectory != ""); reason != "" {
		return nil, &UnsupportedError{reason}
	}
	if opts.DataDirectory != "" {
		if _, err := proveDirectory(ctx, conn, opts.DataDirectory, 0); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// obstacle tells why the server cannot be backed up as it is, "" if it can. local: from its data directory.
func (s *serverFacts) obstacle(local bool) string {
	switch {
	case s.InRecovery:
		return "the server is a standby, and this version backs up primaries only: use the primary's dsn"
	case local && !s.MayBackup:
		return "role " + s.Role + " may not call pg_backup_start and pg_backup_stop, which a backup from the data directory needs: " +
			BackupGrant(s.Role)
	case s.WALLevel == "minimal":
		return "wal_level is minimal, so a backup could not be recovered: set wal_level = replica and restart the server"
	case s.ArchiveMode == "off":
		return "archive_mode is off, so the backup's WAL would never reach the repository: " +
			"set archive_mode = on and archive_command = 'lifeboat wal-push %p --cluster NAME', and restart the server"
	case s.ArchiveCommand == "" && s.ArchiveLibrary == "":
		return "archive_command is empty, so the backup's WAL would never reach the repository: " +
			"set archive_command = 'lifeboat wal-push %p --cluster NAME' and reload the configuration"
	}
	return ""
}

func (s *serverFacts) identity() repo.Identity {
	return repo.Identity{SystemID: s.systemID, WALSegmentSize: pg.SegmentSize(s.SegmentSize)}
}

func (s *serverFacts) describe(m *repo.Manifest) {
	m.SystemID, m.WALSegmentSize = s.systemID, pg.SegmentSize(s.SegmentSize)
	m.PostgresMajor, m.PostgresText = pg.Version(s.VersionNum).Major(), s.VersionText
	m.DataChecksums, m.Superuser = s.Checksums, s.Superuser
}
