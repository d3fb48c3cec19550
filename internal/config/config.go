package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Version is the only value of the key `version` that this program knows.
const Version = 1

// What holds where the file is silent.
const (
	DefaultCompression = CompressionZstd
	DefaultWALMode     = WALArchive
	DefaultRTO         = time.Hour
	DefaultRPO         = 15 * time.Minute
	DefaultFullDays    = 30
	DefaultMinVerified = 2
	DefaultTaskQueue   = "lifeboat"
)

// Values of Repository.Compression.
const (
	CompressionZstd = "zstd"
	CompressionS2   = "s2"
	CompressionNone = "none"
)

// Values of WAL.Mode. This version honours WALArchive only and refuses the others.
const (
	WALArchive = "archive"
	WALStream  = "stream"
	WALBoth    = "both"
)

// ErrUnknownName is returned by Config.Cluster and Config.Repository for a name that the file does not have.
var ErrUnknownName = errors.New("not in the configuration")

// Config is a lifeboat.yaml. Parse and Load return it complete (defaults filled in) and valid; one that was built by
// hand starts from Default and must pass Validate. It is not to be changed once shared.
type Config struct {
	// Version must be 1. It is required: a file without it was written for another program.
	Version int `yaml:"version,required"`
	// Repositories by name; names follow CheckName.
	Repositories map[string]*Repository `yaml:"repositories"`
	// Clusters by name; names follow CheckName.
	Clusters map[string]*Cluster `yaml:"clusters"`
	// Alerts are accepted and named by NotYet: this version sends none.
	Alerts []Alert `yaml:"alerts"`
	// Worker holds the settings of the worker on this host.
	Worker Worker `yaml:"worker"`

	file  string
	marks map[string]mark // where each value was written; empty for a hand-built Config
}

// Repository is a place where backups and WAL live.
type Repository struct {
	// URL is file:///absolute/folder. s3:// is refused in this version. FilePath gives the folder.
	URL string `yaml:"url,required"`
	// Encryption must be nil: this version cannot encrypt, and refuses the setting rather than store plain bytes
	// where sealed ones were asked for.
	Encryption *Encryption `yaml:"encryption"`
	// Compression is zstd (default), s2 or none.
	Compression string `yaml:"compression"`
}

// Encryption names the keys of a repository. Its form is checked; see Repository.Encryption.
type Encryption struct {
	// Recipients are the public keys to seal for.
	Recipients []string `yaml:"recipients"`
	// IdentityFile is the path of the private key.
	IdentityFile string `yaml:"identity_file"`
}

// Cluster is a protected PostgreSQL instance.
type Cluster struct {
	// DSN is how to connect to it, as a URL or as key=value pairs.
	DSN DSN `yaml:"dsn,required"`
	// Repository is the name of the repository that protects it. It may be left out if there is just one.
	Repository string `yaml:"repository"`
	// DataDirectory is the server's data directory, absolute, where the worker runs beside the server; empty: the
	// files are read through the replication protocol. A worker elsewhere has a configuration without it. Not together
	// with Hosts.
	DataDirectory string `yaml:"data_directory"`
	// Hosts are the servers of a cluster that has several, each with a worker beside it. A backup is taken of the one
	// that is the primary, on its host.
	Hosts []Host `yaml:"hosts"`
	// WAL tells how WAL reaches the repository.
	WAL WAL `yaml:"wal"`
	// Objectives are what drills and `status` are measured against.
	Objectives Objectives `yaml:"objectives"`
	// Retention tells what must be kept. This version deletes nothing; see NotYet.
	Retention Retention `yaml:"retention"`
	// Schedules are what `lifeboat schedule apply` makes Temporal start.
	Schedules Schedules `yaml:"schedules"`
	// Checks are the owner's own SQL checks of a restored server.
	Checks []Check `yaml:"checks"`
}

// Host is one server of a cluster.
type Host struct {
	// DSN connects to this server and no other.
	DSN DSN `yaml:"dsn,required"`
	// DataDirectory is absolute, or empty: see Cluster.DataDirectory.
	DataDirectory string `yaml:"data_directory"`
	// Queue is the task queue of the worker on that host, TASKQUEUE@HOST, where HOST is what it was started with or the
	// host's name; empty: the HOST of the dsn.
	Queue string `yaml:"queue"`
}

// WAL tells how WAL reaches the repository.
type WAL struct {
	// Mode is archive (default: PostgreSQL's archive_command calls `lifeboat wal-push`).
	Mode string `yaml:"mode"`
}

// Objectives are the owner's targets, both greater than zero.
type Objectives struct {
	// RTO is how long a recovery may take; default 1h.
	RTO time.Duration `yaml:"rto"`
	// RPO is how much time may be lost; default 15m.
	RPO time.Duration `yaml:"rpo"`
}

// Retention is a policy for deleting, in units of days and backups, both at least 1.
type Retention struct {
	// FullDays is for how many days every backup is kept; default 30.
	FullDays int `yaml:"full_days"`
	// MinVerified is how many verified backups remain whatever their age; default 2.
	MinVerified int `yaml:"min_verified"`
}

// Schedule tells when something runs: five cron fields ("0 2 * * *") or an interval ("1m"). Empty: never.
type Schedule string

// Schedules are the recurring runs of a cluster. There is no default: what is not written does not run.
type Schedules struct {
	// TimeZone is the IANA name of the zone of all cron fields; empty: UTC.
	TimeZone          string   `yaml:"time_zone"`
	BackupFull        Schedule `yaml:"backup_full"`
	BackupIncremental Schedule `yaml:"backup_incremental"`
	BackupLogical     Schedule `yaml:"backup_logical"`
	Verify            Schedule `yaml:"verify"`
	DrillTable        Schedule `yaml:"drill_table"`
	DrillRestore      Schedule `yaml:"drill_restore"`
	DrillDisaster     Schedule `yaml:"drill_disaster"`
	Health            Schedule `yaml:"health"`
}

// Check is one SQL check: it passes if the only column of the only row that SQL returns is Expect as text.
type Check struct {
	// Name is for people, and unique in its cluster.
	Name string `yaml:"name,required"`
	// SQL is copied into the repository as written (see Sanitized): it is no place for a secret.
	SQL string `yaml:"sql,required"`
	// Expect is required, and may be the empty text.
	Expect string `yaml:"expect,required"`
}

// Alert is one alert rule. This version acts on none, so that its settings are checked for form only and not kept
// (a sink's address may be a secret).
type Alert struct {
	// Line is where it was written.
	Line int
}

// Worker holds the settings of the worker on this host.
//
// The section is an addition to the designed file, for three things that belong to a host rather than to a cluster,
// that no flag of the command line covers, and that Temporal's own settings do not know: where to lay restored servers
// for drills (the disk must hold a cluster), which PostgreSQL programs to run when several majors are installed or when
// they are in no usual place, and the queue that the worker and the command line must agree on.
type Worker struct {
	// WorkDir is an absolute folder for restored servers of drills and verifications; empty: the program's choice.
	WorkDir string `yaml:"work_dir"`
	// PostgresBin are absolute folders with PostgreSQL's programs (initdb, postgres, pg_ctl), one or more for each
	// major version; empty: the usual places of the system are searched.
	PostgresBin []string `yaml:"postgres_bin"`
	// TaskQueue is the Temporal task queue; default lifeboat. A host's own queue is TaskQueue@HOST.
	TaskQueue string `yaml:"task_queue"`
}

// Default returns a valid configuration that protects nothing yet.
func Default() *Config {
	c := &Config{Version: Version}
	c.Worker.setDefaults()
	return c
}

// DefaultRepository returns a repository at url with the defaults of this package, for a command that got the URL on
// its command line instead of a configuration (R5). FilePath checks the URL.
func DefaultRepository(url string) *Repository {
	r := &Repository{}
	r.setDefaults()
	r.URL = url
	return r
}

// DefaultCluster returns a cluster with the defaults of this package; it lacks a DSN and a repository.
func DefaultCluster() *Cluster {
	c := &Cluster{}
	c.setDefaults()
	return c
}

func (r *Repository) setDefaults() { r.Compression = DefaultCompression }

func (w *Worker) setDefaults() { w.TaskQueue = DefaultTaskQueue }

func (c *Cluster) setDefaults() {
	c.WAL.Mode = DefaultWALMode
	c.Objectives = Objectives{RTO: DefaultRTO, RPO: DefaultRPO}
	c.Retention = Retention{FullDays: DefaultFullDays, MinVerified: DefaultMinVerified}
}

// adoptOnlyRepository gives the one repository to the clusters that name none.
func (c *Config) adoptOnlyRepository() {
	if len(c.Repositories) != 1 {
		return
	}
	for only := range c.Repositories {
		for _, cluster := range c.Clusters {
			if cluster.Repository == "" {
				cluster.Repository = only
			}
		}
	}
}

// File is the path that the configuration was read from, "" if it was built by hand.
func (c *Config) File() string { return c.file }

// ClusterNames returns the names of all clusters in ascending order.
func (c *Config) ClusterNames() []string { return slices.Sorted(maps.Keys(c.Clusters)) }

// RepositoryNames returns the names of all repositories in ascending order.
func (c *Config) RepositoryNames() []string { return slices.Sorted(maps.Keys(c.Repositories)) }

// Cluster returns the cluster of that name. The error wraps ErrUnknownName and says which names there are.
func (c *Config) Cluster(name string) (*Cluster, error) {
	if found, ok := c.Clusters[name]; ok {
		return found, nil
	}
	return nil, c.unknownName("cluster", name, c.ClusterNames())
}

// Repository returns the repository of that name. The error wraps ErrUnknownName and says which names there are.
func (c *Config) Repository(name string) (*Repository, error) {
	if found, ok := c.Repositories[name]; ok {
		return found, nil
	}
	return nil, c.unknownName("repository", name, c.RepositoryNames())
}

func (c *Config) unknownName(kind, name string, known []string) error {
	file := c.file
	if file == "" {
		file = "the configuration"
	}
	return fmt.Errorf("%s %s is %w: %s", kind, quote(name), ErrUnknownName, knownNames(file, name, known))
}

// knownNames ends a message about an unknown name: the nearest one if there is one, else all there are.
func knownNames(where, name string, known []string) string {
	if len(known) == 0 {
		return where + " names none"
	}
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return where + " has " + strings.Join(known, ", ")
}

// NotYet lists, in the order of their paths, what the file configures and this version does not act on, one sentence
// each. It is empty for a file that is honoured in full. Only what Parse read counts.
func (c *Config) NotYet() []string {
	var out []string
	if len(c.Alerts) > 0 {
		out = append(out, "alerts: this version sends no alerts")
	}
	for _, name := range c.ClusterNames() {
		path := "clusters." + name
		if c.written(path + ".retention") {
			out = append(out, path+".retention: this version deletes no backups, so that all are kept")
		}
	}
	return out
}
