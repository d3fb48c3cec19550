package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/blob"
	"lifeboat/internal/health"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/repo"
)

// clockLimit is how many seconds the clocks of server and host may differ before targets that people type by the one
// miss what they meant by the other.
const clockLimit = 2.0

// oneCluster checks a server and what it must agree with. It fails only for a wrong configuration.
func (k *checker) oneCluster(ctx context.Context, name string) error {
	k.cluster = name
	set, c, err := k.a.cluster(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := dbcore.Connect(ctx, c.Server)
	if err != nil {
		k.fail("server", err)
		return nil
	}
	defer conn.Close()
	s, err := health.AskServer(ctx, conn)
	if err != nil {
		k.unknown("server", err)
		return nil
	}
	seen := &health.Snapshot{At: time.Now(), Cluster: k.cluster, ConfigFile: k.cfg.File(), RPO: c.RPO, Server: s}
	k.rules(seen, health.AreaRole, health.AreaSettings)
	if seen.Queue, err = health.AskQueue(ctx, conn); err != nil {
		k.unknown("archive queue", fmt.Errorf("count the WAL that waits for archiving: %w", err))
	}
	k.rules(seen, health.AreaArchiving)
	k.clock(s)
	k.privileges(ctx, conn)
	if c.DataDirectory == "" && len(c.Hosts) == 0 {
		k.replication(ctx, c.Server, s)
	} else {
		k.sources(ctx, c, conn, s)
	}
	k.identity(ctx, c, s)
	k.binaries(s)
	k.workDirectory(ctx, conn, set.WorkDir)
	return nil
}

// rules judges a server by the rules of the health check (package health) of these areas.
func (k *checker) rules(s *health.Snapshot, areas ...health.Area) {
	for _, r := range health.Rules() {
		if !slices.Contains(areas, r.Area) {
			continue
		}
		id := checkID(r.ID)
		found := r.Judge(s, health.DefaultLimits())
		for _, f := range found {
			outcome := outcomeWarning
			if f.Severity == health.Critical {
				outcome = outcomeFail
			}
			k.add(id, outcome, f.Remedy, "%s", f.Evidence)
		}
		if good := r.Good(s); len(found) == 0 && good != "" {
			k.ok(id, "%s", good)
		}
	}
}

// checkID is a rule's name in the words of check, which is older.
func checkID(rule string) string {
	switch rule {
	case "archive_queue":
		return "archive queue"
	case "server_version", "server_standby":
		return "server"
	}
	return rule
}

func (k *checker) clock(s *health.Server) {
	if math.Abs(s.Ahead) > clockLimit+s.Within {
		k.add("clock", outcomeWarning, "run an NTP client on both", "the server's clock is %+.1f s from this host's: a time target means the server's clock", s.Ahead)
		return
	}
	k.ok("clock", "within %.1f s of the server's", max(0.1, math.Abs(s.Ahead)+s.Within))
}

// replication checks the kind of connection that a backup reads through.
func (k *checker) replication(ctx context.Context, server dbcore.Config, s *health.Server) {
	conn, err := dbcore.ConnectReplication(ctx, server)
	if err != nil {
		k.fail("replication", err)
		return
	}
	defer conn.Close()
	id, err := conn.IdentifySystem(ctx)
	switch {
	case err != nil:
		k.fail("replication", err)
	case fmt.Sprint(id.SystemID) != s.SystemID:
		k.add("replication", outcomeFail, "name one server in the dsn", "the replication connection leads to another server: system identifier %d, not %s", id.SystemID, s.SystemID)
	default:
		k.ok("replication", "a replication connection works, timeline %d", id.Timeline)
	}
}

// identity checks that the repository's cluster of this name is this server.
func (k *checker) identity(ctx context.Context, c activities.Cluster, s *health.Server) {
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return // told by the check of the repository
	}
	have, err := r.Identity(ctx, k.cluster)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		k.ok("identity", "the repository does not know cluster %s yet", k.cluster)
	case err != nil:
		k.fail("identity", err)
	case have.SystemID.String() != s.SystemID:
		id, _ := pg.ParseSystemID(s.SystemID)
		k.fail("identity", &repo.IdentityError{Cluster: k.cluster, Want: have, Have: repo.Identity{SystemID: id, WALSegmentSize: have.WALSegmentSize}})
	default:
		k.ok("identity", "system identifier %s, as the repository has it", s.SystemID)
	}
}

// binaries checks that this host could start a restored server.
func (k *checker) binaries(s *health.Server) {
	major := pg.Version(s.VersionNum).Major()
	b, err := pginstance.FindBinaries(major, k.cfg.Worker.PostgresBin)
	if err != nil {
		k.add("binaries", outcomeWarning, "install them where restores and drills run, or name their folder in worker.postgres_bin", "%v", err)
		return
	}
	k.ok("binaries", "PostgreSQL %s in %s", b.Version, b.Dir)
}
