package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
)

// limitedRole is a name that SQL has to quote.
const limitedRole = `life "boat"`

// asLimited is the cluster as a role that is no superuser reaches it, with other settings.
func (p *protected) asLimited(t *testing.T, cluster string) *protected {
	t.Helper()
	file := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	dsn := fmt.Sprintf("host=%s port=%d dbname=postgres user='%s'", p.SocketDir, p.Port, limitedRole)
	text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nworker: {work_dir: %q}\n"+
		"clusters: {orders: {dsn: %q, objectives: {rto: 10m, rpo: 5m}%s}}\n", p.repo, filepath.Join(filepath.Dir(p.program), "work"), dsn, cluster)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	other := *p
	other.env = maps.Clone(p.env)
	other.env["LIFEBOAT_CONFIG"] = file
	return &other
}

// findings are those of check by id.
func (p *protected) findings(t *testing.T, code int) map[string][]finding {
	t.Helper()
	out := map[string][]finding{}
	for _, c := range p.run(t, "check", "orders", "--json", "--local").must(t, code).object(t)["checks"].([]any) {
		f := hasKeys(t, "a check", c, "cluster", "id", "outcome", "message", "hint")
		g := finding{f["cluster"].(string), f["id"].(string), f["outcome"].(string), f["message"].(string), f["hint"].(string)}
		if g.Outcome != outcomeOK && g.Hint == "" {
			t.Errorf("no remedy: %+v", g)
		}
		out[g.ID] = append(out[g.ID], g)
	}
	return out
}

// TestPrintGrants: what `check --print-grants` prints is all that a role needs on each supported version. Before, check
// names what is missing; after, backups and drills work.
func TestPrintGrants(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		p := protectIn(t, "", major)
		p.Exec(t, `create role "life ""boat""" login`)
		limited := p.asLimited(t, "")
		beside := p.asLimited(t, fmt.Sprintf(", data_directory: %q", p.DataDir))
		limited.lacksAll(t)
		if got := beside.findings(t, 3)["backup functions"]; len(got) != 1 || got[0].Outcome != outcomeFail {
			t.Errorf("backup functions: %+v", got)
		}
		limited.grantAll(t)
		limited.grantAll(t) // each statement may be run again
		for name, q := range map[string]*protected{"over replication": limited, "beside the server": beside} {
			got := q.findings(t, 0)
			for _, id := range []string{"privileges", "archive queue", "work directory"} {
				if len(got[id]) != 1 || got[id][0].Outcome != outcomeOK {
					t.Errorf("%s: %s: %+v", name, id, got[id])
				}
			}
			if len(got["replication"])+len(got["backup functions"]) != 1 {
				t.Errorf("%s: %+v and %+v", name, got["replication"], got["backup functions"])
			}
		}
		if major == pg.MaxMajor && pgtest.Scale(t) < 2 {
			return // it runs the same SQL as the majors before it, and drills take their time
		}
		limited.works(t, beside)
		limited.afterRevoke(t)
	})
}

func (p *protected) lacksAll(t *testing.T) {
	t.Helper()
	got := p.findings(t, 3)
	if r := got["replication"]; len(r) != 1 || r[0].Outcome != outcomeFail || !strings.Contains(r[0].Hint, "REPLICATION") {
		t.Errorf("replication: %+v", r)
	}
	for about, want := range map[string][3]string{
		"server files":   {outcomeWarning, "pg_read_binary_file", "pg_read_all_settings"},
		"wal switch":     {outcomeFail, "GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal()", `"life ""boat"""`},
		"restore points": {outcomeWarning, "pg_create_restore_point", ""},
		"monitoring":     {outcomeWarning, "GRANT pg_monitor", ""},
		"canary":         {outcomeFail, "CREATE SCHEMA", "check orders --print-grants"},
	} {
		i := slices.IndexFunc(got["privileges"], func(f finding) bool { return strings.Contains(f.Message, "lacks "+about+":") })
		if i < 0 {
			t.Errorf("check does not say that %s is missing: %+v", about, got["privileges"])
			continue
		}
		f := got["privileges"][i]
		if f.Outcome != want[0] {
			t.Errorf("%s is %s, want %s", about, f.Outcome, want[0])
		}
		contains(t, "hint", f.Hint, want[1], want[2])
	}
}

// grantAll has a superuser run what is printed.
func (p *protected) grantAll(t *testing.T) {
	t.Helper()
	sql := p.run(t, "check", "orders", "--print-grants").must(t, 0).stdout
	file := filepath.Join(pgtest.TempDir(t), "grants.sql")
	if err := os.WriteFile(file, []byte(sql), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Run(t, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", p.DSN(""), "-f", file)
}

// works takes backups both ways, and drills, as the role.
func (p *protected) works(t *testing.T, beside *protected) {
	t.Helper()
	if super := p.SQL(t, "select rolsuper from pg_roles where rolname = $1", limitedRole); super != "f" {
		t.Fatalf("the role is a superuser: %s", super)
	}
	b := p.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)
	second := p.run(t, "backup", "orders", "--local", "--type", "incremental", "--json").must(t, 0).object(t)
	if got, want := offered(t, p.env, "show", "orders", ""), []any{"latest", second["backupId"], b["backupId"]}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a shell is offered %q, want %q", got, want)
	}
	beside.run(t, "backup", "orders", "--local", "--type", "incremental").must(t, 0)
	shown := p.run(t, "show", "orders", b["backupId"].(string), "--json").must(t, 0).object(t)
	conf := shown["configuration"].(map[string]any)
	if conf["grants"] != nil || conf["unread"] != nil {
		t.Errorf("the configuration did not come along: grants %v, unread %v", conf["grants"], conf["unread"])
	}
	drill := p.run(t, "drill", "orders", "--local", "--json").must(t, 0).object(t)
	if drill["verdict"] != "PASS" {
		t.Errorf("drill: %v", drill)
	}
	if n := p.SQL(t, "select count(*) from lifeboat.canary"); n != "2" {
		t.Errorf("%s canary rows", n)
	}
}

// afterRevoke: a single privilege that goes is named, alone.
func (p *protected) afterRevoke(t *testing.T) {
	t.Helper()
	p.Exec(t, `revoke execute on function pg_switch_wal() from "life ""boat"""`)
	got := p.findings(t, 3)["privileges"]
	if len(got) != 1 || !strings.Contains(got[0].Message, "lacks wal switch:") {
		t.Errorf("after one revocation: %+v", got)
	}
	failed := p.run(t, "drill", "orders", "--local", "--json").must(t, 2).errorObject(t)
	contains(t, "hint", failed["hint"].(string), "--print-grants")
	p.Exec(t, `grant execute on function pg_switch_wal() to "life ""boat"""`)
	p.Exec(t, `alter table lifeboat.canary owner to postgres`)
	got = p.findings(t, 3)["privileges"]
	if len(got) != 1 || !strings.Contains(got[0].Message, "lacks canary:") {
		t.Errorf("after the canary table is another's: %+v", got)
	}
}

// TestPrintGrants_WithoutServer: who cannot log in yet, or has no configuration, gets the SQL too.
func TestPrintGrants_WithoutServer(t *testing.T) {
	dir := t.TempDir()
	got := lifeboat(t, environment{}, "check", "--print-grants", "--config", filepath.Join(dir, "none")).must(t, 2)
	contains(t, "stderr", got.stderr, "none")
	t.Chdir(dir) // without a lifeboat.yaml
	got = lifeboat(t, environment{}, "check", "--print-grants").must(t, 0)
	contains(t, "SQL", got.stdout, `ALTER ROLE "lifeboat" LOGIN REPLICATION;`, "in database postgres")
	contains(t, "SQL", lifeboat(t, environment{}, "check", "--print-grants", "--role", "o'neil").must(t, 0).stdout, `rolname = 'o''neil'`, `GRANT pg_monitor TO "o'neil";`)

	file := filepath.Join(dir, "two.yaml")
	text := "version: 1\nrepositories: {main: {url: \"file:///r\"}}\nclusters:\n" +
		"  a: {dsn: \"host=127.0.0.1 port=1 user=one dbname=x\"}\n  b: {dsn: \"host=127.0.0.1 port=2 user=one dbname=x\"}\n" +
		"  c: {hosts: [{dsn: \"host=h1 user=two dbname=y\"}], dsn: \"host=h1 user=one dbname=y\"}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	env := environment{"LIFEBOAT_CONFIG": file}
	var sets []string
	for _, s := range lifeboat(t, env, "check", "--print-grants", "--json").must(t, 0).object(t)["grants"].([]any) {
		s := hasKeys(t, "grants", s, "clusters", "role", "database", "postgresMajors", "grants")
		sets = append(sets, fmt.Sprintf("%v %v %v %v", s["clusters"], s["role"], s["database"], s["postgresMajors"]))
		for _, g := range s["grants"].([]any) {
			hasKeys(t, "grant", g, "id", "why", "sql")
		}
	}
	if want := []string{"[a b] one x [15 16 17 18]", "[c] one y [15 16 17 18]", "[c] two y [15 16 17 18]"}; !slices.Equal(sets, want) {
		t.Errorf("sets %q, want %q", sets, want)
	}
	lifeboat(t, env, "check", "d", "--print-grants").must(t, 2)
	lifeboat(t, env, "check", "--role", "x").must(t, 2)
}
