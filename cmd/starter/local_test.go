package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// The key sets of the interface.
var (
	backupKeys = []string{
		"cluster", "backupId", "type", "parentId", "systemIdentifier", "postgresVersion", "timeline", "startLsn",
		"stopLsn", "startedAt", "finishedAt", "sourceBytes", "changedBytes", "storedBytes", "chunks", "newChunks", "files", "corruptPages", "unsurePages", "seconds", "workflowId",
	}
	restoreKeys = []string{
		"cluster", "backupId", "targetDir", "target", "reached", "plan", "bytes", "reusedBytes", "walSegments",
		"spans", "seconds", "workflowId",
	}
	statusKeys = []string{
		"cluster", "exposureSeconds", "rpoTarget", "restorableFrom", "restorableTo", "lastBackup", "lastVerified",
		"lastDrill", "predictedRto", "rtoTarget", "verdict",
	}
)

// protected is a server that archives by the real program, and its configuration.
type protected struct {
	*pgtest.Server
	env     environment
	program string
	repo    string
}

// protect makes one. The program is built and put on PATH, where a restore finds it for restore_command.
func protect(t *testing.T) *protected {
	t.Helper()
	return protectIn(t, "", 0)
}

// protectIn is protect for a repository in a given folder, beside which something else is (see openToArchive), and for a
// major version (0: the lowest that is installed).
func protectIn(t *testing.T, folder string, major int) *protected {
	t.Helper()
	dir := pgtest.TempDir(t)
	p := &protected{program: filepath.Join(dir, "lifeboat"), repo: folder}
	if folder == "" {
		p.repo = filepath.Join(dir, "repo")
	}
	data, err := os.ReadFile(pgtest.Build(t, "lifeboat/cmd/starter"))
	if err == nil {
		err = os.WriteFile(p.program, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	config := filepath.Join(dir, "lifeboat.yaml")
	p.env = environment{"LIFEBOAT_CONFIG": config}
	p.Server = pgtest.New(t, pgtest.Options{
		Major: major, Checksums: true, OwnIdentity: true, Settings: map[string]string{"archive_timeout": "60"},
		Archive: func(s *pgtest.Server) string {
			return fmt.Sprintf("%s --repository file://%s wal-push %%p --cluster orders", p.program, p.repo)
		},
	})
	text := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {orders: {dsn: %q, objectives: {rto: 10m, rpo: 5m}}}\n",
		p.repo, p.DSN(""))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// The archiver makes the repository, so that it is its user's whoever runs the test.
	p.archive(t)
	return p
}

// archive switches to a new segment and waits until the old one is in the repository.
func (p *protected) archive(t *testing.T) {
	t.Helper()
	p.Exec(t, "select pg_logical_emit_message(true, 'test', 'something to archive')")
	segment := p.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		// The archiver tells of a segment only after the program has stored it.
		if found, _ := filepath.Glob(p.repo + "/clusters/orders/wal/segments/*/" + segment); len(found) == 1 &&
			p.SQL(t, `select last_archived_wal >= $1 collate "C" from pg_stat_archiver`, segment) == "t" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("segment %s was not archived", segment)
		}
	}
}

func (p *protected) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return lifeboat(t, p.env, args...)
}

func TestWithoutTemporal(t *testing.T) {
	p := protect(t)
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")

	t.Run("nothing yet", func(t *testing.T) {
		list := hasKeys(t, "backups", p.run(t, "backups", "orders", "--json").must(t, 0).object(t), "cluster", "backups")
		if n := len(list["backups"].([]any)); n != 0 {
			t.Errorf("%d backups", n)
		}
		got := p.run(t, "restore", "orders", "--target-dir", filepath.Join(p.Dir, "none"), "--plan", "--json").must(t, 5)
		if e := got.errorObject(t); e["code"] != "Refused" || e["hint"] == "" {
			t.Errorf("error %v", e)
		}
		s := p.statusOf(t)
		if s["verdict"] != "FAIL" || s["lastBackup"] != nil || s["restorableFrom"] != nil {
			t.Errorf("status %v", s)
		}
	})

	backup := hasKeys(t, "backup", p.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t), backupKeys...)
	id := backup["backupId"].(string)
	p.Exec(t, "insert into orders values (1001)")
	target := p.SQL(t, "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
	p.Exec(t, "delete from orders where id > 500")
	p.archive(t)

	t.Run("backups and show", func(t *testing.T) { p.checkListing(t, id) })
	t.Run("wal-status", func(t *testing.T) { p.checkWALStatus(t) })
	t.Run("check", func(t *testing.T) { p.checkCheck(t) })
	t.Run("plan", func(t *testing.T) { p.checkPlan(t, id, target) })
	t.Run("restore to a time", func(t *testing.T) { p.checkRestore(t, id, target) })
	t.Run("files only, from the repository alone", func(t *testing.T) { p.checkFilesOnly(t, id) })
	t.Run("refused", func(t *testing.T) { p.checkRefusals(t) })
	t.Run("status and reports", func(t *testing.T) { p.checkStatus(t, id) })
	t.Run("wal-fetch", func(t *testing.T) { p.checkFetch(t) })
	t.Run("beside the server", func(t *testing.T) { p.checkBeside(t) })
}

func (p *protected) statusOf(t *testing.T) map[string]any {
	t.Helper()
	outer := hasKeys(t, "status", p.run(t, "status", "--json").must(t, 0).object(t), "clusters")
	list := outer["clusters"].([]any)
	if len(list) != 1 {
		t.Fatalf("%d clusters", len(list))
	}
	return hasKeys(t, "status of a cluster", list[0], statusKeys...)
}

func (p *protected) checkListing(t *testing.T, id string) {
	want := append(slices.Clone(backupKeys), "verified")
	list := p.run(t, "backups", "orders", "--json").must(t, 0).object(t)["backups"].([]any)
	if len(list) != 1 {
		t.Fatalf("%d backups", len(list))
	}
	b := hasKeys(t, "listed backup", list[0], want...)
	if b["backupId"] != id || b["verified"] != nil {
		t.Errorf("listed %v", b)
	}
	shown := p.run(t, "show", "orders", "latest", "--json").must(t, 0).object(t)
	hasKeys(t, "shown backup", shown, append(want, "program", "walSegmentSize", "dataChecksums", "serverManifest", "synthesizedManifest", "superuser", "tablespaces", "settings", "pageCheck", "configuration")...)
	if shown["backupId"] != id || shown["dataChecksums"] != true {
		t.Errorf("shown %v", shown)
	}
	contains(t, "backups", p.run(t, "backups", "orders").must(t, 0).stdout, id, "full", "never")
	contains(t, "show", p.run(t, "show", "orders", id).must(t, 0).stdout, id, p.SQL(t, "select system_identifier::text from pg_control_system()"))
	// From the repository alone the same.
	alone := lifeboat(t, environment{}, "--repository", "file://"+p.repo, "backups", "orders", "--json").must(t, 0)
	if again := p.run(t, "backups", "orders", "--json"); alone.stdout != again.stdout {
		t.Errorf("--repository says %s, the configuration %s", alone.stdout, again.stdout)
	}
	missing := p.run(t, "show", "orders", "nosuch", "--json").must(t, 1)
	contains(t, "hint", missing.errorObject(t)["hint"].(string), "lifeboat backups orders")
}

func (p *protected) checkWALStatus(t *testing.T) {
	s := hasKeys(t, "wal-status", p.run(t, "wal-status", "orders", "--json").must(t, 0).object(t),
		"cluster", "timelines", "exposureSeconds", "archiveLagBytes")
	timelines := s["timelines"].([]any)
	if len(timelines) != 1 {
		t.Fatalf("%d timelines", len(timelines))
	}
	tl := hasKeys(t, "timeline", timelines[0], "timeline", "frontierLsn", "firstSegment", "lastSegment", "gaps")
	if n := len(tl["gaps"].([]any)); n != 0 {
		t.Errorf("%d gaps", n)
	}
	if want := p.SQL(t, "select last_archived_wal from pg_stat_archiver"); tl["lastSegment"] != want {
		t.Errorf("last segment %v, the archiver says %s", tl["lastSegment"], want)
	}
	// The frontier is the end of the last segment, by the server's own arithmetic.
	frontier := p.SQL(t, "select pg_walfile_name($1::pg_lsn - 1)", tl["frontierLsn"])
	if frontier != tl["lastSegment"] {
		t.Errorf("frontier %v lies behind %s", tl["frontierLsn"], frontier)
	}

	// A commit that is not archived exposes; the server tells how many bytes.
	p.Exec(t, "create table exposed as select g from generate_series(1, 5000) g")
	s = p.run(t, "wal-status", "orders", "--json").must(t, 0).object(t)
	behind, err := strconv.ParseFloat(p.SQL(t, "select pg_current_wal_lsn() - $1::pg_lsn", tl["frontierLsn"]), 64)
	if err != nil {
		t.Fatal(err)
	}
	if lag := s["archiveLagBytes"].(float64); lag < 100_000 || lag > behind {
		t.Errorf("lag %v, the server says %v", lag, behind)
	}
	if e, ok := s["exposureSeconds"].(float64); !ok || e <= 0 || e > 300 {
		t.Errorf("exposure %v", s["exposureSeconds"])
	}
	// From the repository alone the exposure is an upper bound, and the lag unknown.
	s = lifeboat(t, environment{}, "wal-status", "orders", "--json", "--repository", "file://"+p.repo).must(t, 0).object(t)
	if e, ok := s["exposureSeconds"].(float64); !ok || e <= 0 || s["archiveLagBytes"] != nil {
		t.Errorf("from the repository alone: %v", s)
	}
	p.archive(t)
	contains(t, "wal-status", p.run(t, "wal-status", "orders").must(t, 0).stdout, "FRONTIER", "exposure: ")
	unknown := lifeboat(t, environment{}, "wal-status", "nosuch", "--repository", "file://"+p.repo).must(t, 2)
	contains(t, "stderr", unknown.stderr, "knows no cluster nosuch", "hint: it knows orders")
}

func (p *protected) checkCheck(t *testing.T) {
	// Nobody listens at port 1: Temporal is told as missing, and left out with --local.
	p.env["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	defer delete(p.env, "TEMPORAL_ADDRESS")
	got := p.run(t, "check", "orders", "--json", "--local").must(t, 0)
	rep := hasKeys(t, "check", got.object(t), "verdict", "checks")
	outcomes := map[string]string{}
	for _, c := range rep["checks"].([]any) {
		f := hasKeys(t, "a check", c, "cluster", "id", "outcome", "message", "hint")
		if id := f["id"].(string); outcomes[id] != outcomeWarning {
			outcomes[id] = f["outcome"].(string)
		}
	}
	for _, id := range []string{
		"configuration", "server", "wal_level", "archive_mode", "archive_command", "archive_timeout", "clock",
		"replication", "identity", "binaries",
	} {
		if outcomes[id] != outcomeOK {
			t.Errorf("check %s: %q", id, outcomes[id])
		}
	}
	if outcomes["repository main"] != outcomeWarning {
		t.Errorf("an unencrypted repository is not told: %v", outcomes)
	}
	if left, _ := filepath.Glob(p.repo + "/probes/*"); len(left) != 0 {
		t.Errorf("the probe left %v", left)
	}
	failed := p.run(t, "check", "--json").must(t, 3).object(t)
	if failed["verdict"] != "FAIL" {
		t.Errorf("verdict %v without Temporal", failed["verdict"])
	}
	p.Set(t, map[string]string{"archive_timeout": "0"})
	defer p.Set(t, map[string]string{"archive_timeout": "60"})
	contains(t, "check", p.run(t, "check", "--local").must(t, 3).stdout, "FAIL", "archive_timeout", "-> set archive_timeout = 150")
}

func (p *protected) checkPlan(t *testing.T, id, target string) {
	dir := filepath.Join(p.Dir, "planned")
	got := p.run(t, "restore", "orders", "--target-dir", dir, "--to", target, "--plan", "--json").must(t, 0)
	plan := got.object(t)
	if plan["backupId"] != id || plan["targetDir"] != dir || plan["hash"] == "" {
		t.Errorf("plan %v", plan)
	}
	contains(t, "plan", p.run(t, "restore", "orders", "--target-dir", dir, "--plan").must(t, 0).stdout, "plan hash ", id)
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("--plan made %s: %v", dir, err)
	}
	hash := plan["hash"].(string)
	p.run(t, "restore", "orders", "--target-dir", dir, "--to", target, "--plan", "--plan-hash", hash).must(t, 0)
	p.run(t, "restore", "orders", "--target-dir", dir, "--to", target, "--plan", "--plan-hash", strings.Repeat("0", 64)).must(t, 5)
}

func (p *protected) checkRestore(t *testing.T, id, target string) {
	dir := filepath.Join(p.Dir, "restored")
	t.Cleanup(func() {
		if in, err := pginstance.Attach(dir, pginstance.AttachOptions{}); err == nil {
			_ = in.Stop(context.Background(), pginstance.Immediate)
		}
	})
	res := hasKeys(t, "restore", p.run(t, "restore", "orders", "--target-dir", dir, "--to", target, "--local", "--start", "--json").must(t, 0).object(t),
		append([]string{"port", "socketDir"}, restoreKeys...)...)
	hasKeys(t, "spans", res["spans"], "fetch", "replay", "start", "check")
	hasKeys(t, "target", res["target"], "kind", "value")
	hasKeys(t, "reached", res["reached"], "lsn", "time", "timeline", "lastCommitAt")
	if res["backupId"] != id {
		t.Errorf("restored from %v", res["backupId"])
	}
	in, err := pginstance.Attach(dir, pginstance.AttachOptions{})
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
	if n, err := dbcore.One[int](t.Context(), conn, "select count(*)::int from orders"); err != nil || n != 1001 {
		t.Errorf("%d rows at the target, want 1001 (%v)", n, err)
	}
	// Again: what is there is found, not made anew.
	again := p.run(t, "restore", "orders", "--target-dir", dir, "--to", target, "--local", "--start").must(t, 0)
	contains(t, "restore", again.stdout, "restored orders from backup "+id, "127.0.0.1:"+fmt.Sprint(in.Port()))
}

func (p *protected) checkFilesOnly(t *testing.T, id string) {
	dir := filepath.Join(p.Dir, "files")
	res := hasKeys(t, "restore", lifeboat(t, environment{}, "--repository", "file://"+p.repo, "restore", "orders", "--target-dir", dir,
		"--local", "--json").must(t, 0).object(t), restoreKeys...)
	if res["reached"] != nil || res["backupId"] != id {
		t.Errorf("restored %v, reached %v", res["backupId"], res["reached"])
	}
	if _, err := os.Stat(filepath.Join(dir, "global/pg_control")); err != nil {
		t.Error(err)
	}
	settings, err := os.ReadFile(filepath.Join(dir, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "recovery settings", string(settings), p.program, "--repository", "wal-fetch", "--need")
}

func (p *protected) checkRefusals(t *testing.T) {
	tests := map[string][]string{
		"a directory in use": {"restore", "orders", "--target-dir", p.DataDir, "--local"},
		"an unknown backup":  {"restore", "orders", "--target-dir", filepath.Join(p.Dir, "x"), "--local", "--backup", "20200101T000000Z-full-000000"},
		"a future time":      {"restore", "orders", "--target-dir", filepath.Join(p.Dir, "x"), "--local", "--to", time.Now().Add(time.Hour).Format(time.RFC3339)},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			e := p.run(t, append(args, "--json")...).must(t, 5).errorObject(t)
			if e["code"] != "Refused" || e["message"] == "" {
				t.Errorf("error %v", e)
			}
		})
	}
}

func (p *protected) checkStatus(t *testing.T, id string) {
	contains(t, "reports", p.run(t, "reports", "orders").must(t, 0).stdout, "no reports of orders")
	s := p.statusOf(t)
	if s["verdict"] != "PARTIAL" || s["lastVerified"] != nil || s["predictedRto"] != nil || s["rpoTarget"] != 300.0 || s["rtoTarget"] != 600.0 {
		t.Errorf("status %v", s)
	}
	if b := hasKeys(t, "lastBackup", s["lastBackup"], "backupId", "type", "finishedAt"); b["backupId"] != id {
		t.Errorf("last backup %v", b)
	}
	to, err := time.Parse(time.RFC3339, fmt.Sprint(s["restorableTo"]))
	if err != nil || time.Since(to) > 5*time.Minute || time.Since(to) < 0 {
		t.Errorf("restorable to %v (%v)", s["restorableTo"], err)
	}

	// A drill that passed, as a worker publishes it.
	rpo := 0.5
	rep := contract.Report{
		Format: 1, BackupID: id, StartedAt: time.Now().UTC(), FinishedAt: time.Now().UTC(),
		DrillResult: contract.DrillResult{
			DrillID: "d1", Cluster: "orders", Scenario: "restore", Verdict: contract.Pass, Level: 7, Report: "clusters/orders/reports/d1",
			Checks: []contract.CheckResult{{ID: "objects", Level: 1, Verdict: contract.Pass, Observed: "laid"}},
			RTO:    contract.RTO{Target: 600, Measured: 3}, RPO: contract.RPO{Target: 300, Measured: &rpo},
		},
	}
	r, err := assemble.OpenRepository(t.Context(), "file://"+p.repo, false)
	if err != nil {
		t.Fatal(err)
	}
	proved := contract.Verified{Level: 7, Verdict: contract.Pass, At: time.Now().UTC()}
	if err := r.PutDocument(t.Context(), "orders", "reports/d1", rep); err != nil {
		t.Fatal(err)
	}
	if err := r.PutDocument(t.Context(), "orders", "verifications/"+id+"/d1", proved); err != nil {
		t.Fatal(err)
	}
	s = p.statusOf(t)
	hasKeys(t, "lastVerified", s["lastVerified"], "backupId", "level", "verdict", "at")
	d := hasKeys(t, "lastDrill", s["lastDrill"], "drillId", "scenario", "verdict", "level", "finishedAt", "report")
	if s["verdict"] != "PASS" || d["drillId"] != "d1" {
		t.Errorf("status %v", s)
	}
	contains(t, "status", p.run(t, "status", "orders").must(t, 0).stdout, "PASS", id, "d1: PASS L7")
	contains(t, "backups", p.run(t, "backups", "orders").must(t, 0).stdout, "PASS L7")
	contains(t, "reports", p.run(t, "reports", "orders").must(t, 0).stdout, "d1", "PASS", "0.5 s")
	hasKeys(t, "reports", p.run(t, "reports", "orders", "--json").must(t, 0).object(t), "cluster", "reports")
	for _, ref := range []string{"d1", "clusters/orders/reports/d1"} {
		contains(t, "report", p.run(t, "report", "show", ref).must(t, 0).stdout, "PASS  drill d1 of orders", "RPO 0.500 s", id)
	}
	if shown := p.run(t, "report", "show", "d1", "--format", "json").must(t, 0).object(t); shown["drillId"] != "d1" {
		t.Errorf("report %v", shown)
	}
	contains(t, "page", p.run(t, "report", "show", "d1", "--format", "html").must(t, 0).stdout, "<!DOCTYPE html>", "drill of orders", "</html>")
	contains(t, "stderr", p.run(t, "report", "show", "d1", "--format", "html", "--json").must(t, 2).stderr, "contradict")
	contains(t, "stderr", p.run(t, "report", "show", "d2").must(t, 1).stderr, "no report d2", "hint: ")

	// When the server is gone, the exposure is still bounded; it rises.
	p.Stop(t)
	defer p.Start(t)
	first := p.statusOf(t)["exposureSeconds"].(float64)
	if second := p.statusOf(t)["exposureSeconds"].(float64); first <= 0 || second <= first {
		t.Errorf("exposure %v, then %v, while the server is down", first, second)
	}
}
