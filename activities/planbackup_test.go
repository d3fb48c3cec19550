package activities

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// standby starts a server that follows nobody and takes no writes.
func standby(t *testing.T) *pgtest.Server {
	t.Helper()
	s := pgtest.New(t, pgtest.Options{})
	s.Stop(t)
	signal := filepath.Join(s.DataDir, "standby.signal")
	if err := errors.Join(os.WriteFile(signal, nil, 0o600), pgtest.Owner(t).Chown(signal)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in, err := pginstance.Start(ctx, pginstance.Options{
		Binaries: s.Bin, DataDir: s.DataDir, Owner: pgtest.Owner(t).Name, Port: s.Port, SocketDir: s.SocketDir, LogFile: s.LogFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if _, err := in.WaitReady(ctx, pginstance.Accepting); err != nil {
		t.Fatal(err)
	}
	return s
}

func clusterHost(t *testing.T, name string, s *pgtest.Server) ClusterHost {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	return ClusterHost{Server: cfg, DataDirectory: s.DataDir, Queue: "lifeboat@" + name}
}

// TestPlanBackup_ChoosesTheHost: the primary of several, this host for a data directory, any worker without one.
func TestPlanBackup_ChoosesTheHost(t *testing.T) {
	one, two := pgtest.New(t, pgtest.Options{}), pgtest.New(t, pgtest.Options{})
	a, b, c := clusterHost(t, "a", one), clusterHost(t, "b", two), clusterHost(t, "c", standby(t))
	plan := func(change func(c *Cluster)) (contract.PlanBackupResult, error) {
		r, _, _ := memoryRunner(t, func(_ *Settings, c *Cluster) { change(c) })
		return r.PlanBackup(t.Context(), contract.PlanBackupInput{Cluster: "c1"}, testRun())
	}
	hosts := func(list ...ClusterHost) func(*Cluster) { return func(c *Cluster) { c.Hosts = list } }
	for name, x := range map[string]struct {
		change func(*Cluster)
		want   contract.PlanBackupResult
		kind   string // of the error
		text   string
	}{
		"stream":              {func(*Cluster) {}, contract.PlanBackupResult{}, "", ""},
		"a data directory":    {func(c *Cluster) { c.DataDirectory = one.DataDir }, contract.PlanBackupResult{Host: "h", Queue: "lifeboat@h"}, "", ""},
		"not on this host":    {func(c *Cluster) { c.DataDirectory = "/nonexistent" }, contract.PlanBackupResult{}, contract.ErrorConfiguration, "on host h"},
		"the primary":         {hosts(c, a), contract.PlanBackupResult{Host: "a", Queue: "lifeboat@a"}, "", ""},
		"no primary":          {hosts(c), contract.PlanBackupResult{}, contract.ErrorConfiguration, "none of the 1 hosts"},
		"two primaries":       {hosts(a, c, b), contract.PlanBackupResult{}, contract.ErrorConfiguration, "two primaries, on hosts a and b"},
		"an unknown cluster":  {func(*Cluster) {}, contract.PlanBackupResult{}, contract.ErrorConfiguration, "c2"},
		"the primary is down": {hosts(c, ClusterHost{Server: dbcore.Config{Host: "/nonexistent"}, Queue: "lifeboat@d"}), contract.PlanBackupResult{}, "again", "host d"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := plan(x.change)
			if name == "an unknown cluster" {
				r, _, _ := memoryRunner(t, nil)
				_, err = r.PlanBackup(t.Context(), contract.PlanBackupInput{Cluster: "c2"}, testRun())
			}
			if x.kind == "" {
				if err != nil || got != x.want {
					t.Errorf("planned %+v, %v", got, err)
				}
				return
			}
			kind := ErrorType(err)
			if kind == "" {
				kind = "again"
			}
			if err == nil || kind != x.kind || !strings.Contains(err.Error(), x.text) {
				t.Errorf("error %q is %v", kind, err)
			}
		})
	}
	r, _, _ := memoryRunner(t, func(_ *Settings, cl *Cluster) { cl.Hosts = []ClusterHost{a} })
	if _, err := r.TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c1", Queue: "lifeboat@z"}, testRun()); ErrorType(err) != contract.ErrorConfiguration || !strings.Contains(err.Error(), "lifeboat@z") {
		t.Errorf("a host that this worker does not know: %v", err)
	}
}
