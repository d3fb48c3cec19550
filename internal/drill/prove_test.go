package drill_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/drill"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

func TestMain(m *testing.M) {
	syscall.Umask(0) // the server's user and this one share a repository
	os.Exit(pgtest.Main(m))
}

// scene is a protected cluster with a backup and two canary rows.
type scene struct {
	*pgtest.Server
	repo     *repo.Repository
	lay      recovery.LayOptions
	manifest *repo.Manifest
	canary   drill.Canary
}

func newScene(t *testing.T) *scene {
	t.Helper()
	lifeboat, dir := pgtest.Build(t, "lifeboat/cmd/starter"), filepath.Join(pgtest.TempDir(t), "repo")
	store, err := fs.Open(dir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	sc := &scene{}
	if sc.repo, err = repo.OpenOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	sc.lay = recovery.LayOptions{Repo: sc.repo, FetchCommand: []string{lifeboat, "--repository", "file://" + dir}}
	config := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	sc.Server = pgtest.New(t, pgtest.Options{
		Checksums: true, OwnIdentity: true, Tablespaces: []string{"one"},
		Archive: func(s *pgtest.Server) string {
			yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s\"}}\n", dir, s.SocketDir)
			if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s wal-push %%p --cluster c1 --config %s", lifeboat, config)
		},
	})
	sc.Exec(t, "create table orders tablespace one as select g as id from generate_series(1, 1000) g")
	cfg, err := dbcore.ParseDSN(sc.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	if sc.manifest, err = basebackup.Take(t.Context(), basebackup.Options{Repo: sc.repo, Cluster: "c1", Server: cfg, WorkflowID: "w"}); err != nil {
		t.Fatal(err)
	}
	if sc.canary, err = drill.WriteCanary(t.Context(), cfg, sc.repo, "c1", "20261123T084738Z-70c6fd", time.Minute); err != nil {
		t.Fatal(err)
	}
	again, err := drill.WriteCanary(t.Context(), cfg, sc.repo, "c1", "20261123T084738Z-70c6fd", time.Minute)
	if err != nil || again.ID == sc.canary.ID || !again.Target.After(sc.canary.Target) {
		t.Fatalf("a second pair: %+v, %v", again, err)
	}
	return sc
}

// laid plans and lays a restore; the zero target aims between the canary rows.
func (sc *scene) laid(t *testing.T, target recovery.Target) drill.ProveOptions {
	t.Helper()
	if target.Kind == "" {
		target = recovery.Target{Kind: recovery.Time, Value: sc.canary.Target.UTC().Format(time.RFC3339Nano)}
	}
	p, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{
		Repo: sc.repo, Cluster: "c1", TargetDir: filepath.Join(pgtest.TempDir(t), "d"), Target: target,
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := sc.lay
	opts.DrillID = "x"
	if _, err := recovery.Lay(t.Context(), p, opts); err != nil {
		t.Fatal(err)
	}
	return drill.ProveOptions{Plan: p, Manifest: sc.manifest, CanaryID: sc.canary.ID, Checks: []verify.Check{
		{Name: "orders", SQL: "select count(*) from orders", Expect: "1000"},
	}}
}

// outcomes are the checks of a proof by their names.
func outcomes(proof *drill.Proof) map[string]verify.Outcome {
	m := map[string]verify.Outcome{}
	for _, f := range proof.Checks {
		m[f.ID] = f.Outcome
	}
	return m
}

func wants(t *testing.T, proof *drill.Proof, changed map[string]verify.Outcome) {
	t.Helper()
	want := map[string]verify.Outcome{}
	for _, id := range []string{
		"objects", "manifest", "transaction before", "transaction after", "canary row before", "canary row after", "wal", "target",
		"catalog", "orders", "amcheck", "checksums",
	} {
		want[id] = verify.Passed
	}
	for id, o := range changed {
		want[id] = o
	}
	got := outcomes(proof)
	for id, o := range want {
		if got[id] != o {
			t.Errorf("%s: %q, want %q", id, got[id], o)
		}
	}
	if len(got) != len(want) || len(got) != len(proof.Checks) {
		t.Errorf("%d checks %v, want %d", len(proof.Checks), got, len(want))
	}
	if t.Failed() {
		t.Logf("%+v", proof.Checks)
	}
}

func noServer(t *testing.T, dir string) {
	t.Helper()
	if list, err := pginstance.Running(dir); err != nil || len(list) != 0 {
		t.Errorf("servers are left: %v, %v", list, err)
	}
}

func TestProve(t *testing.T) {
	sc := newScene(t)
	t.Run("all is well", func(t *testing.T) {
		opts := sc.laid(t, recovery.Target{})
		proof, err := drill.Prove(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, proof, nil)
		noServer(t, opts.Plan.TargetDir)
		if r := proof.Reached; r == nil || r.LSN != opts.Plan.Stop.ReplayedTo || r.Timeline != 2 {
			t.Errorf("reached %+v", r)
		}
	})
	t.Run("a check of the owner's fails", func(t *testing.T) {
		opts := sc.laid(t, recovery.Target{})
		opts.Checks = append(opts.Checks, verify.Check{Name: "more", SQL: "select count(*) from orders", Expect: "1001"},
			verify.Check{Name: "gone", SQL: "select 1 from no_such_table", Expect: "1"})
		proof, err := drill.Prove(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, proof, map[string]verify.Outcome{"more": verify.Failed, "gone": verify.Failed})
	})
	t.Run("too much came back", func(t *testing.T) {
		proof, err := drill.Prove(t.Context(), sc.laid(t, recovery.Target{Kind: recovery.Latest}))
		if err != nil {
			t.Fatal(err)
		}
		wants(t, proof, map[string]verify.Outcome{"canary row after": verify.Failed, "transaction after": verify.Skipped})
	})
	t.Run("too little came back", func(t *testing.T) {
		opts := sc.laid(t, recovery.Target{Kind: recovery.Immediate})
		proof, err := drill.Prove(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		got := outcomes(proof)
		if got["canary row before"] != verify.Failed || got["transaction after"] != verify.Passed {
			t.Errorf("%+v", proof.Checks)
		}
	})
	t.Run("a plan that was changed", func(t *testing.T) {
		opts := sc.laid(t, recovery.Target{})
		stop := &opts.Plan.Stop // as if it had expected the one transaction for the other
		stop.LastCommit, stop.FirstLost = stop.FirstLost, stop.LastCommit
		if _, err := drill.Prove(t.Context(), opts); err == nil {
			t.Error("it is proved")
		}
	})
	t.Run("a flipped byte", func(t *testing.T) {
		opts := sc.laid(t, recovery.Target{})
		files, err := filepath.Glob(filepath.Join(opts.Plan.TargetDir, "lifeboat.tablespaces/*/*/*/*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Size() < 20000 {
				continue
			}
			spoil(t, f, 12000)
		}
		proof, err := drill.Prove(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, proof, map[string]verify.Outcome{
			"manifest": verify.Failed, "checksums": verify.Failed, "amcheck": verify.Failed, "orders": verify.Failed,
		})
	})
	t.Run("nothing to fetch WAL with", func(t *testing.T) {
		was := sc.lay.FetchCommand
		sc.lay.FetchCommand = []string{"/bin/false"}
		opts := sc.laid(t, recovery.Target{})
		sc.lay.FetchCommand = was
		proof, err := drill.Prove(t.Context(), opts)
		if exited := (*pginstance.ExitError)(nil); !errors.As(err, &exited) || proof.Reached != nil {
			t.Errorf("error %v, reached %+v", err, proof.Reached)
		}
		if got := outcomes(proof); got["manifest"] != verify.Passed {
			t.Errorf("what was found before: %v", got)
		}
		noServer(t, opts.Plan.TargetDir)
	})
	t.Run("attempts that die", func(t *testing.T) { testAttempts(t, sc) })
	t.Run("somebody else's server", func(t *testing.T) { testForeign(t, sc) })
}

// testAttempts breaks a proof off at each of its stages. The last attempt finds all of it (invariant 11).
func testAttempts(t *testing.T, sc *scene) {
	opts := sc.laid(t, recovery.Target{})
	for _, phase := range []string{"replay", "promote", "check", "amcheck"} {
		ctx, cancel := context.WithCancel(t.Context())
		opts.Progress = func(p recovery.Progress) {
			if p.Phase == phase {
				cancel()
			}
		}
		if _, err := drill.Prove(ctx, opts); err == nil {
			t.Errorf("the attempt that was cancelled in %s proved something", phase)
		}
		cancel()
		noServer(t, opts.Plan.TargetDir)
	}
	// A server that an attempt left, promoted and running.
	if _, err := recovery.Start(t.Context(), opts.Plan, recovery.StartOptions{SocketOnly: true}); err != nil {
		t.Fatal(err)
	}
	opts.Progress = nil
	proof, err := drill.Prove(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, proof, nil)
	noServer(t, opts.Plan.TargetDir)
}

// testForeign: a drill stops no server but its own, even if a stale plan names its directory.
func testForeign(t *testing.T, sc *scene) {
	opts := sc.laid(t, recovery.Target{})
	s, err := recovery.Start(t.Context(), opts.Plan, recovery.StartOptions{SocketOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Instance.Stop(context.Background(), pginstance.Immediate) })
	stale, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{
		Repo: sc.repo, Cluster: "c1", TargetDir: opts.Plan.TargetDir, Target: recovery.Target{Kind: recovery.Immediate},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drill.Prove(t.Context(), drill.ProveOptions{Plan: stale, Manifest: sc.manifest}); err == nil || !strings.Contains(err.Error(), "not laid") {
		t.Errorf("error %v", err)
	}
	if s.Instance.Ended() {
		t.Error("the other server was stopped")
	}
}

func spoil(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("spoilt"), offset); err != nil {
		t.Fatal(err)
	}
}
