package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/contract"
)

// ClusterHost is one server of a cluster that has several.
type ClusterHost struct {
	// Server leads to this server and no other.
	Server dbcore.Config
	// DataDirectory is the server's, for the worker that polls Queue; empty: the server sends its files.
	DataDirectory string
	// Queue is the task queue of the worker beside the server. It names the host.
	Queue string
}

// name is the host's in words: what stands behind the @ of its queue.
func (h *ClusterHost) name() string { return h.Queue[strings.LastIndexByte(h.Queue, '@')+1:] }

// PlanBackup decides where a backup is taken. Without a data directory any worker will do. With one, it is the host that
// has it: of the configuration's hosts the one whose server is the primary now, otherwise this host, for data_directory
// says that the worker runs beside the server. What it decides is checked once more where the backup is taken.
func (r *Runner) PlanBackup(ctx context.Context, in contract.PlanBackupInput, run Run) (contract.PlanBackupResult, error) {
	var none contract.PlanBackupResult
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	switch {
	case len(c.Hosts) > 0:
		run.Progress(contract.Progress{Phase: "plan", Waiting: "which host is the primary"})
		h, err := primary(ctx, in.Cluster, c.Hosts)
		if err != nil {
			return none, err
		}
		return contract.PlanBackupResult{Host: h.name(), Queue: h.Queue}, nil
	case c.DataDirectory != "":
		if err := basebackup.LookForDirectory(c.DataDirectory); err != nil {
			return none, fmt.Errorf("back up %s on host %s: %w", in.Cluster, r.set.Host, err)
		}
		return contract.PlanBackupResult{Host: r.set.Host, Queue: contract.HostQueue(r.set.TaskQueue, r.set.Host)}, nil
	}
	return none, nil
}

// source is where the bytes of a backup come from, on this host.
func (r *Runner) source(ctx context.Context, cluster string, c *Cluster, queue string) (*ClusterHost, error) {
	switch {
	case len(c.Hosts) == 0:
		return &ClusterHost{Server: c.Server, DataDirectory: c.DataDirectory}, nil
	case queue == "":
		return primary(ctx, cluster, c.Hosts)
	}
	for i := range c.Hosts {
		if c.Hosts[i].Queue == queue {
			return &c.Hosts[i], nil
		}
	}
	return nil, &ConfigurationError{fmt.Sprintf("cluster %q has no host with queue %s in the configuration of this worker on host %s: "+
		"use the same hosts everywhere", cluster, queue, r.set.Host)}
}

// primary asks all hosts of a cluster and returns the one that takes writes.
func primary(ctx context.Context, cluster string, hosts []ClusterHost) (*ClusterHost, error) {
	var found *ClusterHost
	var failures []error
	for i := range hosts {
		h := &hosts[i]
		standby, err := isStandby(ctx, h.Server)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("host %s: %w", h.name(), err))
		case standby:
		case found != nil:
			return nil, &basebackup.UnsupportedError{Reason: fmt.Sprintf("cluster %s has two primaries, on hosts %s and %s: "+
				"fence one of them before anything is backed up", cluster, found.name(), h.name())}
		default:
			found = h
		}
	}
	if found != nil {
		return found, nil
	}
	if len(failures) > 0 {
		return nil, fmt.Errorf("find the primary of cluster %s: %w", cluster, errors.Join(failures...))
	}
	return nil, &basebackup.UnsupportedError{Reason: fmt.Sprintf("none of the %d hosts of cluster %s is a primary, and this version "+
		"backs up primaries only: list the primary's host, too", len(hosts), cluster)}
}

func isStandby(ctx context.Context, server dbcore.Config) (bool, error) {
	conn, err := dbcore.Connect(ctx, server)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return dbcore.One[bool](ctx, conn, "select pg_is_in_recovery()")
}
