package main

import (
	"context"
	"fmt"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/contract"
	"lifeboat/internal/health"
)

// sources checks what backups from data directories need: the cluster's own on this host, or each of its hosts. A
// directory of another host cannot be looked at from here.
func (k *checker) sources(ctx context.Context, c activities.Cluster, conn *dbcore.Conn, s *health.Server) {
	if c.DataDirectory != "" {
		k.backupFunctions(ctx, "backup functions", conn)
		k.directory(ctx, "data directory", conn, c.DataDirectory)
		return
	}
	queue, primaries := k.ownQueue(), 0
	for i := range c.Hosts {
		h := &c.Hosts[i]
		primary, err := k.host(ctx, h, queue, s)
		if err != nil {
			k.fail("host "+h.Queue, err)
		}
		if primary {
			primaries++
		}
	}
	if primaries != 1 {
		k.add("hosts", outcomeFail, "list the primary under hosts, once, and see that it runs",
			"%d of the cluster's hosts are primaries: a backup needs one", primaries)
	}
}

// ownQueue is the queue of a worker on this host that goes by the host's name.
func (k *checker) ownQueue() string {
	name, err := hostName()
	if err != nil {
		return ""
	}
	return contract.HostQueue(k.cfg.Worker.TaskQueue, name)
}

// host checks one of a cluster's hosts, and its data directory if that is on this host.
func (k *checker) host(ctx context.Context, h *activities.ClusterHost, queue string, s *health.Server) (primary bool, err error) {
	id := "host " + h.Queue
	conn, err := dbcore.Connect(ctx, h.Server)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	type state struct {
		Standby  bool   `db:"standby"`
		SystemID string `db:"system_id"`
	}
	is, err := dbcore.One[state](ctx, conn, "select pg_is_in_recovery() as standby, system_identifier::text as system_id from pg_control_system()")
	switch {
	case err != nil:
		return false, fmt.Errorf("ask who it is: %w", err)
	case is.SystemID != s.SystemID:
		return false, &hinted{fmt.Errorf("its system identifier is %s, that of the server in the cluster's dsn %s", is.SystemID, s.SystemID), "list hosts of one cluster only"}
	case is.Standby:
		k.ok(id, "a standby: backed up once it is the primary")
		return false, nil
	}
	k.ok(id, "the primary: backups are taken there")
	switch {
	case h.DataDirectory == "":
		k.replication(ctx, h.Server, s)
	case h.Queue == queue:
		k.backupFunctions(ctx, id, conn)
		k.directory(ctx, id, conn, h.DataDirectory)
	default:
		k.backupFunctions(ctx, id, conn)
		k.add(id, outcomeWarning, "run `lifeboat check` there as well", "its data directory %s can be checked on that host only", h.DataDirectory)
	}
	return true, nil
}

// backupFunctions checks that the role may bring the server into backup mode.
func (k *checker) backupFunctions(ctx context.Context, id string, conn *dbcore.Conn) {
	grant, err := basebackup.MissingGrant(ctx, conn)
	switch {
	case err != nil:
		k.fail(id, err)
	case grant != "":
		k.add(id, outcomeFail, grant, "the role of the dsn may not call pg_backup_start and pg_backup_stop")
	default:
		k.ok(id, "the role may call pg_backup_start and pg_backup_stop")
	}
}

// directory checks that a data directory is here, can be read, and is the server's.
func (k *checker) directory(ctx context.Context, id string, conn *dbcore.Conn, dir string) {
	if err := basebackup.CheckDirectory(ctx, conn, dir); err != nil {
		k.fail(id, err)
		return
	}
	k.ok(id, "%s is the server's own, and can be read", dir)
}
