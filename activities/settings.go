package activities

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/health"
	"lifeboat/internal/repo"
	"lifeboat/internal/schedule"
)

// Settings are what a Runner needs to know of the configuration. The zero value protects nothing.
type Settings struct {
	// Clusters by name.
	Clusters map[string]Cluster
	// Host and TaskQueue say which queue leads to this very process's host: contract.HostQueue(TaskQueue, Host).
	Host, TaskQueue string
	// WorkDir is where drills restore to: a directory of this program's own on a disk that holds a cluster.
	WorkDir string
	// BinDirs are searched for PostgreSQL's programs before the usual places.
	BinDirs []string
	// Owner is the user that restored servers run as when this process is root; "" is postgres.
	Owner string
	// Lifeboat is the absolute path of the lifeboat program, for restore_command.
	Lifeboat string
	// ConfigFile is the configuration's path, for remedies; "" if there is none.
	ConfigFile string
	// HealthLimits are from where on something is a finding of the health check; the zero value is health.DefaultLimits.
	HealthLimits health.Limits
	// Program names this program and its version in manifests.
	Program string
	// WALTimeout bounds the wait for a backup's WAL; 0 is the engine's default.
	WALTimeout time.Duration
	// CheckpointEvery is the least time between checkpoints of a backup; 0 is the engine's default.
	CheckpointEvery time.Duration
	// Logger must not be nil.
	Logger *slog.Logger
}

// Cluster is one protected cluster.
type Cluster struct {
	// Server is how to reach it. Restores do not need it.
	Server dbcore.Config
	// DataDirectory is the server's, on this host; empty: the server sends its files. It is empty where Hosts are named.
	DataDirectory string
	// Hosts are the servers of a cluster that has several; backups are taken of the one that is the primary.
	Hosts []ClusterHost
	// RepositoryURL is without secrets: it stands in restore_command.
	RepositoryURL string
	// OpenRepository opens the cluster's repository; with create, it is made if there is none.
	OpenRepository func(ctx context.Context, create bool) (*repo.Repository, error)
	// RemoveStale removes the repository's unfinished writes that nobody has written to for longer than olderThan; nil
	// where killed writers leave none.
	RemoveStale func(ctx context.Context, olderThan time.Duration) (int, error)
	Compression repo.Compression
	RTO, RPO    time.Duration
	Checks      []contract.SQLCheck
	// Schedules are what the configuration asks for; a health check compares.
	Schedules schedule.Cluster
	// Configuration is the cluster's part of lifeboat.yaml without secrets, of which the repository keeps a copy (R5);
	// empty: there is none to keep.
	Configuration string
}

// Runner does Lifeboat's work. Its methods may be called concurrently, and again after any failure.
type Runner struct {
	set Settings
}

// NewRunner makes a Runner.
func NewRunner(s Settings) *Runner { return &Runner{set: s} }

// Run identifies the run that asks for work.
type Run struct {
	// WorkflowID owns leases and is recorded; a --local run invents one.
	WorkflowID string
	// RunID tells runs of one WorkflowID apart; empty for a --local run.
	RunID string
	// Progress receives progress from time to time, from any goroutine. It must not be nil.
	Progress func(contract.Progress)
}

// ConfigurationError says that the configuration does not allow what was asked for.
type ConfigurationError struct{ Message string }

// Error is the message.
func (e *ConfigurationError) Error() string { return e.Message }

// InputError says that what was asked for cannot be meant.
type InputError struct{ Err error }

// Error is the message of what it wraps.
func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *InputError) Unwrap() error { return e.Err }

func (r *Runner) cluster(name string) (Cluster, error) {
	c, ok := r.set.Clusters[name]
	if !ok {
		return c, &ConfigurationError{fmt.Sprintf("cluster %q is not in the configuration of this worker on host %s: "+
			"add it to lifeboat.yaml there and restart the worker", name, r.set.Host)}
	}
	return c, nil
}
