package pginstance_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// fixture is a base backup with the WAL after it, in which row 1 was committed before the restore point "here", and row
// 2 after it.
type fixture struct {
	src     *pgtest.Server
	archive string
	backup  string
	here    pg.LSN    // end of the restore point's record
	row1At  time.Time // when row 1 was committed, by the server's clock
	end     pg.LSN    // end of all archived WAL
	last    string    // the segment that holds everything after the backup
}

func newFixture(t *testing.T, major int) *fixture {
	t.Helper()
	f := &fixture{archive: pgtest.TempDir(t)}
	f.src = pgtest.New(t, pgtest.Options{
		Major: major, Settings: map[string]string{"track_commit_timestamp": "on"},
		Archive: func(*pgtest.Server) string { return "test ! -f " + f.archive + "/%f && cp %p " + f.archive + "/%f" },
	})
	f.backup = filepath.Join(f.src.Dir, "backup")
	f.src.Exec(t, "CREATE TABLE t (i int)")
	f.src.Run(t, "pg_basebackup", "-d", f.src.ReplicationDSN(), "-D", f.backup, "-X", "none", "-c", "fast")
	f.src.Exec(t, "INSERT INTO t VALUES (1)")
	f.row1At = pgtest.One[time.Time](t, f.src, "SELECT pg_xact_commit_timestamp(xmin) FROM t WHERE i = 1")
	f.here = lsn(t, f.src.SQL(t, "SELECT pg_create_restore_point('here')"))
	f.src.Exec(t, "INSERT INTO t VALUES (2)")
	f.end = lsn(t, f.src.SQL(t, "SELECT pg_current_wal_lsn()"))
	f.last = f.src.SQL(t, "SELECT pg_walfile_name(pg_switch_wal())")
	pgtest.Eventually(t, "the last segment is archived", func() bool {
		return f.src.SQL(t, "SELECT last_archived_wal >= $1 FROM pg_stat_archiver", f.last) == "t"
	})
	f.src.Stop(t)
	return f
}

func lsn(t *testing.T, s string) pg.LSN {
	t.Helper()
	l, err := pg.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// restore lays the backup in a new directory, ready for recovery with these settings, and starts it.
func (f *fixture) restore(t *testing.T, settings map[string]string) *pginstance.Instance {
	t.Helper()
	dir := filepath.Join(pgtest.TempDir(t), "data")
	if out, err := exec.Command("cp", "-a", f.backup, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("cp", "-a", dir+"/PG_VERSION", dir+"/recovery.signal").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	opt := options(f.src)
	opt.DataDir = dir
	opt.Settings = map[string]string{
		"archive_mode":    "off",
		"restore_command": "cp " + f.archive + "/%f %p",
	}
	for name, value := range settings {
		opt.Settings[name] = value
	}
	return start(t, opt)
}

func rows(t *testing.T, in *pginstance.Instance) string {
	t.Helper()
	return query(t, in, "", "SELECT coalesce(string_agg(i::text, ' ' ORDER BY i), '') FROM t")
}

// On every version: the states of a recovery, and what is known in them.
func TestRecovery(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		f := newFixture(t, major)
		t.Run("pause at a name, then promote", f.testPause)
		t.Run("promote at a time", f.testPromote)
		t.Run("shut down at an LSN", f.testShutdown)
		t.Run("target out of reach", f.testOutOfReach)
		t.Run("pause by hand is no target", f.testPauseByHand)
		t.Run("end of WAL", f.testEndOfWAL)
		t.Run("setting too low", f.testSettingTooLow)
	})
}

func (f *fixture) testPause(t *testing.T) {
	in := f.restore(t, map[string]string{"recovery_target_name": "here", "recovery_target_action": "pause"})
	st := waitFor(t, in, pginstance.PausedAtTarget)
	if st.State != pginstance.StatePaused || st.PauseState != "paused" || !strings.Contains(st.TargetLine, `restore point "here"`) {
		t.Errorf("status %+v", st)
	}
	if st.ReplayLSN != f.here || st.WriteLSN != 0 || st.Timeline != 1 {
		t.Errorf("replayed %v, want %v; written %v, timeline %v", st.ReplayLSN, f.here, st.WriteLSN, st.Timeline)
	}
	if !st.LastCommit.Equal(f.row1At) {
		t.Errorf("last commit %v, want %v", st.LastCommit, f.row1At)
	}
	if got := rows(t, in); got != "1" {
		t.Errorf("rows %s, want 1", got)
	}
	if _, err := in.WaitReady(t.Context(), pginstance.Promoted); err == nil || !strings.Contains(err.Error(), "pg_wal_replay_resume") {
		t.Errorf("waiting for a promotion that will not come: %v", err)
	}
	// The same from another process's point of view.
	attached, err := pginstance.Attach(in.DataDir(), pginstance.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, attached, pginstance.PausedAtTarget)

	query(t, in, "", "SELECT 'ok' FROM (SELECT pg_wal_replay_resume()) AS r")
	st = waitFor(t, in, func(s pginstance.Status) (bool, error) { return s.State == pginstance.StateReady, nil })
	if st.Timeline != 2 || st.PauseState != "" || st.WriteLSN < st.ReplayLSN || st.ReplayLSN != f.here {
		t.Errorf("after promotion: %+v", st)
	}
}

func (f *fixture) testPromote(t *testing.T) {
	in := f.restore(t, map[string]string{
		"recovery_target_time":   f.row1At.UTC().Format("2006-01-02 15:04:05.000000-07"),
		"recovery_target_action": "promote",
	})
	st := waitFor(t, in, pginstance.Promoted)
	if st.State != pginstance.StateReady || st.Timeline != 2 || !st.LastCommit.Equal(f.row1At) || st.TargetLine == "" {
		t.Errorf("status %+v, want timeline 2, last commit %v", st, f.row1At)
	}
	if got := rows(t, in); got != "1" {
		t.Errorf("rows %s, want 1", got)
	}
	if _, err := in.WaitReady(t.Context(), pginstance.PausedAtTarget); !errors.Is(err, pginstance.ErrTargetMissed) {
		t.Errorf("waiting for a pause of a promoted server: %v, want ErrTargetMissed", err)
	}
}

func (f *fixture) testShutdown(t *testing.T) {
	in := f.restore(t, map[string]string{"recovery_target_lsn": f.here.String(), "recovery_target_action": "shutdown"})
	st := waitFor(t, in, pginstance.ShutDownAtTarget)
	if st.State != pginstance.StateExited || st.Exit.FatalLine != "" || !strings.HasPrefix(st.Exit.TargetLine, "recovery stopping after WAL location") {
		t.Errorf("status %+v, exit %+v", st, st.Exit)
	}
	if got := controlState(t, f.src.Bin.Dir, in.DataDir()); got != "shut down in recovery" {
		t.Errorf("pg_control says %q", got)
	}
	if _, err := in.WaitReady(t.Context(), pginstance.Promoted); !errors.As(err, new(*pginstance.ExitError)) {
		t.Errorf("waiting for promotion: %v, want an ExitError", err)
	}
}

// The server accepts connections, and then ends: whoever is content with the former reports a success that is none.
func (f *fixture) testOutOfReach(t *testing.T) {
	in := f.restore(t, map[string]string{
		"recovery_target_lsn": "7F/0", "recovery_target_action": "promote",
		// Where WAL ends it dawdles, so that the server is seen accepting connections before it finds that out.
		"restore_command": "cp " + f.archive + "/%f %p || { sleep 0.5; exit 1; }",
	})
	var seen []pginstance.State
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := in.WaitUntil(ctx, pginstance.Promoted, func(s pginstance.Status) { seen = append(seen, s.State) })
	var exit *pginstance.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("error %v after %v, want an ExitError", err, seen)
	}
	if want := "FATAL:  recovery ended before configured recovery target was reached"; exit.FatalLine != want || exit.TargetLine != "" || exit.Code != 1 {
		t.Errorf("%+v, want FatalLine %q", exit, want)
	}
	if !strings.Contains(err.Error(), exit.FatalLine) {
		t.Errorf("the error does not tell why: %v", err)
	}
	accepted := false
	for _, s := range seen {
		if s == pginstance.StateRecovery {
			accepted = true
		}
	}
	if !accepted || seen[len(seen)-1] != pginstance.StateExited || st.State != pginstance.StateExited {
		t.Errorf("seen %v, want some of %q before the end", seen, pginstance.StateRecovery)
	}
}

// Replay is paused by hand before the last segment, which the restore_command holds back until then.
func (f *fixture) testPauseByHand(t *testing.T) {
	gate := filepath.Join(pgtest.TempDir(t), "gate")
	in := f.restore(t, map[string]string{
		"recovery_target_lsn": "7F/0", "recovery_target_action": "pause",
		"restore_command": "if [ %f = " + f.last + " ]; then while [ ! -e " + gate + " ]; do sleep 0.02; done; fi; " +
			"cp " + f.archive + "/%f %p",
		"recovery_prefetch": "off", // which asks for the next segment before it replays what it has
	})
	if st := waitFor(t, in, pginstance.Accepting); st.State != pginstance.StateRecovery || st.PauseState != "not paused" {
		t.Errorf("before the pause: %+v", st)
	}
	query(t, in, "", "SELECT 'ok' FROM (SELECT pg_wal_replay_pause()) AS r")
	if st := in.Status(t.Context()); st.State != pginstance.StateRecovery || st.PauseState != "pause requested" {
		t.Errorf("pause requested: %+v", st)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := in.WaitReady(t.Context(), pginstance.PausedAtTarget)
	if !errors.Is(err, pginstance.ErrTargetMissed) || st.State != pginstance.StatePaused || st.TargetLine != "" {
		t.Errorf("status %+v, error %v, want ErrTargetMissed", st, err)
	}
}

func (f *fixture) testEndOfWAL(t *testing.T) {
	in := f.restore(t, nil)
	st := waitFor(t, in, pginstance.Promoted)
	if st.Timeline != 2 || st.TargetLine != "" || st.ReplayLSN < f.end {
		t.Errorf("status %+v, want everything up to %v", st, f.end)
	}
	if got := rows(t, in); got != "1 2" {
		t.Errorf("rows %s, want 1 2", got)
	}
}

// A standby setting below the primary's ends recovery (or pauses it): never the target.
func (f *fixture) testSettingTooLow(t *testing.T) {
	in := f.restore(t, map[string]string{
		"max_connections": "20", "recovery_target_name": "here", "recovery_target_action": "pause",
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := in.WaitReady(ctx, pginstance.PausedAtTarget)
	var exit *pginstance.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.FatalLine, "insufficient parameter settings") {
		t.Errorf("error %v, want an ExitError that tells of the settings", err)
	}
}

// A context that ends stops the waiting, tells what was last seen, and leaves the server alone.
func TestWaitUntilGivesUp(t *testing.T) {
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	looks := 0
	st, err := in.WaitUntil(ctx, func(pginstance.Status) (bool, error) { return false, nil }, func(pginstance.Status) { looks++ })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "last seen: ready on timeline 1") {
		t.Errorf("error %v", err)
	}
	if st.State != pginstance.StateReady || looks < 3 || in.Ended() {
		t.Errorf("status %+v after %d looks, ended %v", st, looks, in.Ended())
	}
	broken := errors.New("enough")
	if _, err := in.WaitReady(t.Context(), func(pginstance.Status) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want the condition's", err)
	}
}

// A server that does not let its watcher in is not waited for until the context ends.
func TestWaitUntilTurnedAway(t *testing.T) {
	s := stopped(t, 0)
	opt := options(s)
	opt.Superuser = "stranger"
	in := start(t, opt)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	st, err := in.WaitReady(ctx, pginstance.Accepting)
	if err == nil || !strings.Contains(err.Error(), "does not let its watcher in") {
		t.Errorf("%+v, %v", st, err)
	}
	if strings.Contains(st.String(), "nothing") || st.Err == nil {
		t.Errorf("status %+v", st)
	}
}

// A cluster without a database "postgres" is watched over template1.
func TestStatusWithoutPostgresDatabase(t *testing.T) {
	s := stopped(t, 0)
	opt := options(s)
	opt.Database = "not-there"
	in := start(t, opt)
	ready(t, in)
}
