package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

const probeInterval = 100 * time.Millisecond

func nodeConfig(t testing.TB, s *pgtest.Server) dbcore.Config {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnectTimeout = 2 * time.Second
	return cfg
}

func openCluster(t testing.TB, servers ...*pgtest.Server) *dbcore.Cluster {
	t.Helper()
	cfg := dbcore.ClusterConfig{ProbeInterval: probeInterval, FailoverWait: time.Minute}
	for _, s := range servers {
		cfg.Nodes = append(cfg.Nodes, nodeConfig(t, s))
	}
	c, err := dbcore.OpenCluster(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// pair is a primary a and its streaming standby b.
func pair(t testing.TB, major int) (a, b *pgtest.Server) {
	t.Helper()
	a = pgtest.New(t, pgtest.Options{Major: major, Settings: map[string]string{"autovacuum": "off"}})
	a.Exec(t, "create table log (id int primary key, server text default current_setting('port'))")
	return a, a.Standby(t)
}

// at is the port of the server that a DB leads to.
func at(t testing.TB, db *dbcore.DB, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return one[int](t, db, "select current_setting('port')::int")
}

func replicaAt(t testing.TB, c *dbcore.Cluster, opts ...dbcore.ReadOption) int {
	t.Helper()
	db, err := c.Replica(context.Background(), opts...)
	return at(t, db, err)
}

// status is the one of a server.
func status(c *dbcore.Cluster, s *pgtest.Server) dbcore.NodeStatus {
	for _, n := range c.Nodes() {
		if strings.HasSuffix(n.Name, fmt.Sprintf(":%d", s.Port)) {
			return n
		}
	}
	return dbcore.NodeStatus{}
}

func bothMajors(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) {
			pgtest.Binaries(t, major)
			f(t, major)
		})
	}
}

// TestReplica: reads go to the standby within their bound, and to the primary beyond it.
func TestReplica(t *testing.T) {
	bothMajors(t, func(t *testing.T, major int) {
		ctx := context.Background()
		a, b := pair(t, major)
		c := openCluster(t, b, a)
		const bound = 10 * time.Second // the machine may be slow
		pgtest.Eventually(t, "the standby is known to have all", func() bool {
			s := status(c, b)
			return s.LagKnown && s.LagBytes == 0 && s.Receiving && s.Lag < bound
		})
		db, err := c.Primary(ctx)
		if got := at(t, db, err); got != a.Port {
			t.Fatalf("primary at %d, want %d", got, a.Port)
		}
		if got := replicaAt(t, c); got != b.Port {
			t.Errorf("read without a bound at %d, want the standby's %d", got, b.Port)
		}
		if got := replicaAt(t, c, dbcore.MaxLag(bound)); got != b.Port {
			t.Errorf("read within a bound at %d, want the standby's %d", got, b.Port)
		}

		// It needs no privileges.
		a.Exec(t, "create role plain login")
		cfg := dbcore.ClusterConfig{}
		for _, s := range []*pgtest.Server{a, b} {
			n := nodeConfig(t, s)
			n.User = "plain"
			cfg.Nodes = append(cfg.Nodes, n)
		}
		pgtest.Eventually(t, "the role is on the standby", func() bool { return b.SQL(t, "select count(*) from pg_roles where rolname = 'plain'") == "1" })
		plain, err := dbcore.OpenCluster(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(plain.Close)
		if got := replicaAt(t, plain); got != b.Port {
			t.Errorf("read without privileges at %d, want the standby's %d", got, b.Port)
		}

		// Read your writes.
		for i := range 20 {
			if _, err := c.Exec(ctx, "insert into log values ($1)", i); err != nil {
				t.Fatal(err)
			}
			l, err := c.LSN(ctx)
			if err != nil {
				t.Fatal(err)
			}
			reads := c.Op("read").OnReplica(dbcore.AfterLSN(l), dbcore.WaitReplay(time.Minute))
			type seen struct{ N, Port int }
			got, err := dbcore.One[seen](ctx, reads, "select count(*)::int as n, current_setting('port')::int as port from log")
			if err != nil || got.N != i+1 || got.Port != b.Port {
				t.Fatalf("after %d writes the replica shows %+v, want all, at %d: %v", i+1, got, b.Port, err)
			}
		}

		// Replay stands still: the lag grows, and never looks like 0, though the receiver has all.
		b.Exec(t, "select pg_wal_replay_pause()")
		pgtest.Eventually(t, "replay is paused", func() bool { return b.SQL(t, "select pg_get_wal_replay_pause_state()") == "paused" })
		if _, err := c.Exec(ctx, "insert into log values (100)"); err != nil {
			t.Fatal(err)
		}
		l, err := c.LSN(ctx)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if got := replicaAt(t, c, dbcore.AfterLSN(l)); got != a.Port {
			t.Errorf("the standby at %d has not replayed %s", got, l)
		}
		if waited := time.Since(began); waited < dbcore.DefaultReplayWait {
			t.Errorf("gave up after %s", waited)
		}
		if got := replicaAt(t, c, dbcore.AfterLSN(l), dbcore.WaitReplay(-1)); got != a.Port {
			t.Errorf("the standby at %d has not replayed %s", got, l)
		}
		const short = 700 * time.Millisecond
		pgtest.Eventually(t, "the lag is seen", func() bool { s := status(c, b); return s.LagBytes > 0 && s.Lag > short })
		if s := status(c, b); !s.Receiving {
			t.Errorf("it does receive: %+v", s)
		}
		if got := replicaAt(t, c, dbcore.MaxLag(short)); got != a.Port {
			t.Errorf("the standby at %d is further behind than %s", got, short)
		}
		if got := replicaAt(t, c, dbcore.MaxLag(time.Hour)); got != b.Port {
			t.Errorf("read within an hour's lag at %d, want the standby's %d", got, b.Port)
		}
		b.Exec(t, "select pg_wal_replay_resume()")
		if got := replicaAt(t, c, dbcore.AfterLSN(l), dbcore.WaitReplay(time.Minute)); got != b.Port {
			t.Errorf("read at %d, though the standby at %d catches up", got, b.Port)
		}

		// Without a standby the primary serves; a request that meets the dead one does not fail.
		reads := c.Op("read").OnReplica()
		b.Kill(t)
		for range 10 {
			if got, err := dbcore.One[int](ctx, reads, "select current_setting('port')::int"); err != nil || got != a.Port {
				t.Fatalf("read at %d: %v", got, err)
			}
		}
		b.StartStandby(t)
		pgtest.Eventually(t, "the standby serves again", func() bool { return replicaAt(t, c) == b.Port })

		// Cut from its primary: it falls behind by what it does not get.
		b.Set(t, map[string]string{"primary_conninfo": ""})
		pgtest.Eventually(t, "it receives nothing", func() bool { return !status(c, b).Receiving })
		if got := replicaAt(t, c); got != a.Port {
			t.Errorf("read without a bound at %d, which receives nothing", got)
		}
		if _, err := c.Exec(ctx, "insert into log values (101)"); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, "it falls behind", func() bool { return status(c, b).Lag > short })
		if got := replicaAt(t, c, dbcore.MaxLag(short)); got != a.Port {
			t.Errorf("read at %d, which is cut off", got)
		}
	})
}

// TestOpenClusterRefuses: what cannot work is said at once.
func TestOpenClusterRefuses(t *testing.T) {
	ctx := context.Background()
	good := socketConfig()
	several, attrs, nowhere := good, good, good
	several.Host, several.Port = "", 0
	several.DSN = dbcore.NewSecret("host=one,two user=x dbname=y")
	attrs.DSN = dbcore.NewSecret("target_session_attrs=primary")
	nowhere.Host = "/nonexistent"
	for name, c := range map[string]struct {
		cfg  dbcore.ClusterConfig
		says string
	}{
		"none":       {dbcore.ClusterConfig{}, "empty"},
		"twice":      {dbcore.ClusterConfig{Nodes: []dbcore.Config{good, good}}, "listed twice"},
		"hosts":      {dbcore.ClusterConfig{Nodes: []dbcore.Config{several}}, "more hosts"},
		"attrs":      {dbcore.ClusterConfig{Nodes: []dbcore.Config{attrs}}, "target_session_attrs"},
		"interval":   {dbcore.ClusterConfig{Nodes: []dbcore.Config{good}, ProbeInterval: -1}, "ProbeInterval"},
		"no answers": {dbcore.ClusterConfig{Nodes: []dbcore.Config{nowhere}}, "no node answers"},
	} {
		cl, err := dbcore.OpenCluster(ctx, c.cfg)
		if err == nil {
			cl.Close()
			t.Errorf("%s: opened", name)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
}

// TestReadOnlyPrimary: a primary that refuses writes (25006) gets none until it was looked at, the transaction is
// repeated as a whole, and a DB that somebody has kept lets nothing pass meanwhile.
func TestReadOnlyPrimary(t *testing.T) {
	ctx := context.Background()
	s := pgtest.New(t, pgtest.Options{})
	s.Exec(t, "create table log (id int primary key)")
	c := openCluster(t, s)
	var mu sync.Mutex
	var events []dbcore.ClusterEvent
	defer c.OnChange(func(e dbcore.ClusterEvent) {
		c.Nodes() // it may
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	})()
	kept, err := c.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	err = c.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if runs++; runs == 1 {
			if _, err := tx.Exec(ctx, "set transaction read only"); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "insert into log values (1)")
		return err
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs: %v", runs, err)
	}
	// Told behind the request, and perhaps after the event of the opening.
	pgtest.Eventually(t, "the loss and the return are told, in this order", func() bool {
		mu.Lock()
		defer mu.Unlock()
		if len(events) > 0 && events[0].From == "" {
			events = events[1:]
		}
		return len(events) == 2 && events[0].To == "" && errors.Is(events[0].Err, dbcore.ErrNoPrimary) && events[1].From == "" && events[1].To != ""
	})

	// Fenced by a person: the default for all sessions is read-only. No write gets through, and the error has the remedy.
	s.Set(t, map[string]string{"default_transaction_read_only": "on"})
	pgtest.Eventually(t, "no primary", func() bool { _, err := c.Primary(ctx); return err != nil })
	if _, err := c.Primary(ctx); !errors.Is(err, dbcore.ErrNoPrimary) || !strings.Contains(err.Error(), "default_transaction_read_only") {
		t.Errorf("error %v", err)
	}
	bounded, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(bounded, "insert into log values (2)"); !errors.Is(err, dbcore.ErrNoPrimary) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("write without a primary: %v", err)
	}
	if got := one[int](t, kept, "select count(*) from log"); got != 1 {
		t.Errorf("%d rows", got)
	}
}
