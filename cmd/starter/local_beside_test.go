package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pgtest"
)

// configured is the cluster with other settings, in a configuration of its own.
func (p *protected) configured(t *testing.T, cluster string) *protected {
	t.Helper()
	file := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {orders: {dsn: %q, objectives: {rto: 10m, rpo: 5m}, %s}}\n",
		p.repo, p.DSN(""), cluster)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	other := *p
	other.env = maps.Clone(p.env)
	other.env["LIFEBOAT_CONFIG"] = file
	return &other
}

// outcomes are those of check, the worst of each id.
func (p *protected) outcomes(t *testing.T, code int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range p.run(t, "check", "orders", "--json", "--local").must(t, code).object(t)["checks"].([]any) {
		f := c.(map[string]any)
		if id := f["id"].(string); out[id] == "" || out[id] == outcomeOK {
			out[id] = f["outcome"].(string)
		}
	}
	return out
}

// checkBeside drives backups and checks of a server whose data directory is on this host.
func (p *protected) checkBeside(t *testing.T) {
	name, err := hostName()
	if err != nil {
		t.Fatal(err)
	}
	for what, cluster := range map[string]string{
		"data_directory": fmt.Sprintf("data_directory: %q", p.DataDir),
		"hosts":          fmt.Sprintf("hosts: [{dsn: %q, data_directory: %q, queue: %q}]", p.DSN(""), p.DataDir, "lifeboat@"+name),
	} {
		t.Run(what, func(t *testing.T) {
			here := p.configured(t, cluster)
			got := here.outcomes(t, 0)
			for _, id := range []string{"data directory", "backup functions", "host lifeboat@" + name} {
				if (what == "hosts") == strings.HasPrefix(id, "host") && got[id] != outcomeOK {
					t.Errorf("check %s is %q", id, got[id])
				}
			}
			if _, ok := got["replication"]; ok {
				t.Error("check asks for a replication connection that no backup needs")
			}
			b := here.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)
			shown := here.run(t, "show", "orders", b["backupId"].(string)).must(t, 0)
			contains(t, "show", shown.stdout, "made by Lifeboat")
		})
	}
	other := pgtest.New(t, pgtest.Options{OwnIdentity: true, Stopped: true})
	for what, c := range map[string]struct {
		dir, code, hint string
		exit            int
	}{
		"another server's": {other.DataDir, "Refused", "which is " + p.DataDir, 5},
		"none":             {"/nonexistent", "Configuration", "run it there", 2},
	} {
		t.Run("a directory that is "+what, func(t *testing.T) {
			wrong := p.configured(t, fmt.Sprintf("data_directory: %q", c.dir))
			e := wrong.run(t, "backup", "orders", "--local", "--json").must(t, c.exit).errorObject(t)
			if e["code"] != c.code {
				t.Errorf("error %v", e)
			}
			contains(t, "hint", e["hint"].(string), c.hint)
			if got := wrong.outcomes(t, 3); got["data directory"] != outcomeFail {
				t.Errorf("check says %v", got)
			}
		})
	}
	p.configured(t, fmt.Sprintf("hosts: [{dsn: %q}]", p.DSN(""))).run(t, "backup", "orders", "--local").must(t, 2)
}
