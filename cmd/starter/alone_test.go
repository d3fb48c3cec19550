package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/config"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// rowsHash tells all rows of a table in one value.
const rowsHash = "select count(*) || ':' || coalesce(md5(string_agg(o::text, ',' order by id)), '') from orders o"

// TestRecovery_FromTheRepositoryAlone: with the server and its data gone, Temporal down, no configuration and no
// environment, the URL of the repository is enough (R5).
func TestRecovery_FromTheRepositoryAlone(t *testing.T) {
	p := protect(t)
	p.Exec(t, "create table orders as select g as id, md5(g::text) as what from generate_series(1, 5000) g")
	written := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters:\n  orders:\n    dsn: \"host=%s port=%d user=postgres dbname=postgres password=hunter2\"\n"+
		"    objectives: {rto: 7m, rpo: 3m}\n    checks: [{name: rows, sql: select 1, expect: \"1\"}]\nworker: {work_dir: /nowhere}\n", p.repo, p.SocketDir, p.Port)
	if err := os.WriteFile(written, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	call{program: p.program, env: []string{"LIFEBOAT_CONFIG=" + written}, args: []string{"backup", "orders", "--local"}}.run(t).must(t, 0)
	p.Exec(t, "insert into orders values (5001, 'after the backup')")
	p.archive(t)
	want := p.SQL(t, rowsHash)
	segment := p.SQL(t, "select last_archived_wal from pg_stat_archiver")
	p.Stop(t)
	for _, gone := range []string{p.DataDir, p.env["LIFEBOAT_CONFIG"], written} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}

	for who, as := range map[string]*syscall.SysProcAttr{"the server's user": nil, "root": rootAttr} {
		t.Run(who, func(t *testing.T) {
			if who == "root" && os.Getuid() != 0 {
				t.Skip("the tests do not run as root")
			}
			dir := pgtest.TempDir(t)
			bare := func(args ...string) call {
				return call{program: p.program, as: as, bare: true, args: append(args, "--repository", "file://"+p.repo)}
			}
			list := bare("backups", "orders", "--json").run(t).must(t, 0).object(t)["backups"].([]any)
			if len(list) != 1 {
				t.Errorf("%d backups", len(list))
			}
			got := filepath.Join(dir, "RECOVERYXLOG")
			bare("wal-fetch", segment, got, "--cluster", "orders").run(t).must(t, 0)
			if info, err := os.Stat(got); err != nil || info.Size() != 16<<20 {
				t.Errorf("wal-fetch wrote %v, %v", info, err)
			}
			res, _, _ := bare("verify", "orders", "all", "--local", "--json").run(t).must(t, 0).verified(t)
			if res["verdict"] != "PASS" {
				t.Errorf("verify: %v", res)
			}
			target := filepath.Join(dir, "restored")
			bare("restore", "orders", "--target-dir", target, "--local", "--start").run(t).must(t, 0)
			in, err := pginstance.Attach(target, pginstance.AttachOptions{})
			if err != nil {
				t.Fatalf("the server is not up: %v", err)
			}
			t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
			if got := (server{in}).one(t, rowsHash); got != want {
				t.Errorf("restored %s, want %s", got, want)
			}
			p.checkStoredConfiguration(t, bare, filepath.Join(dir, "lifeboat.yaml"))
		})
	}
}

// checkStoredConfiguration gets the copy of the configuration back: valid, and without what is secret or of a host.
func (p *protected) checkStoredConfiguration(t *testing.T, bare func(...string) call, path string) {
	t.Helper()
	bare("init", path).run(t).must(t, 0)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "hunter2") || strings.Contains(string(data), "/nowhere") {
		t.Errorf("the copy holds a password, or what belongs to a host:\n%s", data)
	}
	cfg, err := config.Parse(data, path, nil)
	if err != nil {
		t.Fatalf("the copy does not parse: %v\n%s", err, data)
	}
	c, err := cfg.Cluster("orders")
	if err != nil {
		t.Fatal(err)
	}
	if c.Objectives.RTO.Minutes() != 7 || len(c.Checks) != 1 || !strings.Contains(c.DSN.Reveal(), p.SocketDir) {
		t.Errorf("the copy says %+v", c)
	}
	bare("init", path).run(t).must(t, 2) // it is never overwritten
	bare("init", path+"2", "--cluster", "nosuch").run(t).must(t, 2)
	if _, err := os.Stat(path + "2"); !os.IsNotExist(err) {
		t.Errorf("written for a cluster that is not there: %v", err)
	}
}
