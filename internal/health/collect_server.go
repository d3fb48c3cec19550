package health

import (
	"context"
	"fmt"
	"time"

	"lifeboat/dbcore"
)

// serverAreas are looked at over a connection to the server.
var serverAreas = []Area{AreaRole, AreaIdentity, AreaSettings, AreaArchiving, AreaReplication, AreaStandbys, AreaWraparound, AreaTransactions}

// server asks the server. A query that fails keeps its area unseen, and no other.
func (o *Options) server(ctx context.Context, s *Snapshot) {
	ctx, cancel := context.WithTimeout(ctx, o.ServerTime)
	defer cancel()
	conn, err := dbcore.Connect(ctx, o.Server)
	if err == nil {
		defer conn.Close()
		s.Server, err = AskServer(ctx, conn)
	}
	if err != nil {
		f := o.failure(err)
		s.Unreachable = &f
		s.cannotSee(Failure{"the server could not be asked", ""}, serverAreas...)
		return
	}
	part := func(area Area, what string, ask func() error) {
		if err := ask(); err != nil {
			s.cannotSee(o.failure(fmt.Errorf("%s: %w", what, err)), area)
		}
	}
	part(AreaArchiving, "count the WAL that waits for archiving", func() (err error) {
		s.Queue, err = AskQueue(ctx, conn)
		return err
	})
	part(AreaReplication, "list the replication slots", func() (err error) {
		s.Slots, err = dbcore.Collect[Slot](ctx, conn, slotsQuery)
		return err
	})
	part(AreaWraparound, "ask for the age of transaction ids", func() (err error) {
		s.Databases, err = dbcore.Collect[Database](ctx, conn, databasesQuery)
		return err
	})
	part(AreaTransactions, "list the prepared transactions", func() (err error) {
		s.Prepared, err = dbcore.Collect[Transaction](ctx, conn, preparedQuery)
		return err
	})
	all, err := dbcore.One[bool](ctx, conn, "select pg_has_role('pg_read_all_stats', 'usage')")
	if err == nil && !all {
		s.cannotSee(Failure{"the role of the dsn may not see other sessions", "as a superuser: GRANT pg_monitor TO the role of the dsn"}, AreaTransactions, AreaStandbys)
		return
	}
	part(AreaTransactions, "list the open transactions", func() (err error) {
		s.Long, err = dbcore.Collect[Transaction](ctx, conn, transactionsQuery)
		return err
	})
	part(AreaStandbys, "list the standbys", func() (err error) {
		if s.SyncNames, err = dbcore.One[string](ctx, conn, "select current_setting('synchronous_standby_names')"); err != nil {
			return err
		}
		s.Standbys, err = dbcore.Collect[Standby](ctx, conn, standbysQuery)
		return err
	})
}

// AskServer reads what the rules on settings need.
func AskServer(ctx context.Context, conn *dbcore.Conn) (*Server, error) {
	sent := time.Now()
	s, err := dbcore.One[Server](ctx, conn, serverQuery)
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	took := time.Since(sent)
	middle := float64(sent.Add(took/2).UnixMicro()) / 1e6
	s.Ahead, s.Within = s.Clock-middle, took.Seconds()/2
	return &s, nil
}

// AskQueue counts the segments that wait for archive_command; nil: the role may not.
func AskQueue(ctx context.Context, conn *dbcore.Conn) (*int64, error) {
	may, err := dbcore.One[bool](ctx, conn, "select has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'execute')")
	if err != nil || !may {
		return nil, err
	}
	n, err := dbcore.One[int64](ctx, conn, "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'")
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// writes is SQL for where the server is in its WAL.
const writes = "case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end"

// serverQuery fills Server. A failure of archiving counts while nothing was archived after it.
const serverQuery = `
	select current_setting('server_version_num')::int as version_num, current_setting('server_version') as version,
	       pg_is_in_recovery() as in_recovery, current_setting('wal_level') as wal_level,
	       current_setting('archive_mode') as archive_mode, current_setting('archive_command') as archive_command,
	       coalesce(current_setting('archive_library', true), '') as archive_library,
	       (select setting::bigint from pg_settings where name = 'archive_timeout') as archive_timeout,
	       current_setting('data_checksums')::bool as checksums, current_setting('fsync')::bool as fsync,
	       current_setting('full_page_writes')::bool as full_page_writes,
	       (select count(*)::int from pg_replication_slots where not active) as idle_slots,
	       (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size') as slot_keep_mb,
	       (select system_identifier::text from pg_control_system()) as system_id,
	       coalesce((` + writes + `)::text, '') as lsn,
	       extract(epoch from clock_timestamp())::float8 as clock,
	       a.last_failed_wal as last_failed, extract(epoch from clock_timestamp() - a.last_failed_time)::float8 as failed_for
	  from (values (1)) one left join pg_stat_archiver a on a.last_failed_time > coalesce(a.last_archived_time, '-infinity')`

const slotsQuery = `
	select slot_name::text as name, slot_type as kind, active, coalesce(wal_status, '') as status,
	       greatest(0, coalesce(pg_wal_lsn_diff(` + writes + `, restart_lsn), 0))::bigint as retained
	  from pg_replication_slots where not temporary order by slot_name`

const standbysQuery = `
	select application_name as name, coalesce(state, '') as state, coalesce(sync_state, '') as sync,
	       greatest(0, coalesce(pg_wal_lsn_diff(` + writes + `, replay_lsn), 0))::bigint as behind
	  from pg_stat_replication where state is distinct from 'backup' order by pid`

const databasesQuery = `
	select datname::text as name, age(datfrozenxid)::bigint as xid_age, mxid_age(datminmxid)::bigint as multi_age,
	       current_setting('autovacuum_freeze_max_age')::bigint as freeze_max,
	       current_setting('autovacuum_multixact_freeze_max_age')::bigint as multi_freeze
	  from pg_database where datconnlimit is distinct from -2 order by greatest(age(datfrozenxid), mxid_age(datminmxid)) desc, datname`

// transactionsQuery leaves out the session that asks, walsenders and autovacuum: a base backup holds nothing back, and
// vacuum of a large table takes its time.
const transactionsQuery = `
	select pid::text as name, extract(epoch from clock_timestamp() - xact_start)::float8 as age, coalesce(datname::text, '') as database,
	       coalesce(usename::text, '') as role, coalesce(application_name, '') as application, coalesce(state, '') as state
	  from pg_stat_activity
	 where xact_start is not null and backend_type = 'client backend' and pid <> pg_backend_pid()
	 order by xact_start limit 20`

const preparedQuery = `
	select gid as name, extract(epoch from clock_timestamp() - prepared)::float8 as age, database::text as database,
	       owner::text as role, '' as application, 'prepared' as state
	  from pg_prepared_xacts order by prepared limit 20`
