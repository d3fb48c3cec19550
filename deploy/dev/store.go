package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	persistencespb "go.temporal.io/server/api/persistence/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence/serialization"
	"go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/common/searchattribute/sadefs"
	"go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// clusterName is the name that Temporal gives to this installation.
	clusterName = "active"

	// retention is how long a closed workflow stays visible in a namespace that
	// this program creates: long enough to look at the runs of a weekly schedule.
	retention = 8 * 24 * time.Hour
)

// store is the SQLite database of the server.
type store struct {
	sql  *config.SQL
	lock *os.File // nil in memory
}

// openStore makes the database ready before the server starts: its tables, the
// namespaces and the search attributes. All of it may be there already, or in
// part; running it again changes nothing.
func openStore(ctx context.Context, o *options) (*store, error) {
	s := &store{sql: sqlConfig(o)}
	if o.dbFile != "" {
		var err error
		if s.lock, err = lockFile(o.dbFile); err != nil {
			return nil, err
		}
	}
	if err := s.prepare(ctx, o); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close lets another process have the file. The connection itself ends with
// the process: the server keeps one for as long as it lives.
func (s *store) close() {
	if s.lock != nil {
		_ = s.lock.Close() // nothing was written to it
	}
}

func sqlConfig(o *options) *config.SQL {
	c := &config.SQL{PluginName: sqliteplugin.PluginName}
	if o.dbFile == "" {
		c.DatabaseName = "devserver"
		c.ConnectAttributes = map[string]string{"mode": "memory", "cache": "shared"}
		return c
	}
	// The name becomes part of a URI, in which these mean something else.
	c.DatabaseName = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(o.dbFile)
	c.ConnectAttributes = map[string]string{
		"mode": "rwc",
		// A committed transaction survives the death of the process, whatever
		// the moment. A loss of power may cost the last ones, not the database
		// (https://www.sqlite.org/pragma.html#pragma_synchronous).
		"journal_mode": "wal",
		"synchronous":  "normal",
		// Somebody may look into the file with a tool of their own meanwhile.
		"busy_timeout": "10000",
	}
	for name, value := range o.pragmas {
		c.ConnectAttributes[name] = value
	}
	return c
}

// lockFile keeps a second server off the database. Two servers on one file would
// take each other's tasks; SQLite's own locks do not forbid that. The lock is on
// a file beside it, because closing any descriptor of the database itself would
// drop the locks that SQLite holds on it
// (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
// It is gone when the process is, however it ended; the empty file stays.
func lockFile(dbFile string) (*os.File, error) {
	if dir := filepath.Dir(dbFile); dir != "." {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("folder of --db-filename: %w", err)
		}
	}
	f, err := os.OpenFile(dbFile+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", dbFile, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another server; stop that one or name another --db-filename", dbFile)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func (s *store) prepare(ctx context.Context, o *options) error {
	if o.dbFile != "" { // in memory the plugin makes the tables itself
		if err := s.createTables(); err != nil {
			return fmt.Errorf("tables in %s (made by another program, or by another version? remove it to begin anew): %w", o.dbFile, err)
		}
	}
	var configs []*sqlite.NamespaceConfig
	for _, name := range o.namespaces {
		c, err := sqlite.NewNamespaceConfig(clusterName, name, false, nil)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		c.Detail.Config.Retention = durationpb.New(retention)
		configs = append(configs, c)
	}
	if err := sqlite.CreateNamespaces(s.sql, configs...); err != nil {
		return err
	}
	if len(o.searchAttributes) == 0 {
		return nil
	}
	for _, name := range o.namespaces {
		if err := s.registerSearchAttributes(ctx, name, o.searchAttributes); err != nil {
			return fmt.Errorf("search attributes of namespace %s: %w", name, err)
		}
	}
	return nil
}

// createTables lays the schema into an empty database, in one transaction: a
// process that is killed meanwhile leaves an empty database again.
func (s *store) createTables() error {
	db, err := s.admin()
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // gives back a shared connection
	tables, err := db.ListTables(s.sql.DatabaseName)
	if err != nil {
		return err
	}
	if len(tables) > 0 {
		if !slices.Contains(tables, "namespaces") {
			return errors.New("not a database of Temporal")
		}
		return nil
	}
	// The plugin has a single connection, so these are one transaction.
	if err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := sqlite.SetupSchemaOnDB(db); err != nil {
		return errors.Join(err, db.Exec("ROLLBACK"))
	}
	return db.Exec("COMMIT")
}

// admin opens the database for changes of its tables.
func (s *store) admin() (sqlplugin.AdminDB, error) {
	return sql.NewSQLAdminDB(sqlplugin.DbKindUnknown, s.sql, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
}

// registerSearchAttributes adds to a namespace those of the attributes that it
// lacks. The columns are there from the beginning, a number of each type; to
// register one is to give a free column a name. Doing it before the server runs
// means that no cache of it can be out of date.
func (s *store) registerSearchAttributes(ctx context.Context, namespace string, want map[string]enumspb.IndexedValueType) error {
	db, err := sql.NewSQLDB(sqlplugin.DbKindMain, s.sql, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // gives back a shared connection

	rows, err := db.SelectFromNamespace(ctx, sqlplugin.NamespaceFilter{Name: &namespace})
	if err != nil {
		return err
	}
	row := rows[0] // by name: one row or an error
	encoding, err := enumspb.EncodingTypeFromString(row.DataEncoding)
	if err != nil {
		return err
	}
	codec := serialization.NewSerializer()
	detail, err := codec.NamespaceDetailFromBlob(&commonpb.DataBlob{Data: row.Data, EncodingType: encoding})
	if err != nil {
		return err
	}
	changed, err := nameColumns(detail, want)
	if err != nil || !changed {
		return err
	}
	blob, err := codec.NamespaceDetailToBlob(detail)
	if err != nil {
		return err
	}
	row.Data, row.DataEncoding = blob.GetData(), blob.GetEncodingType().String()
	_, err = db.UpdateNamespace(ctx, &row)
	return err
}

// nameColumns gives each wanted attribute a column of its type, and reports
// whether anything changed. An attribute that exists with another type is an
// error: its column holds values of that type.
func nameColumns(detail *persistencespb.NamespaceDetail, want map[string]enumspb.IndexedValueType) (bool, error) {
	columns := sadefs.GetDBIndexSearchAttributes(nil).GetCustomSearchAttributes()
	if detail.Config.CustomSearchAttributeAliases == nil {
		detail.Config.CustomSearchAttributeAliases = map[string]string{}
	}
	names := detail.Config.CustomSearchAttributeAliases // column → attribute
	taken := map[string]string{}                        // attribute → column
	for column, name := range names {
		taken[name] = column
	}
	changed := false
	for _, name := range sortedKeys(want) {
		t := want[name]
		if column, ok := taken[name]; ok {
			if columns[column] != t {
				return false, fmt.Errorf("%s exists as %v, not %v", name, columns[column], t)
			}
			continue
		}
		free := slices.DeleteFunc(sortedKeys(columns), func(column string) bool {
			_, used := names[column]
			return used || columns[column] != t
		})
		if len(free) == 0 {
			return false, fmt.Errorf("%s: every column for type %v is in use", name, t)
		}
		names[free[0]] = name
		changed = true
	}
	return changed, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
