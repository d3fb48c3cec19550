package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pgtest"
)

// restrict lets roles in over TCP each in a way of its own.
func (p *protected) restrict(t *testing.T) {
	t.Helper()
	p.Exec(t, "create role secret login replication password 'correct horse'")
	p.Exec(t, "create role norepl login")
	p.Exec(t, "create role nohba login replication")
	hba := strings.Join([]string{
		"local all,replication all trust",
		"host all secret 127.0.0.1/32 scram-sha-256",
		"host all,replication norepl 127.0.0.1/32 trust",
		"host all nohba 127.0.0.1/32 trust", // "all" does not mean replication
	}, "\n")
	if err := os.WriteFile(filepath.Join(p.DataDir, "pg_hba.conf"), []byte(hba+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Set(t, map[string]string{"archive_timeout": "0"})
}

// TestFault_Server: what a server, or the way to it, refuses is told with its remedy, no backup can be seen, and nothing
// secret is said.
func TestFault_Server(t *testing.T) {
	p := protect(t)
	p.restrict(t)
	idle := pgtest.New(t, pgtest.Options{OwnIdentity: true})
	as := func(role, extra string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable %s", p.Port, role, extra)
	}
	backup := func(dsn string) call {
		path := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
		text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {orders: {dsn: %q}}\n", p.repo, dsn)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return call{program: p.program, env: []string{"LIFEBOAT_CONFIG=" + path}, args: []string{"backup", "orders", "--local", "--wal-timeout", "2s"}}
	}
	for name, r := range map[string]refusal{
		"server down":            {call: backup("host=127.0.0.1 port=1 user=x dbname=postgres sslmode=disable"), exit: 1, code: "ServerUnavailable", says: "port=1", hint: "start the server"},
		"wrong password":         {call: backup(as("secret", "password='wrong battery'")), exit: 2, code: "Configuration", says: "user=secret", hint: "check the password"},
		"no such role":           {call: backup(as("nobody", "")), exit: 2, code: "Configuration", says: "user=nobody", hint: "pg_hba.conf"},
		"no such database":       {call: backup(as("norepl", "dbname=nosuch")), exit: 2, code: "Configuration", says: "nosuch", hint: "create database"},
		"no replication":         {call: backup(as("norepl", "")), exit: 2, code: "Configuration", says: "user=norepl", hint: `ALTER ROLE "norepl" REPLICATION`},
		"no line in pg_hba.conf": {call: backup(as("nohba", "")), exit: 2, code: "Configuration", says: "pg_hba.conf", hint: "add a line for database replication and user nohba"},
		"archive_mode off":       {call: backup(idle.DSN("")), exit: 2, code: "Configuration", says: "archive_mode is off", hint: "set archive_mode = on"},
	} {
		t.Run(name, func(t *testing.T) { p.refuses(t, r) })
	}
	t.Run("archive_command missing", func(t *testing.T) {
		p.Set(t, map[string]string{"archive_command": ""})
		p.refuses(t, refusal{call: backup(p.DSN("")), exit: 2, code: "Configuration", says: "archive_command is empty", hint: "lifeboat wal-push %p"})
	})
	t.Run("archive_command failing", func(t *testing.T) {
		p.Set(t, map[string]string{"archive_command": "PGPASSWORD='correct horse' false"})
		p.Exec(t, "select pg_logical_emit_message(true, 'test', 'something to archive')")
		p.Exec(t, "select pg_switch_wal()")
		segment := p.failingSegment(t)
		p.refuses(t, refusal{call: backup(p.DSN("")), exit: 1, code: "Failed", says: "failures, the last with " + segment, hint: "server's log"})
	})
	t.Run("an old password in the log", func(t *testing.T) {
		got := backup(as("secret", "password='wrong battery'")).run(t).must(t, 2)
		if strings.Contains(got.stdout+got.stderr, "battery") {
			t.Errorf("the password was told: %s", got.stderr)
		}
	})
}

// refuses checks a refusal, and that no backup came of it. What a backup stored before it failed is the next one's.
func (p *protected) refuses(t *testing.T, r refusal) {
	t.Helper()
	r.check(t, digests(t, p.repo+"/clusters/orders/backups", p.repo+"/clusters/orders/wal", p.repo+"/clusters/orders/identity"))
	if list := p.run(t, "backups", "orders", "--json").must(t, 0).object(t)["backups"].([]any); len(list) > 0 {
		t.Errorf("a backup can be seen: %v", list)
	}
}
