package main

import (
	"os"
	"slices"
	"testing"
)

// ids are those of the findings that health printed, as JSON.
func healthIDs(t *testing.T, got outcome) []string {
	t.Helper()
	var ids []string
	for _, f := range hasKeys(t, "health", got.object(t), "cluster", "verdict", "checkedAt", "findings", "opened", "closed", "notLookedAt", "exposureSeconds", "positions", "seconds", "workflowId")["findings"].([]any) {
		f := hasKeys(t, "finding", f, "id", "rule", "severity", "status", "evidence", "remedy", "sightings", "absences", "firstSeenAt", "lastSeenAt", "openedAt")
		ids = append(ids, f["id"].(string))
	}
	slices.Sort(ids)
	return ids
}

// TestHealth_Command: exit codes and output of `lifeboat health --local`.
func TestHealth_Command(t *testing.T) {
	p := protect(t)
	p.Set(t, map[string]string{"fsync": "on"})
	got := healthIDs(t, p.run(t, "health", "orders", "--local", "--json").must(t, 3))
	if !slices.Equal(got, []string{"backup_missing"}) {
		t.Errorf("before the first backup: %v", got)
	}
	p.run(t, "backup", "orders", "--local", "--quiet").must(t, 0)
	out := p.run(t, "health", "orders", "--local").must(t, 0).stdout
	contains(t, "health", out, "PASS  orders, 0 findings, exposure")
	p.Set(t, map[string]string{"fsync": "off"})
	out = p.run(t, "health", "orders", "--local").must(t, 0).stdout
	contains(t, "health", out, "warning  fsync  fsync is off",
		"-> set fsync = on", "PASS  orders, 1 findings")

	p.Exec(t, `create role "life ""boat""" login`)
	limited := p.asLimited(t, "")
	p.Exec(t, "grant execute on function pg_ls_archive_statusdir() to public")
	out = limited.run(t, "health", "orders", "--local").must(t, 4).stdout
	contains(t, "health", out, "not looked at  transactions, standbys", "GRANT pg_monitor", "COULD_NOT_VERIFY  orders")

	p.Stop(t)
	defer p.Start(t)
	if err := os.Rename(p.repo, p.repo+"-away"); err != nil {
		t.Fatal(err)
	}
	got = healthIDs(t, p.run(t, "health", "orders", "--local", "--json").must(t, 3))
	if !slices.Equal(got, []string{"repository_unreachable", "server_unreachable"}) {
		t.Errorf("nothing is there: %v", got)
	}
	if err := os.Rename(p.repo+"-away", p.repo); err != nil {
		t.Fatal(err)
	}
	p.run(t, "health", "shop", "--local").must(t, 2)
	p.run(t, "health").must(t, 2)
}
