package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/golang-migrate/migrate/v4/database"

	"lifeboat/dbcore"
)

// Defaults of Options.
const (
	DefaultTable                 = "schema_migrations"
	DefaultLockWait              = 5 * time.Minute
	DefaultLockTimeout           = 2 * time.Second
	DefaultLockAttempts          = 10
	DefaultConcurrentLockTimeout = 30 * time.Minute
)

// Options say what to migrate with what. Source and Config are needed.
type Options struct {
	// Source holds the migration files in its root: os.DirFS(dir), or an embed.FS.
	Source fs.FS
	// Config is the way to the server itself. A pooler in between is refused (dbcore.ErrPooler).
	Config dbcore.Config
	// Schema is where the tables of versions and history are; "" is the first schema of the role's search_path, as
	// golang-migrate has it.
	Schema string
	// Table is golang-migrate's table; "" is schema_migrations. The history is in a table of this name with "_history".
	Table string
	// AppVersion is written into the history: a release or a commit of the program that the migrations belong to.
	AppVersion string

	// AllowGaps accepts numbers that are missing in a row of files.
	AllowGaps bool
	// AllowOutOfOrder accepts and applies files that are older than the newest applied one.
	AllowOutOfOrder bool
	// IgnoreSchemas are those of other programs: Check and Rehearse do not compare what is in them.
	IgnoreSchemas []string

	// LockWait is how long to wait for another migrator; 0 is 5 minutes, negative does not wait.
	LockWait time.Duration
	// LockTimeout is how long one statement may wait for its locks, and others behind it, before its file is rolled back
	// and tried again; 0 is 2 seconds.
	LockTimeout time.Duration
	// LockAttempts is how often a file is tried when it does not get its locks; 0 is 10.
	LockAttempts int
	// ConcurrentLockTimeout is LockTimeout for statements such as CREATE INDEX CONCURRENTLY, which wait for old
	// transactions but make nobody wait; 0 is 30 minutes.
	ConcurrentLockTimeout time.Duration
	// StatementTimeout bounds each statement; 0 leaves it unbounded.
	StatementTimeout time.Duration

	// Logger gets what happens on the way; nil drops it.
	Logger *slog.Logger
	// Progress is called on what a person would like to see while it runs, by one goroutine at a time. It must be quick.
	// nil: nobody is told.
	Progress func(Event)
}

// Event is one step of Apply, Down, Repair or Rehearse.
type Event struct {
	// Kind is waiting (for another migrator), file (one begins), statement (one begins), blocked (one waits for a lock),
	// retry (a file is tried again), done (a file is finished).
	Kind string `json:"kind"`
	// Version and File are empty for waiting.
	Version int64  `json:"version,omitempty"`
	File    string `json:"file,omitempty"`
	// Statement is the number of the statement from 1, of Statements.
	Statement  int `json:"statement,omitempty"`
	Statements int `json:"statements,omitempty"`
	// Attempt is that of the file, from 1.
	Attempt int `json:"attempt,omitempty"`
	// Blockers are those in the way, for waiting and blocked.
	Blockers []Blocker `json:"blockers,omitempty"`
	// Elapsed is the time since the beginning of what the event is about.
	Elapsed time.Duration `json:"elapsed,omitempty"`
}

// Migrator applies the migrations of one source to one database. It holds no connection between calls, and may be used
// by several goroutines; calls that change the database exclude each other by the lock in it.
type Migrator struct {
	opts  Options
	files []*file // by version
	log   *slog.Logger
}

// Open reads the source. It does not connect.
//
// Errors: ErrSource for files that cannot be understood (a name, a duplicate version, a grammar error is not among
// them: Plan reports that), dbcore.ErrPooler for a Config that names a pooler.
func Open(_ context.Context, opts Options) (*Migrator, error) {
	if opts.Source == nil {
		return nil, fmt.Errorf("%w: Options.Source is not set", ErrSource)
	}
	if opts.Config.Pooler {
		return nil, fmt.Errorf("migrate: %w: the lock belongs to a session; set a Config that reaches the server itself", dbcore.ErrPooler)
	}
	files, err := readSource(opts.Source)
	if err != nil {
		return nil, err
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Migrator{opts: withDefaults(opts), files: files, log: log}, nil
}

func withDefaults(o Options) Options {
	setDefault(&o.Table, DefaultTable)
	setDefault(&o.LockWait, DefaultLockWait)
	setDefault(&o.LockTimeout, DefaultLockTimeout)
	setDefault(&o.LockAttempts, DefaultLockAttempts)
	setDefault(&o.ConcurrentLockTimeout, DefaultConcurrentLockTimeout)
	setDefault(&o.Config.ApplicationName, "migrate")
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	return o
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// lockKeys are the keys of the advisory locks: golang-migrate's, so that both tools exclude each other. It has two, for its
// name of the database has a slash before it when it was opened by a URL, and has none when it was given a connection.
func lockKeys(databaseName, schema, table string) (keys [2]string, err error) {
	for i, name := range []string{"/" + databaseName, databaseName} {
		if keys[i], err = database.GenerateAdvisoryLockId(name, schema, table); err != nil {
			return keys, errors.Join(ErrSource, err)
		}
	}
	return keys, nil
}
