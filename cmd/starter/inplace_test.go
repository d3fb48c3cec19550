package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// TestInPlace types what a person types whose server has crashed: wal-rescue, restore --delta (R1, R20). Neither Temporal
// nor a configuration is needed for it (R5).
func TestInPlace(t *testing.T) {
	p := protect(t)
	alone := []string{"--repository", "file://" + p.repo}
	run := func(args ...string) outcome { return lifeboat(t, environment{}, append(alone, args...)...) }
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	p.run(t, "backup", "orders", "--local").must(t, 0)
	p.Exec(t, "insert into orders values (1001)")
	p.archive(t)
	p.Exec(t, "insert into orders values (1002)") // not archived

	delta := []string{"restore", "orders", "--target-dir", p.DataDir, "--delta", "--local", "--json"}
	rescue := []string{"wal-rescue", "orders", "--data-directory", p.DataDir, "--json"}
	for _, args := range [][]string{delta, rescue} {
		e := run(args...).must(t, 5).errorObject(t)
		if e["code"] != "Refused" || !strings.Contains(e["message"].(string), "a server runs in") || e["hint"] == "" {
			t.Errorf("%s beside a running server: %v", args[0], e)
		}
	}
	p.Kill(t)
	e := run(delta...).must(t, 5).errorObject(t)
	if !strings.Contains(e["hint"].(string), "lifeboat wal-rescue orders --data-directory "+p.DataDir) {
		t.Errorf("before the rescue: %v", e)
	}
	if e := run("wal-rescue", "orders", "--data-directory", filepath.Dir(p.DataDir), "--json").must(t, 5).errorObject(t); e["hint"] == "" {
		t.Errorf("no data directory: %v", e)
	}
	res := hasKeys(t, "wal-rescue", run(rescue...).must(t, 0).object(t),
		"cluster", "dataDirectory", "systemIdentifier", "timeline", "endLsn", "pushed")
	pushed := res["pushed"].([]any)
	if len(pushed) != 1 {
		t.Fatalf("pushed %v", pushed)
	}
	if name := hasKeys(t, "a rescued file", pushed[0], "name", "bytes")["name"].(string); !strings.HasSuffix(name, ".partial") {
		t.Errorf("pushed %s", name)
	}
	contains(t, "wal-rescue", run(rescue[:4]...).must(t, 0).stdout, "nothing to rescue")

	t.Run("into the server's own directory", func(t *testing.T) { p.checkDelta(t, append(alone, append(delta, "--start")...)) })
}

func (p *protected) checkDelta(t *testing.T, args []string) {
	t.Cleanup(func() {
		if in, err := pginstance.Attach(p.DataDir, pginstance.AttachOptions{}); err == nil {
			_ = in.Stop(context.Background(), pginstance.Immediate)
		}
	})
	res := hasKeys(t, "restore", lifeboat(t, environment{}, args...).must(t, 0).object(t), append([]string{"port", "socketDir"}, restoreKeys...)...)
	if bytes, reused := res["bytes"].(float64), res["reusedBytes"].(float64); reused < bytes/2 || reused >= bytes {
		t.Errorf("reused %v of %v bytes", reused, bytes)
	}
	if plan := res["plan"].(map[string]any); plan["delta"] != true {
		t.Errorf("plan %v", plan)
	}
	in, err := pginstance.Attach(p.DataDir, pginstance.AttachOptions{})
	if err != nil {
		t.Fatalf("the server is not up: %v", err)
	}
	cfg, err := dbcore.ParseDSN(in.ConnString("", ""))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := dbcore.One[int](t.Context(), conn, "select count(*)::int from orders"); err != nil || n != 1002 {
		t.Errorf("%d rows, want 1002, the last one not archived when the server crashed (%v)", n, err)
	}
	// The same command again finds a server and touches nothing.
	if e := lifeboat(t, environment{}, args...).must(t, 5).errorObject(t); !strings.Contains(e["message"].(string), "a server runs in") {
		t.Errorf("again: %v", e)
	}
}

// TestTablespacesMapped: OLD=NEW by location, also with an equals sign in it, from the command line into the plan.
func TestTablespacesMapped(t *testing.T) {
	p := protect(t)
	dir := filepath.Join(p.Dir, "a=b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(dir); err != nil {
		t.Fatal(err)
	}
	p.Exec(t, "create tablespace odd location '"+dir+"'")
	p.Exec(t, "create table orders tablespace odd as select 1 as id")
	p.run(t, "backup", "orders", "--local").must(t, 0)
	p.archive(t)
	place := filepath.Join(pgtest.TempDir(t), "new")
	old := strings.ReplaceAll(dir, "=", `\=`)
	restore := func(tablespace string) outcome {
		return p.run(t, "restore", "orders", "--target-dir", filepath.Join(p.Dir, "restored"), "--tablespace", tablespace, "--local", "--json")
	}
	e := restore("/no/such="+place).must(t, 5).errorObject(t)
	contains(t, "the refusal of an unknown tablespace", e["message"].(string), "/no/such", dir)
	full := pgtest.TempDir(t)
	precious := filepath.Join(full, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = restore(old+"="+full).must(t, 5).errorObject(t)
	contains(t, "the refusal of a place that is not empty", e["message"].(string), full, "precious")
	names, err := os.ReadDir(full)
	if err != nil || len(names) != 1 {
		t.Errorf("the refused place holds %v, %v", names, err)
	}
	if _, err := os.Lstat(filepath.Join(p.Dir, "restored")); !errors.Is(err, os.ErrNotExist) || e["hint"] == "" {
		t.Errorf("the refusal %v left a target directory: %v", e, err)
	}
	plan := restore(old+"="+place).must(t, 0).object(t)["plan"].(map[string]any)
	ts := hasKeys(t, "tablespace", plan["tablespaces"].([]any)[0], "oid", "source", "place")
	if ts["source"] != dir || ts["place"] != place {
		t.Errorf("tablespace %v", ts)
	}
	if found, err := filepath.Glob(filepath.Join(place, "PG_*")); err != nil || len(found) != 1 {
		t.Errorf("in %s: %v, %v", place, found, err)
	}
}
