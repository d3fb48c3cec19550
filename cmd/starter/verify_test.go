package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lists gives the backups of a verification, and the texts of all findings.
func (o outcome) verified(t *testing.T) (res map[string]any, backups []map[string]any, findings []map[string]any) {
	t.Helper()
	res = hasKeys(t, "verify", o.object(t), "cluster", "verdict", "level", "backups", "workflowId")
	for _, b := range res["backups"].([]any) {
		one := hasKeys(t, "backup", b, "backupId", "verdict", "level", "findings")
		backups = append(backups, one)
		for _, f := range one["findings"].([]any) {
			findings = append(findings, hasKeys(t, "finding", f, "level", "object", "file", "block", "problem"))
		}
	}
	return res, backups, findings
}

func TestVerify_WithoutTemporal(t *testing.T) {
	p := protect(t)
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	// Nothing was proved, which is no pass; and the latest of no backups is a question that cannot be meant.
	res, backups, _ := p.run(t, "verify", "orders", "all", "--local", "--json").must(t, 4).verified(t)
	if res["verdict"] != "COULD_NOT_VERIFY" || len(backups) != 0 {
		t.Errorf("without a backup: %v", res)
	}
	contains(t, "error", p.run(t, "verify", "orders", "--local").must(t, 2).stderr, "take one with")

	id := p.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)["backupId"].(string)
	p.Exec(t, "insert into orders values (1001)")
	p.archive(t)
	res, backups, findings := p.run(t, "verify", "orders", "--local", "--json").must(t, 0).verified(t)
	if res["verdict"] != "PASS" || res["level"] != 2.0 || len(backups) != 1 || backups[0]["backupId"] != id || len(findings) > 0 {
		t.Errorf("by default: %v", res)
	}
	res, _, _ = p.run(t, "verify", "orders", id, "--level", "5", "--local", "--json").must(t, 0).verified(t)
	if res["verdict"] != "PASS" || res["level"] != 5.0 {
		t.Errorf("level 5: %v", res)
	}
	list := p.run(t, "backups", "orders", "--json").must(t, 0).object(t)["backups"].([]any)
	shown := hasKeys(t, "verified", list[0].(map[string]any)["verified"], "level", "verdict", "at")
	if shown["verdict"] != "PASS" || shown["level"] != 5.0 {
		t.Errorf("`backups` shows %v", shown)
	}
	t.Run("usage", func(t *testing.T) {
		for _, args := range [][]string{
			{"verify"},
			{"verify", "orders", "latest", "more"},
			{"verify", "orders", "--level", "6", "--local"},
			{"verify", "orders", "--level", "-1", "--local"},
			{"verify", "orders", "newest", "--local"},
			{"verify", "orders", "20200101T000000Z-full-000000", "--local"},
			{"verify", "strangers", "--local"},
			{"verify", "orders", "--repository", "file://" + p.repo},
		} {
			p.run(t, args...).must(t, 2)
		}
	})
	t.Run("from the repository alone, damaged", func(t *testing.T) { p.checkDamaged(t, id) })
}

// checkDamaged verifies by the repository alone: first as it is, then with one bit of one pack flipped, then with its
// header damaged, by which nothing can be read any more.
func (p *protected) checkDamaged(t *testing.T, id string) {
	bare := environment{}
	verify := []string{"verify", "orders", "all", "--local", "--json", "--repository", "file://" + p.repo}
	lifeboat(t, bare, verify...).must(t, 0)
	packs, err := filepath.Glob(p.repo + "/clusters/orders/data/*/*")
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs %v, %v", packs, err)
	}
	for _, path := range []string{packs[0], filepath.Join(p.repo, "lifeboat.json")} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte{}, whole...)
		bad[len(bad)/2] ^= 4
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		res, backups, findings := lifeboat(t, bare, verify...).must(t, 3).verified(t)
		key := strings.TrimPrefix(path, p.repo+"/")
		if res["verdict"] != "FAIL" || len(backups) != 1 || len(findings) != 1 || findings[0]["object"] != key || findings[0]["block"] != nil {
			t.Errorf("%s: %v", key, res)
		}
		if strings.Contains(key, "data/") {
			if backups[0]["backupId"] != id {
				t.Errorf("the finding is not of backup %s: %v", id, backups)
			}
			text := append(verify[:4:4], verify[5:]...)
			contains(t, "output", lifeboat(t, bare, text...).must(t, 3).stdout, "FAIL", id, key)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lifeboat(t, bare, verify...).must(t, 0)
}
