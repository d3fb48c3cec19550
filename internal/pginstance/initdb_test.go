package pginstance_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// query runs a query as a user and returns its only value.
func query(t *testing.T, in *pginstance.Instance, user, sql string) string {
	t.Helper()
	conn := connect(t, in.ConnString("", user))
	defer func() { _ = conn.Close() }()
	v, err := dbcore.One[string](t.Context(), conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func connect(t *testing.T, dsn string) *dbcore.Conn {
	t.Helper()
	cfg, err := dbcore.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// What InitDB makes on every version, and that TCP is closed to everybody unless asked otherwise.
func TestInitDB(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		bin, dir := pgtest.Binaries(t, major), filepath.Join(pgtest.TempDir(t), "data")
		err := pginstance.InitDB(t.Context(), pginstance.InitOptions{
			Binaries: bin, DataDir: dir, Superuser: "captain", Checksums: true, WALSegSizeMB: 4, NoSync: true,
			Locale: "C", ExtraArgs: []string{"--set=work_mem=5MB"}[:btoi(major >= 16)],
		})
		if err != nil {
			t.Fatal(err)
		}
		in := start(t, pginstance.Options{Binaries: bin, DataDir: dir, Superuser: "captain"})
		ready(t, in)
		for setting, want := range map[string]string{
			"data_checksums": "on", "wal_segment_size": "4MB", "server_encoding": "UTF8",
		} {
			if got := query(t, in, "", "SHOW "+setting); got != want {
				t.Errorf("%s = %s, want %s", setting, got, want)
			}
		}
		if got := query(t, in, "captain", "SELECT datcollate::text FROM pg_database WHERE datname = 'postgres'"); got != "C" {
			t.Errorf("collation %s, want C", got)
		}
		if got := query(t, in, "", "SHOW work_mem"); major >= 16 && got != "5MB" {
			t.Errorf("ExtraArgs: work_mem = %s", got)
		}
		cfg, err := dbcore.ParseDSN("host=127.0.0.1 user=captain dbname=postgres sslmode=disable port=" + itoa(in.Port()))
		if err != nil {
			t.Fatal(err)
		}
		var refused *dbcore.ConnectError
		if _, err := dbcore.Connect(t.Context(), cfg); !errors.As(err, &refused) || refused.Code != dbcore.CodeNoHBAEntry {
			t.Errorf("over TCP without AuthHost: %v, want a refusal by pg_hba.conf", err)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestInitDBRefusesAndFails(t *testing.T) {
	bin, dir := pgtest.Binaries(t, 0), pgtest.TempDir(t)
	full := filepath.Join(dir, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full+"/precious", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := pginstance.InitDB(t.Context(), pginstance.InitOptions{Binaries: bin, DataDir: full})
	if err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("a directory that is not empty: %v", err)
	}
	if info, err := os.Stat(full); err != nil || info.Mode().Perm() != 0o755 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		t.Errorf("the refused directory was changed: %v, %v", info.Mode(), err)
	}
	err = pginstance.InitDB(t.Context(), pginstance.InitOptions{Binaries: bin, DataDir: dir + "/a", Locale: "xx_XX.nothing"})
	if err == nil || !strings.Contains(err.Error(), "xx_XX.nothing") {
		t.Errorf("an unknown locale: %v", err)
	}
	err = pginstance.InitDB(t.Context(), pginstance.InitOptions{Binaries: bin, DataDir: dir + "/no/parent"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a parent directory: %v", err)
	}
}

// A cancelled initdb leaves an empty directory and no process, and may be repeated.
func TestInitDBCancel(t *testing.T) {
	bin, dir := pgtest.Binaries(t, 0), filepath.Join(pgtest.TempDir(t), "data")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- pginstance.InitDB(ctx, pginstance.InitOptions{Binaries: bin, DataDir: dir}) }()
	pgtest.Eventually(t, "initdb is in the middle of its work", func() bool { return exists(dir + "/base") })
	cancel()
	err := <-result
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		t.Errorf("%s is left in the directory", entries[0].Name())
	}
	pgtest.Eventually(t, "no process of initdb is left", func() bool {
		list, err := pginstance.Running(dir)
		return err == nil && len(list) == 0
	})
	if err := pginstance.InitDB(t.Context(), pginstance.InitOptions{Binaries: bin, DataDir: dir, NoSync: true}); err != nil {
		t.Errorf("again: %v", err)
	}
}
