package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/dbcore"
	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

func TestMain(m *testing.M) {
	syscall.Umask(0) // the server's user and this one share a repository
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// scene is a protected server with one backup, and a runner that drills it.
type scene struct {
	*pgtest.Server
	runner *Runner
	store  *fault.Store
	files  blob.Store
	backup contract.BackupResult
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{}
	dir := filepath.Join(pgtest.TempDir(t), "repo")
	var err error
	if s.files, err = fs.Open(dir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s.store = fault.New(s.files)
	if _, err := repo.OpenOrCreate(t.Context(), s.store); err != nil {
		t.Fatal(err)
	}
	lifeboat, config := pgtest.Build(t, "lifeboat/cmd/starter"), filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	s.Server = pgtest.New(t, pgtest.Options{
		Checksums: true, OwnIdentity: true,
		Archive: func(p *pgtest.Server) string {
			yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s\"}}\n", dir, p.SocketDir)
			if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s wal-push %%p --cluster c1 --config %s", lifeboat, config)
		},
	})
	s.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	cfg, err := dbcore.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	s.runner = NewRunner(Settings{
		Host: "h", TaskQueue: "lifeboat", WorkDir: filepath.Join(pgtest.TempDir(t), "work"), Lifeboat: lifeboat, Program: "test",
		Owner: pgtest.Owner(t).Name, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Clusters: map[string]Cluster{"c1": {
			Server: cfg, RepositoryURL: "file://" + dir, RTO: time.Hour, RPO: time.Hour,
			OpenRepository: func(ctx context.Context, _ bool) (*repo.Repository, error) { return repo.Open(ctx, s.store) },
			Checks:         []contract.SQLCheck{{Name: "orders", SQL: "select count(*) from orders", Expect: "1000"}},
		}},
	})
	if s.backup, err = s.runner.TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c1", Type: contract.TypeFull}, testRun()); err != nil {
		t.Fatal(err)
	}
	return s
}

// drill runs one, and checks what holds of every drill: nothing is left behind, and the report says what the result does.
func (s *scene) drill(t *testing.T, ctx context.Context, in contract.DrillInput, progress func(contract.Progress)) (contract.Report, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	in.Cluster = "c1"
	if progress == nil {
		progress = func(contract.Progress) {}
	}
	res, drillErr := s.runner.Drill(ctx, in, Run{WorkflowID: "local-" + t.Name(), Progress: progress})
	if entries, err := os.ReadDir(s.runner.set.WorkDir); len(entries) > 0 {
		t.Errorf("left behind in the work directory: %v, %v", entries, err)
	}
	var rep contract.Report
	if res.DrillID == "" {
		return rep, drillErr
	}
	rp, err := repo.Open(t.Context(), s.files)
	if err != nil {
		t.Fatal(err)
	}
	if err := rp.GetDocument(t.Context(), "c1", "reports/"+res.DrillID, &rep); err != nil {
		t.Fatalf("there is no report: %v", err)
	}
	if rep.Verdict != res.Verdict || rep.Level != res.Level || rep.Report != res.Report || len(rep.Checks) != len(res.Checks) ||
		rep.WorkflowID != "local-"+t.Name() || !rep.CleanedUp || rep.FinishedAt.Before(rep.StartedAt) || rep.Scenario != contract.ScenarioRestore {
		t.Errorf("the report is %+v, the result %+v", rep, res)
	}
	return rep, drillErr
}

// verified is the newest proof of the scene's backup.
func (s *scene) verified(t *testing.T) contract.Verified {
	t.Helper()
	rp, err := repo.Open(t.Context(), s.files)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ListVerified(t.Context(), rp, "c1")
	if err != nil {
		t.Fatal(err)
	}
	return all[s.backup.BackupID]
}

// TestDrill_Local goes through the outcomes of a drill without Temporal (invariant 12), on one server and one backup.
func TestDrill_Local(t *testing.T) {
	s := newScene(t)
	t.Run("passes", func(t *testing.T) {
		var phases []string
		rep, err := s.drill(t, t.Context(), contract.DrillInput{}, func(p contract.Progress) {
			if !slices.Contains(phases, p.Phase) {
				phases = append(phases, p.Phase)
			}
		})
		if err != nil || rep.Verdict != contract.Pass || rep.Level != 7 || rep.Failure != "" {
			t.Errorf("%v: %s, level %d: %s\n%+v", err, rep.Verdict, rep.Level, rep.Failure, rep.Checks)
		}
		if rep.BackupID != s.backup.BackupID || rep.SystemIdentifier != s.backup.SystemIdentifier || rep.Host != "h" || rep.Reached == nil ||
			rep.Target.Kind != "time" || rep.DisasterAt == nil || rep.Files == 0 || rep.Bytes == 0 || len(rep.Plan) < 10 {
			t.Errorf("the report is %+v", rep)
		}
		if rep.RTO.Measured <= 0 || rep.RTO.Spans.Fetch <= 0 || rep.RTO.Spans.Replay <= 0 || rep.RTO.Target != 3600 ||
			rep.RPO.Measured == nil || rep.RPO.Target != 3600 {
			t.Errorf("the figures are %+v and %+v", rep.RTO, rep.RPO)
		}
		for _, id := range []string{"orders", "canary row before", "canary row after", "rto", "rpo"} {
			if !slices.ContainsFunc(rep.Checks, func(c contract.CheckResult) bool { return c.ID == id && c.Verdict == contract.Pass }) {
				t.Errorf("%s did not pass: %+v", id, rep.Checks)
			}
		}
		for _, phase := range []string{"prepare", "plan", "lay", "replay", "clean up", "report"} {
			if !slices.Contains(phases, phase) {
				t.Errorf("the phases were %v, want %s among them", phases, phase)
			}
		}
		if v := s.verified(t); v.Verdict != contract.Pass || v.Level != 7 {
			t.Errorf("the proof of the backup is %+v", v)
		}
	})
	t.Run("a check fails", func(t *testing.T) {
		rep, err := s.drill(t, t.Context(), contract.DrillInput{
			Checks: []contract.SQLCheck{{Name: "more orders", SQL: "select count(*) from orders", Expect: "1001"}},
		}, nil)
		if err != nil || rep.Verdict != contract.Fail || rep.Level != 6 {
			t.Errorf("%v: %s, level %d", err, rep.Verdict, rep.Level)
		}
		if v := s.verified(t); v.Verdict != contract.Fail || v.Level != 6 {
			t.Errorf("the proof of the backup is %+v", v)
		}
	})
	t.Run("the target cannot be reached", func(t *testing.T) {
		rep, err := s.drill(t, t.Context(), contract.DrillInput{Target: contract.Target{Kind: "time", Value: "2001-01-01T00:00:00Z"}}, nil)
		if err != nil || rep.Verdict != contract.Fail || rep.Level != 0 || !strings.Contains(rep.Failure, "PlanRestore: refused") {
			t.Errorf("%v: %s, level %d: %s", err, rep.Verdict, rep.Level, rep.Failure)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		rep, err := s.drill(t, ctx, contract.DrillInput{Target: contract.Target{Kind: "immediate"}}, func(p contract.Progress) {
			if p.Phase == "replay" {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || rep.Verdict != contract.CouldNotVerify || rep.Failure != "interrupted during ProveRecovery" {
			t.Errorf("%v: %s: %s", err, rep.Verdict, rep.Failure)
		}
	})
	t.Run("the report is stored at the third attempt", func(t *testing.T) {
		s.store.Add(fault.Rule{Op: fault.Writes, Key: fault.Contains("/reports/"), Count: 2, Do: fault.Fail(nil)})
		_, err := s.drill(t, t.Context(), contract.DrillInput{Target: contract.Target{Kind: "time", Value: "2001-01-01T00:00:00Z"}}, nil)
		if err != nil || len(s.store.Unused()) > 0 {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("no evidence", func(t *testing.T) {
		s.store.Add(fault.Rule{Op: fault.Writes, Key: fault.Contains("/reports/"), Count: 5, Do: fault.Fail(nil)})
		_, err := s.drill(t, t.Context(), contract.DrillInput{Target: contract.Target{Kind: "time", Value: "2001-01-01T00:00:00Z"}}, nil)
		if !errors.Is(err, fault.ErrInjected) || !strings.Contains(err.Error(), "does not count") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		s.store.Add(fault.Rule{Op: fault.GetRead, Key: fault.Contains("/data/"), At: 5000, Count: fault.Forever, Do: fault.Flip()})
		rep, err := s.drill(t, t.Context(), contract.DrillInput{Target: contract.Target{Kind: "immediate"}}, nil)
		if err != nil || rep.Verdict != contract.Fail || !strings.HasPrefix(rep.Failure, "LayFiles: ") || len(s.store.Unused()) > 0 {
			t.Errorf("%v: %s: %s", err, rep.Verdict, rep.Failure)
		}
		if v := s.verified(t); v.Verdict != contract.Fail || v.Level != 0 {
			t.Errorf("the proof of the backup is %+v", v)
		}
	})
	t.Run("the protected server is gone, and a canary was asked for", func(t *testing.T) {
		s.Stop(t)
		rep, err := s.drill(t, t.Context(), contract.DrillInput{}, nil)
		if err != nil || rep.Verdict != contract.CouldNotVerify || !strings.HasPrefix(rep.Failure, "PrepareDrill: ") {
			t.Errorf("%v: %s: %s", err, rep.Verdict, rep.Failure)
		}
	})
}
