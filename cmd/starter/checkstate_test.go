package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
)

// is checks the outcome of one finding, and what its message and hint say.
func is(t *testing.T, found map[string][]finding, id, outcome, says, hint string) {
	t.Helper()
	for _, f := range found[id] {
		if f.Outcome == outcome && strings.Contains(f.Message, says) && strings.Contains(f.Hint, hint) {
			return
		}
	}
	t.Errorf("check %s: %+v; want %s, %q, hint %q", id, found[id], outcome, says, hint)
}

// TestCheck_ServerState: each state of a server that would spoil backups or drills is told with its remedy.
func TestCheck_ServerState(t *testing.T) {
	p := protect(t)
	p.Exec(t, `create role "life ""boat""" login`)
	limited := p.asLimited(t, "")
	limited.grantAll(t)
	got := limited.findings(t, 0)
	for _, id := range []string{"full_page_writes", "checksums", "max_slot_wal_keep_size", "archive queue", "work directory", "wal_level"} {
		is(t, got, id, outcomeOK, "", "")
	}
	is(t, got, "fsync", outcomeWarning, "fsync is off", "set fsync = on") // as pgtest sets it
	is(t, got, "repository main", outcomeWarning, "not encrypted", "")

	t.Run("what could not be asked is no PASS", func(t *testing.T) {
		p.Exec(t, "revoke execute on function pg_database_size(oid) from public")
		defer p.Exec(t, "grant execute on function pg_database_size(oid) to public")
		is(t, limited.findings(t, 4), "work directory", outcomeUnknown, "measure the databases", "")
		contains(t, "check", limited.run(t, "check", "orders", "--local", "--quiet").must(t, 4).stdout, "COULD_NOT_VERIFY")
	})
	t.Run("a slot that nobody reads", func(t *testing.T) {
		p.Exec(t, "select pg_create_physical_replication_slot('forgotten', true)")
		is(t, limited.findings(t, 0), "max_slot_wal_keep_size", outcomeWarning, "1 replication slots are not read", "drop the slots")
		p.Set(t, map[string]string{"max_slot_wal_keep_size": "64MB"})
		is(t, limited.findings(t, 0), "max_slot_wal_keep_size", outcomeOK, "at most 64 MB", "")
	})
	t.Run("full_page_writes off", func(t *testing.T) {
		p.Set(t, map[string]string{"full_page_writes": "off"})
		defer p.Set(t, map[string]string{"full_page_writes": "on"})
		is(t, limited.findings(t, 3), "full_page_writes", outcomeFail, "is off", "set full_page_writes = on")
	})
	t.Run("archive_command that pushes nothing", func(t *testing.T) {
		was := p.SQL(t, "show archive_command")
		defer p.Set(t, map[string]string{"archive_command": was})
		p.Set(t, map[string]string{"archive_command": ""})
		is(t, limited.findings(t, 3), "archive_command", outcomeFail, "is empty", "lifeboat wal-push %p --cluster orders")
		p.Set(t, map[string]string{"archive_command": "PGPASSWORD=battery cp %p /dev/null"})
		if out := limited.run(t, "check", "orders", "--local").must(t, 0).stdout; strings.Contains(out, "battery") {
			t.Errorf("check tells a password: %s", out)
		}
		is(t, limited.findings(t, 0), "archive_command", outcomeWarning, "cp %p", "lifeboat wal-push %p --cluster orders")
		p.Set(t, map[string]string{"archive_command": was + " --other"})
		is(t, limited.findings(t, 0), "archive_command", outcomeOK, "", "")
	})
	t.Run("work directory that cannot be", func(t *testing.T) {
		file := filepath.Join(filepath.Dir(p.program), "work")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		is(t, limited.findings(t, 3), "work directory", outcomeFail, "no folder", "worker.work_dir")
	})
}

// TestCheck_UnfitServer: a server as initdb makes it can neither be backed up nor archive.
func TestCheck_UnfitServer(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}})
	p := &protected{Server: s}
	dir := pgtest.TempDir(t)
	p.env = environment{"LIFEBOAT_CONFIG": filepath.Join(dir, "lifeboat.yaml")}
	text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s/repo\"}}\nclusters: {orders: {dsn: %q}}\n", dir, s.DSN(""))
	if err := os.WriteFile(p.env["LIFEBOAT_CONFIG"], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := p.findings(t, 3)
	is(t, got, "wal_level", outcomeFail, "minimal", "set wal_level = replica")
	is(t, got, "archive_mode", outcomeFail, "is off", "set archive_mode = on")
	is(t, got, "checksums", outcomeWarning, "are off", "pg_checksums --enable")
	is(t, got, "privileges", outcomeOK, "role postgres", "")
	if _, err := os.Stat(dir + "/repo"); !os.IsNotExist(err) {
		t.Errorf("check made the repository: %v", err)
	}
	s.Stop(t)
	is(t, p.findings(t, 3), "server", outcomeFail, "", "start the server")
}

func TestCheckVerdict(t *testing.T) {
	for want, outcomes := range map[contract.Verdict][]string{
		contract.Pass:           {outcomeOK, outcomeWarning},
		contract.CouldNotVerify: {outcomeUnknown, outcomeWarning},
		contract.Fail:           {outcomeOK, outcomeFail, outcomeUnknown},
	} {
		var found []finding
		for _, o := range outcomes {
			found = append(found, finding{Outcome: o})
		}
		if got := checkVerdict(found); got != want {
			t.Errorf("%v: %s, want %s", outcomes, got, want)
		}
	}
}

func TestRoom(t *testing.T) {
	k := &checker{}
	k.room("/w", 10, 9)
	k.room("/w", 10, 10)
	if k.found[0].Outcome != outcomeWarning || k.found[1].Outcome != outcomeOK {
		t.Errorf("found %+v", k.found)
	}
}
