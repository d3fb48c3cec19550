package recovery_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// TestRestore_OnTwoTimelines: a restored server takes over and archives a second timeline, while the old one goes on by
// itself. Both branches can be restored, each gives its own rows, and a time that lies on both is refused (R2).
func TestRestore_OnTwoTimelines(t *testing.T) {
	b := newBench(t, 0)
	b.Exec(t, "create table step (id int primary key)")
	b.backup(t)
	b.Exec(t, "insert into step values (1)")
	waitForFrontier(t, b)
	shared := time.Now()
	<-time.After(20 * time.Millisecond) // commits on both sides of a moment
	b.Exec(t, "insert into step values (2)")
	waitForFrontier(t, b)

	heir := b.takeOver(t)
	heir.exec(t, "insert into step values (10)")
	b.Exec(t, "insert into step values (20)")
	both := time.Now()
	<-time.After(20 * time.Millisecond) // commits on both sides of a moment
	b.Exec(t, "insert into step values (21)")
	waitForFrontier(t, b)
	<-time.After(20 * time.Millisecond) // commits on both sides of a moment
	afterOld := time.Now()
	<-time.After(20 * time.Millisecond) // commits on both sides of a moment
	heir.exec(t, "insert into step values (11)")
	heir.archive(t)
	for range 3 { // the old server's archive reaches further than the heir's
		b.Exec(t, "select pg_logical_emit_message(false, 'x', 'y')")
		waitForFrontier(t, b)
	}

	at := func(t time.Time) recovery.Target {
		return recovery.Target{Kind: recovery.Time, Value: t.UTC().Format(time.RFC3339Nano)}
	}
	t.Run("a time on both is refused", func(t *testing.T) {
		_, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{
			Repo: b.repo, Cluster: "c1", TargetDir: filepath.Join(pgtest.TempDir(t), "r"), Target: at(both),
		})
		var refused *recovery.RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "--timeline 1 or --timeline 2") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("latest on the heir's timeline does not follow the old server", func(t *testing.T) {
		p := b.plan(t, recovery.PlanOptions{})
		if p.Timeline != 2 || !strings.Contains(p.Need, "00000002") || p.Stop.ReplayedTo > p.Frontier {
			t.Errorf("timeline %d, need %s", p.Timeline, p.Need)
		}
	})
	for _, tt := range []struct {
		name string
		opts recovery.PlanOptions
		rows string
	}{
		{"before the fork", recovery.PlanOptions{Target: at(shared)}, "1"},
		{"the old branch", recovery.PlanOptions{Target: at(both), Timeline: 1}, "1,2,20"},
		{"the new branch", recovery.PlanOptions{Target: at(both), Timeline: 2}, "1,2,10"},
		{"after the old branch ended", recovery.PlanOptions{Target: at(afterOld)}, "1,2,10"},
		{"latest, across the fork", recovery.PlanOptions{}, "1,2,10,11"},
		{"latest of the old branch", recovery.PlanOptions{Timeline: 1}, "1,2,20,21"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, s := b.restoreBy(t, tt.opts)
			if got := query(t, s, rowsOf); got != tt.rows {
				t.Errorf("restored steps %s, want %s", got, tt.rows)
			}
			if want := max(p.Timeline, 2) + 1; s.Reached.Timeline != want {
				t.Errorf("promoted to timeline %d, want %d: a number must not be used twice (R2)", s.Reached.Timeline, want)
			}
		})
	}
	t.Run("a restored server is backed up and restored again", func(t *testing.T) {
		heir.backup(t)
		heir.exec(t, "insert into step values (12)")
		heir.archive(t)
		_, s := b.restoreBy(t, recovery.PlanOptions{})
		if got := query(t, s, rowsOf); got != "1,2,10,11,12" {
			t.Errorf("restored steps %s", got)
		}
	})
}

// heir is a restored server that goes on in the place of the protected one.
type heir struct {
	*recovery.Server
	b   *bench
	dir string
}

// takeOver restores to latest, promotes, and lets the new server archive as the old one does.
func (b *bench) takeOver(t *testing.T) *heir {
	t.Helper()
	p, s := b.restore(t, recovery.Target{})
	if err := s.Instance.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	command := b.SQL(t, "select current_setting('archive_command')")
	in, err := pginstance.Start(t.Context(), pginstance.Options{
		Binaries: b.Bin, DataDir: p.TargetDir, SocketOnly: true, Settings: map[string]string{
			"archive_mode": "on", "archive_command": command, "hba_file": filepath.Join(b.DataDir, "pg_hba.conf"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Instance = in
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if _, err := in.WaitReady(t.Context(), pginstance.Promoted); err != nil {
		t.Fatal(err)
	}
	h := &heir{Server: s, b: b, dir: p.TargetDir}
	// It promoted while archiving was off, so its history file is not archived by itself.
	history := filepath.Join(h.dir, "pg_wal", "00000002.history")
	if _, err := wal.Push(t.Context(), wal.PushOptions{Repo: b.repo, Cluster: "c1", Path: history}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *heir) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := h.Connect(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (h *heir) archive(t *testing.T) {
	t.Helper()
	want := query(t, h.Server, "select pg_walfile_name(pg_switch_wal())")
	pgtest.Eventually(t, "WAL "+want+" in the repository", func() bool {
		for name, err := range h.b.repo.WALNames(t.Context(), "c1", 2, "") {
			if err != nil {
				t.Fatal(err)
			}
			if name >= want {
				return true
			}
		}
		return false
	})
}

func (h *heir) backup(t *testing.T) *repo.Manifest {
	t.Helper()
	cfg, err := dbcore.ParseDSN(h.Instance.ConnString("", ""))
	if err != nil {
		t.Fatal(err)
	}
	return h.b.backupOf(t, cfg)
}
