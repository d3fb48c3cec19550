package migrate

import (
	"context"
	"fmt"

	"lifeboat/dbcore"
)

// Health is what a gate compares before and after a migration.
type Health struct {
	// InRecovery says that the server is a standby.
	InRecovery bool `db:"in_recovery"`
	// InvalidIndexes are those of the database that are INVALID, by qualified name.
	InvalidIndexes []string `db:"invalid_indexes"`
	// ArchiverFailures counts failed attempts at archiving since the statistics were reset. ArchiverFailing says that the
	// last attempt failed.
	ArchiverFailures int64 `db:"archiver_failures"`
	ArchiverFailing  bool  `db:"archiver_failing"`
}

const healthSQL = `
select pg_is_in_recovery() as in_recovery,
	coalesce((select array_agg(i.indexrelid::regclass::text order by i.indexrelid::regclass::text) from pg_index i
		join pg_class c on c.oid = i.indexrelid where not i.indisvalid and c.relkind = 'i' and c.relpersistence <> 't'), '{}') as invalid_indexes,
	a.failed_count as archiver_failures,
	coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false) as archiver_failing
from pg_stat_archiver a`

// Health asks the server on a session of its own, and changes nothing.
func (m *Migrator) Health(ctx context.Context) (*Health, error) {
	conn, err := dbcore.Connect(ctx, m.opts.Config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	h, err := dbcore.One[Health](ctx, conn, healthSQL)
	if err != nil {
		return nil, fmt.Errorf("ask the server for its health: %w", err)
	}
	return &h, nil
}
