package migrate

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"lifeboat/dbcore"
)

// noVersion is what golang-migrate calls the version of a database without one.
const noVersion = -1

// tables are the quoted names of the two tables.
type tables struct {
	schema, table     string   // as they are in the catalogs
	versions, history string   // quoted
	ignore            []string // schemas that are not looked at for drift
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func (m *Migrator) tables(ctx context.Context, q dbcore.Querier) (tables, error) {
	schema := m.opts.Schema
	if schema == "" {
		s, err := dbcore.One[*string](ctx, q, "select current_schema()::text")
		if err != nil {
			return tables{}, fmt.Errorf("ask for the current schema: %w", err)
		}
		if s == nil {
			return tables{}, fmt.Errorf("%w: no schema of the role's search_path exists: create one, or set Options.Schema", dbcore.ErrInvalidConfig)
		}
		schema = *s
	}
	prefix := quoteIdent(schema) + "."
	return tables{
		schema: schema, table: m.opts.Table,
		versions: prefix + quoteIdent(m.opts.Table), history: prefix + quoteIdent(m.opts.Table+"_history"),
		ignore: m.opts.IgnoreSchemas,
	}, nil
}

// create makes the tables where they are missing. Existence is asked for first, because CREATE TABLE IF NOT EXISTS
// needs the right to create even if there is nothing to do.
func (t tables) create(ctx context.Context, q dbcore.Querier) error {
	found, err := t.exist(ctx, q)
	if err != nil {
		return err
	}
	if !found.Versions {
		if _, err := q.Exec(ctx, "create table if not exists "+t.versions+" (version bigint not null primary key, dirty boolean not null)"); err != nil {
			return fmt.Errorf("create %s: %w", t.versions, err)
		}
	}
	if found.History {
		return nil
	}
	if _, err := q.Exec(ctx, `create table if not exists `+t.history+` (
		id bigint generated always as identity primary key,
		version bigint not null,
		title text not null,
		direction text not null check (direction in ('up', 'down', 'adopted')),
		state text not null check (state in ('running', 'failed', 'done', 'abandoned')),
		checksum text not null,
		transactional boolean not null,
		statements int not null,
		statements_done int not null default 0,
		done_checksum text not null default '',
		statement_started int not null default 0,
		indexes_before bigint[],
		error text,
		app_version text not null,
		plan_hash text not null,
		role text not null default session_user,
		schema_objects jsonb,
		started_at timestamptz not null default clock_timestamp(),
		finished_at timestamptz,
		duration interval generated always as (finished_at - started_at) stored)`); err != nil {
		return fmt.Errorf("create %s: %w", t.history, err)
	}
	return nil
}

type existing struct{ Versions, History bool }

func (t tables) exist(ctx context.Context, q dbcore.Querier) (existing, error) {
	r, err := dbcore.One[existing](ctx, q, "select to_regclass($1) is not null as versions, to_regclass($2) is not null as history", t.versions, t.history)
	if err != nil {
		return existing{}, fmt.Errorf("look for %s: %w", t.versions, err)
	}
	return r, nil
}

// record is a line of the history.
type record struct {
	ID               int64
	Version          int64
	Title            string
	Direction        string
	State            string
	Checksum         string
	Transactional    bool
	Statements       int
	StatementsDone   int
	DoneChecksum     string
	StatementStarted int
	IndexesBefore    []int64
	Error            *string
	AppVersion       string
	PlanHash         string
	Role             string
	StartedAt        time.Time
	FinishedAt       *time.Time
}

const recordColumns = `id, version, title, direction, state, checksum, transactional, statements, statements_done, done_checksum,
	statement_started, indexes_before, error, app_version, plan_hash, role, started_at, finished_at`

// state is what the database says of itself.
type state struct {
	version int64 // of golang-migrate's table; noVersion if there is none
	dirty   bool
	history []record // oldest first
	applied map[int64]record
	open    *record // a line that is neither done nor abandoned
	// adopt says that the database has a version but no history: it comes from golang-migrate.
	adopt bool
}

// readState changes nothing.
func (t tables) readState(ctx context.Context, q dbcore.Querier) (*state, error) {
	found, err := t.exist(ctx, q)
	if err != nil {
		return nil, err
	}
	s := &state{version: noVersion, applied: map[int64]record{}}
	if found.Versions {
		type row struct {
			Version int64
			Dirty   bool
		}
		rows, err := dbcore.Collect[row](ctx, q, "select version, dirty from "+t.versions+" order by version desc")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.versions, err)
		}
		if len(rows) > 0 {
			s.version, s.dirty = rows[0].Version, rows[0].Dirty
		}
	}
	if found.History {
		s.history, err = dbcore.Collect[record](ctx, q, "select "+recordColumns+" from "+t.history+" order by id")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.history, err)
		}
	}
	s.derive()
	return s, nil
}

// derive finds out what is applied: the last line of a version that was finished says so.
func (s *state) derive() {
	for i := range s.history {
		r := s.history[i]
		switch {
		case r.State == "running" || r.State == "failed":
			s.open = &s.history[i]
		case r.State == "abandoned":
		case r.Direction == "down":
			delete(s.applied, r.Version)
		default:
			s.applied[r.Version] = r
		}
	}
	s.adopt = len(s.history) == 0 && s.version != noVersion
}

// current is the highest applied version.
func (s *state) current() int64 {
	v := int64(noVersion)
	for version := range s.applied {
		v = max(v, version)
	}
	if s.adopt {
		v = s.version
	}
	return v
}

func (s *state) isApplied(version int64) bool {
	if s.adopt {
		return version <= s.version
	}
	_, ok := s.applied[version]
	return ok
}

// appliedVersions are sorted, lowest first.
func (s *state) appliedVersions() []int64 {
	list := make([]int64, 0, len(s.applied))
	for v := range s.applied {
		list = append(list, v)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

// setVersion writes golang-migrate's table. It does not TRUNCATE, as golang-migrate does: that would lock out readers
// until the migration's transaction ends.
func (t tables) setVersion(ctx context.Context, q dbcore.Querier, version int64, dirty bool) error {
	if _, err := q.Exec(ctx, "delete from "+t.versions); err != nil {
		return fmt.Errorf("write %s: %w", t.versions, err)
	}
	if version == noVersion && !dirty {
		return nil
	}
	if _, err := q.Exec(ctx, "insert into "+t.versions+" (version, dirty) values ($1, $2)", version, dirty); err != nil {
		return fmt.Errorf("write %s: %w", t.versions, err)
	}
	return nil
}

// adopt writes a history for a database that golang-migrate has migrated. Its checksums are those of the files as they
// are now: nobody knows whether they are what was run.
func (t tables) adopt(ctx context.Context, q dbcore.Querier, s *state, files []*file, appVersion string) error {
	for _, f := range files {
		if f.version > s.version {
			break
		}
		if err := t.note(ctx, q, f, "adopted", appVersion); err != nil {
			return err
		}
	}
	return nil
}

// note writes a line of history for what this package has not run itself.
func (t tables) note(ctx context.Context, q dbcore.Querier, f *file, direction, appVersion string) error {
	tx, _ := f.up.transactional()
	if _, err := q.Exec(ctx, "insert into "+t.history+` (version, title, direction, state, checksum, transactional, statements, statements_done,
		app_version, plan_hash, finished_at) values ($1, $2, $3, 'done', $4, $5, $6, $6, $7, '', clock_timestamp())`,
		f.version, f.title, direction, f.up.checksum, tx, len(f.up.stmts), appVersion); err != nil {
		return fmt.Errorf("write the history of version %d: %w", f.version, err)
	}
	return nil
}
