package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

var drillKeys = []string{"drillId", "cluster", "scenario", "verdict", "level", "checks", "rto", "rpo", "report", "workflowId"}

// inWorkDir gives drills and verifications a directory of this test's, and returns it.
func (p *protected) inWorkDir(t *testing.T) string {
	t.Helper()
	work, config := pgtest.TempDir(t), p.env["LIFEBOAT_CONFIG"]
	data, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(data, "worker: {work_dir: %q}\n", work), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return work
}

// TestDrill_WithoutTemporal rehearses by the program alone, with Temporal down (invariant 12): whatever the verdict, the
// report is there to be read, and neither a server nor a file of the drill is left.
func TestDrill_WithoutTemporal(t *testing.T) {
	p := protect(t)
	work := p.inWorkDir(t)
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	id := p.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)["backupId"].(string)
	p.Exec(t, "insert into orders values (1001)")
	end := p.SQL(t, "select pg_current_wal_lsn()")
	p.archive(t)
	before := p.SQL(t, "select count(*) from orders")
	drill := func(t *testing.T, code int, args ...string) map[string]any {
		t.Helper()
		got := p.run(t, append([]string{"drill", "orders", "--local", "--json"}, args...)...).must(t, code)
		if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
			t.Errorf("left in the work directory: %v, %v", left, err)
		}
		if list, err := pginstance.Running(work); err != nil || len(list) > 0 {
			t.Errorf("servers that still run: %v, %v", list, err)
		}
		return p.readable(t, hasKeys(t, "drill", got.object(t), drillKeys...))
	}
	checks := func(count string) string {
		file := filepath.Join(t.TempDir(), "checks.yaml")
		if err := os.WriteFile(file, []byte("checks:\n  - {name: orders, sql: select count(*) from orders, expect: \""+count+"\"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Run("PASS", func(t *testing.T) {
		res := drill(t, 0, "--checks", checks("1001"))
		if res["verdict"] != "PASS" || res["level"] != 7.0 || res["backupId"] != id || res["cleanedUp"] != true {
			t.Errorf("%v", res)
		}
	})
	t.Run("PARTIAL, where the data loss cannot be measured", func(t *testing.T) {
		if res := drill(t, 4, "--to-immediate"); res["verdict"] != "PARTIAL" {
			t.Errorf("%v", res)
		}
	})
	t.Run("a check of the owner fails", func(t *testing.T) {
		if res := drill(t, 3, "--to-immediate", "--checks", checks("1000000")); res["verdict"] != "FAIL" || res["level"] != 6.0 {
			t.Errorf("%v", res)
		}
	})
	t.Run("sabotaged pack", func(t *testing.T) {
		packs, err := filepath.Glob(p.repo + "/clusters/orders/data/*/*")
		if err != nil || len(packs) == 0 {
			t.Fatalf("%v, %v", packs, err)
		}
		key := strings.TrimPrefix(packs[0], p.repo+"/")
		defer p.spoil(t, key)()
		if res := drill(t, 3, "--to-immediate"); res["verdict"] != "FAIL" || !strings.Contains(fmt.Sprint(res["failure"]), key) {
			t.Errorf("%v", res)
		}
	})
	t.Run("sabotaged WAL", func(t *testing.T) {
		first := p.run(t, "show", "orders", id, "--json").must(t, 0).object(t)["startLsn"].(string)
		key := "clusters/orders/wal/segments/0000000100000000/" + p.SQL(t, "select pg_walfile_name($1::pg_lsn)", first)
		at := func(n int) int { return n / 2 } // which replay meets, after half a minute in which wal-fetch hopes
		if pgtest.Scale(t) == 1 {
			at = func(int) int { return 100 } // which the plan meets
		}
		defer p.spoilAt(t, key, at)()
		if res := drill(t, 3, "--to-immediate"); res["verdict"] != "FAIL" || !strings.Contains(fmt.Sprint(res["failure"]), filepath.Base(key)) {
			t.Errorf("%v", res)
		}
	})
	t.Run("no server of that major", func(t *testing.T) {
		res := drill(t, 4, "--to-immediate", "--backup", p.ofMajor(t, id, 9))
		if res["verdict"] != "COULD_NOT_VERIFY" || !strings.Contains(fmt.Sprint(res["failure"]), "find PostgreSQL 9") {
			t.Errorf("%v", res)
		}
	})
	if got := p.SQL(t, "select count(*) from orders"); got != before {
		t.Errorf("the protected cluster has %s orders, had %s (invariant 13)", got, before)
	}
	t.Run("the protected server is gone, and canary rows were asked for", func(t *testing.T) {
		p.Stop(t)
		if res := drill(t, 4); res["verdict"] != "COULD_NOT_VERIFY" {
			t.Errorf("%v", res)
		}
		now := time.Now().UTC().Format(time.RFC3339Nano) // the loss counts from here
		if res := drill(t, 0, "--backup", id, "--to-lsn", end, "--disaster-at", now); res["verdict"] != "PASS" {
			t.Errorf("a drill that needs no canary: %v", res)
		}
	})
}

// readable shows the report of a drill in every format, and returns it.
func (p *protected) readable(t *testing.T, drill map[string]any) map[string]any {
	t.Helper()
	id, verdict := drill["drillId"].(string), drill["verdict"].(string)
	rep := p.run(t, "report", "show", id, "--format", "json").must(t, 0).object(t)
	if rep["verdict"] != drill["verdict"] || rep["level"] != drill["level"] || rep["report"] != drill["report"] {
		t.Errorf("the report is %v, the result %v", rep, drill)
	}
	contains(t, "report", p.run(t, "report", "show", drill["report"].(string)).must(t, 0).stdout, verdict+"  drill "+id, "cleaned up")
	contains(t, "page", p.run(t, "report", "show", id, "--format", "html").must(t, 0).stdout, "<!DOCTYPE html>", strings.ReplaceAll(verdict, "_", " "), id)
	contains(t, "reports", p.run(t, "reports", "orders").must(t, 0).stdout, id)
	return rep
}
