package assemble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
)

// Host says where a program runs.
type Host struct {
	// Name is the host's; "" is os.Hostname.
	Name string
	// WorkDir is where drills restore to; "" is the configuration's, else a usual place.
	WorkDir string
}

// Settings turns a configuration into what a Runner needs on this host.
func Settings(cfg *config.Config, host Host, log *slog.Logger) (activities.Settings, error) {
	s := activities.Settings{
		Clusters: map[string]activities.Cluster{}, Host: host.Name, TaskQueue: cfg.Worker.TaskQueue,
		WorkDir: host.WorkDir, BinDirs: cfg.Worker.PostgresBin, Program: Program(), Logger: log, ConfigFile: cfg.File(),
	}
	if s.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("find this host's name: %w; give it by --host", err)
		}
		s.Host = name
	}
	if s.WorkDir == "" {
		s.WorkDir = cfg.Worker.WorkDir
	}
	if s.WorkDir == "" {
		s.WorkDir = defaultWorkDir()
	}
	s.Lifeboat, _ = Lifeboat() // restores say so if it is missing; backups do not need it
	for _, name := range cfg.ClusterNames() {
		c, err := cluster(cfg, name)
		if err != nil {
			return s, err
		}
		s.Clusters[name] = c
	}
	return s, nil
}

// usualWorkDir is on the disk for variable data.
const usualWorkDir = "/var/lib/lifeboat/work"

// defaultWorkDir is the usual place, if this user may write there, or else one of this user's own among temporary
// files. It makes nothing: most commands need no such place.
func defaultWorkDir() string {
	if mayMake(usualWorkDir) {
		return usualWorkDir
	}
	return filepath.Join(os.TempDir(), "lifeboat-"+strconv.Itoa(os.Getuid()))
}

// mayMake tells whether this user can make dir, or write to it if it is there.
func mayMake(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err == nil {
			return info.IsDir() && unix.Access(dir, unix.W_OK|unix.X_OK) == nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return false
		}
		dir = filepath.Dir(dir)
	}
}

func cluster(cfg *config.Config, name string) (activities.Cluster, error) {
	var out activities.Cluster
	c, err := cfg.Cluster(name)
	if err != nil {
		return out, err
	}
	r, err := cfg.Repository(c.Repository)
	if err != nil {
		return out, err
	}
	if out.Server, err = dbcore.ParseDSN(c.DSN.Reveal()); err != nil {
		return out, fmt.Errorf("cluster %s: dsn: %w", name, err)
	}
	if out.Server.ApplicationName == "" {
		out.Server.ApplicationName = "lifeboat"
	}
	if out.Compression, err = repo.ParseCompression(r.Compression); err != nil {
		return out, err
	}
	out.DataDirectory = c.DataDirectory
	for i, h := range c.Hosts {
		host, err := clusterHost(h, cfg.Worker.TaskQueue)
		if err != nil {
			return out, fmt.Errorf("cluster %s: hosts[%d]: %w", name, i, err)
		}
		out.Hosts = append(out.Hosts, host)
	}
	out.RepositoryURL, out.RTO, out.RPO = r.URL, c.Objectives.RTO, c.Objectives.RPO
	out.OpenRepository, out.RemoveStale = opener(r.URL), staleRemover(r.URL)
	configuration, err := cfg.Sanitized(name)
	if err != nil {
		return out, err
	}
	out.Configuration, out.Schedules = string(configuration), schedules(name, c.Schedules)
	for _, k := range c.Checks {
		out.Checks = append(out.Checks, contract.SQLCheck{Name: k.Name, SQL: k.SQL, Expect: k.Expect})
	}
	return out, nil
}

// clusterHost is one of a cluster's hosts. Its queue is that of the worker on the host that its dsn names.
func clusterHost(h config.Host, taskQueue string) (activities.ClusterHost, error) {
	out := activities.ClusterHost{DataDirectory: h.DataDirectory, Queue: h.Queue}
	var err error
	if out.Server, err = dbcore.ParseDSN(h.DSN.Reveal()); err != nil {
		return out, fmt.Errorf("dsn: %w", err)
	}
	if out.Server.ApplicationName == "" {
		out.Server.ApplicationName = "lifeboat"
	}
	if out.Queue != "" {
		return out, nil
	}
	name := out.Server.Host
	if ip := net.ParseIP(name); name == "" || name == "localhost" || ip != nil && ip.IsLoopback() || strings.ContainsAny(name, "/@") {
		return out, fmt.Errorf("queue is empty, and the dsn names no host that others know by that name: name the queue of the worker there, "+
			"such as %s", contract.HostQueue(taskQueue, "HOST"))
	}
	out.Queue = contract.HostQueue(taskQueue, name)
	return out, nil
}

// WithoutConfiguration gives settings for one cluster of a repository that is named by URL alone (R5): enough to list,
// fetch, verify and restore.
func WithoutConfiguration(url, clusterName string, host Host, log *slog.Logger) (activities.Settings, error) {
	s, err := Settings(config.Default(), host, log)
	if err != nil {
		return s, err
	}
	if err := config.CheckName(clusterName); err != nil {
		return s, fmt.Errorf("cluster: %w", err)
	}
	if _, err := config.FilePath(url); err != nil {
		return s, fmt.Errorf("--repository: %w", err)
	}
	r := config.DefaultRepository(url)
	c := activities.Cluster{RepositoryURL: url, OpenRepository: opener(url)}
	if c.Compression, err = repo.ParseCompression(r.Compression); err != nil {
		return s, err
	}
	s.Clusters[clusterName] = c
	return s, nil
}

// staleRemover cleans the store at a URL of what killed writers left.
func staleRemover(url string) func(ctx context.Context, olderThan time.Duration) (int, error) {
	return func(ctx context.Context, olderThan time.Duration) (int, error) {
		store, err := OpenStore(ctx, url, false)
		if err != nil {
			return 0, err
		}
		sweeper, ok := store.(interface {
			RemoveStale(ctx context.Context, olderThan time.Duration) (int, error)
		})
		if !ok {
			return 0, nil
		}
		return sweeper.RemoveStale(ctx, olderThan)
	}
}

func opener(url string) func(ctx context.Context, create bool) (*repo.Repository, error) {
	return func(ctx context.Context, create bool) (*repo.Repository, error) {
		return OpenRepository(ctx, url, create)
	}
}
