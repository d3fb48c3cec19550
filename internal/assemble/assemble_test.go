package assemble_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/repo"
)

var quiet = slog.New(slog.DiscardHandler)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse([]byte(text), "lifeboat.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestSettings_CarryTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, `
version: 1
repositories: {main: {url: "file://`+dir+`/repo", compression: s2}}
clusters:
  orders:
    dsn: host=db1 user=u password=secret dbname=shop sslmode=disable
    objectives: {rto: 30m, rpo: 1m}
    checks: [{name: rows, sql: select 1, expect: "1"}]
  other: {dsn: host=db2 application_name=mine}
worker: {work_dir: `+dir+`/work, task_queue: boats, postgres_bin: [/opt/pg/bin]}
`)
	s, err := assemble.Settings(cfg, assemble.Host{Name: "h1"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if s.Host != "h1" || s.TaskQueue != "boats" || s.WorkDir != dir+"/work" || len(s.BinDirs) != 1 || s.BinDirs[0] != "/opt/pg/bin" {
		t.Errorf("settings %+v", s)
	}
	if !strings.HasPrefix(s.Program, "lifeboat ") || s.Logger != quiet {
		t.Errorf("program %q", s.Program)
	}
	c := s.Clusters["orders"]
	if c.Server.Host != "db1" || c.Server.DBName != "shop" || c.Server.ApplicationName != "lifeboat" || c.Server.SSLMode != "disable" {
		t.Errorf("server %v, application %q", c.Server, c.Server.ApplicationName)
	}
	if c.RTO != 30*time.Minute || c.RPO != time.Minute || c.RepositoryURL != "file://"+dir+"/repo" {
		t.Errorf("cluster %+v", c)
	}
	if want, _ := repo.ParseCompression("s2"); c.Compression != want {
		t.Errorf("compression %v", c.Compression)
	}
	if len(c.Checks) != 1 || c.Checks[0].Name != "rows" || c.Checks[0].SQL != "select 1" || c.Checks[0].Expect != "1" {
		t.Errorf("checks %+v", c.Checks)
	}
	if got := s.Clusters["other"].Server.ApplicationName; got != "mine" {
		t.Errorf("the dsn's application_name became %q", got)
	}
	if s, err := assemble.Settings(cfg, assemble.Host{WorkDir: "/elsewhere"}, quiet); err != nil || s.WorkDir != "/elsewhere" || s.Host == "" {
		t.Errorf("host %q, work directory %q, %v", s.Host, s.WorkDir, err)
	}
}

func TestSettings_Hosts(t *testing.T) {
	text := func(host string) string {
		return "version: 1\nrepositories: {main: {url: \"file:///r\"}}\nworker: {task_queue: boats}\n" +
			"clusters: {orders: {dsn: host=db1, hosts: [" + host + "]}, near: {dsn: host=db1, data_directory: /data}}\n"
	}
	for host, queue := range map[string]string{
		"{dsn: host=db1, data_directory: /data}":             "boats@db1",
		"{dsn: 'postgres://u@db1.example.com:5433/x'}":       "boats@db1.example.com",
		"{dsn: host=/run/postgresql, queue: boats@db1}":      "boats@db1",
		"{dsn: host=127.0.0.1, queue: other}":                "other",
		"{dsn: host=/run/postgresql, data_directory: /data}": "",
		"{dsn: host=localhost}":                              "",
		"{dsn: 'host=::1'}":                                  "",
	} {
		s, err := assemble.Settings(parse(t, text(host)), assemble.Host{Name: "h1"}, quiet)
		if queue == "" {
			if err == nil || !strings.Contains(err.Error(), "name the queue") || !strings.Contains(err.Error(), "hosts[0]") {
				t.Errorf("%s: %v", host, err)
			}
			continue
		}
		if err != nil || s.Clusters["orders"].Hosts[0].Queue != queue || s.Clusters["orders"].Hosts[0].Server.ApplicationName != "lifeboat" {
			t.Errorf("%s: %+v, %v", host, s.Clusters["orders"].Hosts, err)
		}
		if s.Clusters["near"].DataDirectory != "/data" {
			t.Errorf("data directory %q", s.Clusters["near"].DataDirectory)
		}
	}
}

// TestSettings_MakeNothing: wal-push assembles settings at every segment, and must leave no folders behind.
func TestSettings_MakeNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	_, before := os.Stat("/var/lib/lifeboat/work")
	s, err := assemble.Settings(config.Default(), assemble.Host{}, quiet)
	if err != nil || s.WorkDir == "" {
		t.Fatalf("work directory %q, %v", s.WorkDir, err)
	}
	if left, _ := os.ReadDir(temp); len(left) != 0 {
		t.Errorf("made %v", left)
	}
	if _, after := os.Stat("/var/lib/lifeboat/work"); errors.Is(before, fs.ErrNotExist) && after == nil {
		t.Error("made /var/lib/lifeboat/work")
	}
}

func TestWithoutConfiguration(t *testing.T) {
	dir := t.TempDir()
	s, err := assemble.WithoutConfiguration("file://"+dir+"/repo", "orders", assemble.Host{Name: "h1"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := s.Clusters["orders"]
	if !ok || c.RepositoryURL != "file://"+dir+"/repo" {
		t.Fatalf("settings %+v", s)
	}
	if want, _ := repo.ParseCompression(config.DefaultCompression); c.Compression != want {
		t.Errorf("compression %v, want the default", c.Compression)
	}
	if _, err := c.OpenRepository(t.Context(), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened what is not there: %v", err)
	}
	made, err := c.OpenRepository(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.OpenRepository(t.Context(), false)
	if err != nil || again.Header().ID != made.Header().ID {
		t.Errorf("opened %v, %v", again, err)
	}
	for name, args := range map[string][2]string{
		"s3": {"s3://bucket/x", "orders"}, "no URL": {"/var/lib/x", "orders"}, "path as a name": {"file:///r", "../x"}, "no name": {"file:///r", ""},
	} {
		if _, err := assemble.WithoutConfiguration(args[0], args[1], assemble.Host{}, quiet); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestOpenRepository_EmptyFolder: a mount point without its file system must not become a repository by reading.
func TestOpenRepository_EmptyFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := assemble.OpenRepository(t.Context(), "file://"+dir, false); err == nil {
		t.Error("an empty folder was opened")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it was written to: %v", left)
	}
}

func TestLifeboat_OnPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if path, err := assemble.Lifeboat(); !errors.Is(err, assemble.ErrNoLifeboat) {
		t.Fatalf("found %s, %v", path, err)
	}
	program := filepath.Join(dir, "lifeboat")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := assemble.Lifeboat(); err != nil || path != program {
		t.Errorf("found %s, %v", path, err)
	}
}

func TestProgram(t *testing.T) {
	defer func(old string) { assemble.Version = old }(assemble.Version)
	assemble.Version = "1.2.3"
	if got := assemble.Program(); got != "lifeboat 1.2.3" {
		t.Errorf("got %q", got)
	}
}
