package pgtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// leaveEnv makes the test binary leave everything behind that it can (see TestSweep).
const leaveEnv = "PGTEST_TEST_LEAVE"

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// On every version: the server is what was asked for.
func TestNew(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		s := pgtest.New(t, pgtest.Options{
			Major: major, Checksums: true, WALSegSizeMB: 1, Settings: map[string]string{"application_name": `it's \x`},
			Tablespaces: []string{"one", "two words"},
		})
		for query, want := range map[string]string{
			"SELECT current_setting('server_version_num')::int / 10000": text(major),
			"SHOW data_checksums":   "on",
			"SHOW wal_segment_size": "1MB",
			"SHOW fsync":            "off",
			"SHOW application_name": `it's \x`,
			"SHOW data_directory":   s.DataDir,
			"SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16000 ORDER BY 1": "one|" + s.Tablespaces["one"] + "\ntwo words|" + s.Tablespaces["two words"],
		} {
			if got := s.SQL(t, query); got != want {
				t.Errorf("%s = %q, want %q", query, got, want)
			}
		}
		for _, dsn := range []string{s.DSN(""), s.DSN("template1"), s.TCPDSN("")} {
			cfg, err := dbcore.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := dbcore.Connect(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%s: %v", dsn, err)
			}
			_ = conn.Close()
		}
		s.Run(t, "pg_basebackup", "-d", s.ReplicationDSN(), "-D", filepath.Join(s.Dir, "backup"), "-X", "none", "--no-manifest",
			"--tablespace-mapping="+s.Tablespaces["one"]+"="+s.Dir+"/b1", "--tablespace-mapping="+s.Tablespaces["two words"]+"="+s.Dir+"/b2", "-c", "fast")
	})
}

func text(i int) string { return strconv.Itoa(i) }

// Without options: checksums are off in every version, also in 18, whose own default is on.
func TestNewPlain(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		// By initdb itself: a template may be one that an earlier version of this code made.
		s := pgtest.New(t, pgtest.Options{Major: major, OwnIdentity: true})
		if got := s.SQL(t, "SHOW data_checksums"); got != "off" {
			t.Errorf("data_checksums = %s", got)
		}
		if got := s.SQL(t, "SHOW archive_mode"); got != "off" {
			t.Errorf("archive_mode = %s", got)
		}
	})
}

func TestStopKillRestartSet(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	port := s.Port
	s.Exec(t, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
	s.Kill(t)
	if s.Instance() != nil {
		t.Error("a killed server still has an instance")
	}
	s.Start(t)
	if got := pgtest.One[int](t, s, "SELECT count(*) FROM t"); got != 1000 {
		t.Errorf("%d rows after a crash, want 1000", got)
	}
	s.Set(t, map[string]string{"work_mem": "7MB", "cluster_name": "it's me"})
	if got := s.SQL(t, "SHOW work_mem"); got != "7MB" {
		t.Errorf("work_mem = %s after Set", got)
	}
	s.Restart(t)
	if got := s.SQL(t, "SHOW cluster_name"); got != "it's me" {
		t.Errorf("cluster_name = %s after Set and Restart", got)
	}
	if s.Port != port {
		t.Errorf("port %d after a restart, want %d", s.Port, port)
	}
	if got := pgtest.Collect[int](t, s, "SELECT i FROM t WHERE i < $1 ORDER BY i", 4); len(got) != 3 || got[2] != 3 {
		t.Errorf("Collect = %v", got)
	}
	if got := s.Exec(t, "DELETE FROM t WHERE i <= 10"); got != 10 {
		t.Errorf("Exec = %d rows, want 10", got)
	}
	db := s.DB(t, "template1")
	if got, err := dbcore.One[string](t.Context(), db, "SELECT current_database()::text"); err != nil || got != "template1" {
		t.Errorf("DB: %q, %v", got, err)
	}
}

func TestSQLText(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	got := s.SQL(t, `SELECT 1, NULL, true, 'a b', 1.50::numeric, '\x00ff'::bytea, '0/16B3740'::pg_lsn,
		timestamptz '2026-11-22 21:00:46.610469+00' UNION ALL SELECT 2, NULL, false, '', 0, '', '0/0', NULL`)
	want := "1||t|a b|1.50|\\x00ff|0/16B3740|2026-11-22 21:00:46.610469+00\n2||f||0|\\x|0/0|"
	if got != want {
		t.Errorf("SQL = %q, want %q", got, want)
	}
}

// Archiving works, with a program that Build made, run by the server's user.
func TestArchiveAndBuild(t *testing.T) {
	program := pgtest.Build(t, "lifeboat/internal/pgtest/testdata/copyfile")
	if again := pgtest.Build(t, "lifeboat/internal/pgtest/testdata/copyfile"); again != program {
		t.Errorf("built twice: %s, %s", program, again)
	}
	archive := pgtest.TempDir(t)
	s := pgtest.New(t, pgtest.Options{Archive: func(s *pgtest.Server) string {
		return program + " %p " + archive + "/%f"
	}})
	s.Exec(t, "CREATE TABLE t (i int)")
	segment := s.SQL(t, "SELECT pg_walfile_name(pg_switch_wal())")
	pgtest.Eventually(t, "a segment is archived", func() bool {
		return pgtest.One[int](t, s, "SELECT archived_count::int FROM pg_stat_archiver") > 0
	})
	if _, err := os.Stat(filepath.Join(archive, segment)); err != nil {
		t.Error(err)
	}
}

// Copies of one template are the same cluster; OwnIdentity is another.
func TestIdentity(t *testing.T) {
	const query = "SELECT system_identifier::text FROM pg_control_system()"
	one := pgtest.New(t, pgtest.Options{}).SQL(t, query)
	two := pgtest.New(t, pgtest.Options{}).SQL(t, query)
	own := pgtest.New(t, pgtest.Options{OwnIdentity: true}).SQL(t, query)
	if one != two || one == own {
		t.Errorf("system identifiers: two copies %s and %s, own %s", one, two, own)
	}
}

func TestTempDir(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		dir = pgtest.TempDir(t)
		if len(dir) > 40 {
			t.Errorf("%s is long for a socket's directory", dir)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		owner := pgtest.Owner(t)
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != owner.UID {
			t.Errorf("owned by %d, want %d", uid, owner.UID)
		}
		for d := dir; d != "/"; d = filepath.Dir(d) {
			if info, err := os.Stat(d); err != nil || info.Mode().Perm()&0o005 != 0o005 {
				t.Errorf("%s cannot be entered by everybody: %v, %v", d, info.Mode(), err)
			}
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// What a killed test process leaves, a detached server included, is swept away by the next process.
func TestSweep(t *testing.T) {
	if os.Getenv(leaveEnv) == "leave" {
		s := pgtest.New(t, pgtest.Options{Stopped: true})
		in, err := pginstance.Start(t.Context(), pginstance.Options{
			Binaries: s.Bin, DataDir: s.DataDir, SocketDir: s.SocketDir, Detached: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.WaitReady(t.Context(), pginstance.Promoted); err != nil {
			t.Fatal(err)
		}
		fmt.Println("left", in.PID(), s.Dir)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	if os.Getenv(leaveEnv) == "sweep" {
		pgtest.TempDir(t)
		return
	}
	run := func(mode string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSweep$")
		cmd.Env = append(os.Environ(), leaveEnv+"="+mode)
		out, _ := cmd.CombinedOutput() // it kills itself
		return string(out)
	}
	live := pgtest.New(t, pgtest.Options{}) // another process's, as long as this one lives
	var pid int
	var dir string
	if out := run("leave"); func() bool { _, err := fmt.Sscanf(out, "left %d %s", &pid, &dir); return err != nil }() {
		t.Fatalf("nothing was left:\n%s", out)
	}
	if list, err := pginstance.Running(dir); err != nil || len(list) != 1 || list[0].PID != pid {
		t.Fatalf("servers left: %v, %v", list, err)
	}
	if out := run("sweep"); !strings.Contains(out, "PASS") {
		t.Fatalf("the sweeping process failed:\n%s", out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if list, err := pginstance.Running(dir); err != nil || len(list) != 0 {
		t.Errorf("servers still there: %v, %v", list, err)
	}
	if got := live.SQL(t, "SELECT 1"); got != "1" {
		t.Errorf("the live server says %q", got)
	}
}
