package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// memoryRunner has cluster c1 with a repository in memory.
func memoryRunner(t *testing.T, change func(*Settings, *Cluster)) (*Runner, *repo.Repository, *fault.Store) {
	t.Helper()
	store := fault.New(mem.New())
	r, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	c := Cluster{RepositoryURL: "mem:", OpenRepository: func(context.Context, bool) (*repo.Repository, error) { return r, nil }}
	set := Settings{Host: "h", TaskQueue: "lifeboat", WorkDir: t.TempDir(), Lifeboat: "/bin/false", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&set, &c)
	}
	set.Clusters = map[string]Cluster{"c1": c}
	return NewRunner(set), r, store
}

func testRun() Run { return Run{WorkflowID: "w", Progress: func(contract.Progress) {}} }

// signed gives a plan the hash that this program would give it.
func signed(t *testing.T, p recovery.Plan) json.RawMessage {
	t.Helper()
	p.Format, p.Hash = 1, ""
	data, err := json.Marshal(&p)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	p.Hash = hex.EncodeToString(sum[:])
	if data, err = json.Marshal(&p); err != nil {
		t.Fatal(err)
	}
	return data
}

func refused(t *testing.T, name string, err error) {
	t.Helper()
	var refusal *recovery.RefusedError
	if !errors.As(err, &refusal) {
		t.Errorf("%s: %v, want a refusal", name, err)
	}
}

func TestDecodePlan_RefusesWhatWasChanged(t *testing.T) {
	good := signed(t, recovery.Plan{Cluster: "c1", TargetDir: "/x", BackupID: "b", Timeline: 1, Need: "n", Settings: map[string]int32{"a": 1}})
	p, err := decodePlan(good)
	if err != nil || p.Cluster != "c1" || p.TargetDir != "/x" {
		t.Fatalf("%+v, %v", p, err)
	}
	var object map[string]any
	if err := json.Unmarshal(good, &object); err != nil {
		t.Fatal(err)
	}
	for name := range object {
		changed := map[string]any{}
		for k, v := range object {
			changed[k] = v
		}
		switch v := changed[name].(type) {
		case string:
			changed[name] = v + "0"
		case float64:
			changed[name] = v + 1
		case bool:
			changed[name] = !v
		default:
			continue
		}
		if name == "backupFinishedAt" {
			changed[name] = "2026-11-23T07:45:00Z"
		}
		if name == "systemIdentifier" {
			changed[name] = "8"
		}
		if strings.HasSuffix(name, "Lsn") {
			changed[name] = "0/8"
		}
		if name == "frontier" { // moves by itself, and changes nothing that the plan does
			continue
		}
		data, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		_, err = decodePlan(data)
		refused(t, "changed "+name, err)
	}
	for _, data := range []string{"", "null", "{}", "[]", `"x"`, string(good) + "{}", string(good[:len(good)-1]), `{"format":1,"hash":""}`} {
		_, err := decodePlan(json.RawMessage(data))
		refused(t, fmt.Sprintf("%.20q", data), err)
	}
	r, _, _ := memoryRunner(t, nil)
	bad := json.RawMessage(strings.Replace(string(good), "/x", "/y", 1))
	_, err = r.LayFiles(t.Context(), contract.LayFilesInput{Plan: bad}, testRun())
	refused(t, "LayFiles", err)
	_, err = r.StartServer(t.Context(), contract.StartServerInput{Plan: bad}, testRun())
	refused(t, "StartServer", err)
	_, err = r.ProveRecovery(t.Context(), contract.ProveRecoveryInput{Cluster: "c1", Plan: bad, DrillID: "d"}, testRun())
	refused(t, "ProveRecovery", err)
}

func TestRunner_UnknownClustersAndWrongInputs(t *testing.T) {
	r, _, _ := memoryRunner(t, nil)
	plan := signed(t, recovery.Plan{Cluster: "c2", TargetDir: filepath.Join(r.set.WorkDir, "drill-d")})
	for name, err := range map[string]error{
		"TakeBackup":    second(r.TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c2"}, testRun())),
		"PlanRestore":   second(r.PlanRestore(t.Context(), contract.PlanRestoreInput{Cluster: "c2"}, testRun())),
		"LayFiles":      second(r.LayFiles(t.Context(), contract.LayFilesInput{Plan: plan}, testRun())),
		"PrepareDrill":  second(r.PrepareDrill(t.Context(), contract.PrepareDrillInput{Cluster: "c2", DrillID: "d"}, testRun())),
		"ProveRecovery": second(r.ProveRecovery(t.Context(), contract.ProveRecoveryInput{Plan: plan, DrillID: "d"}, testRun())),
		"PublishReport": second(r.PublishReport(t.Context(), contract.PublishReportInput{Report: contract.Report{DrillResult: contract.DrillResult{Cluster: "c2"}}}, testRun())),
		"Drill":         second(r.Drill(t.Context(), contract.DrillInput{Cluster: "c2"}, testRun())),
	} {
		if ErrorType(err) != contract.ErrorConfiguration || !strings.Contains(err.Error(), "c2") {
			t.Errorf("%s of an unknown cluster: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"a logical backup":      second(r.TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c1", Type: "logical"}, testRun())),
		"a time without a zone": second(r.PrepareDrill(t.Context(), contract.PrepareDrillInput{Cluster: "c1", DrillID: "d", Target: contract.Target{Kind: "time", Value: "2026-11-23"}}, testRun())),
		"another scenario":      second(r.Drill(t.Context(), contract.DrillInput{Cluster: "c1", Scenario: "flood"}, testRun())),
	} {
		if ErrorType(err) != contract.ErrorInvalidInput {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := r.PlanRestore(t.Context(), contract.PlanRestoreInput{Cluster: "c1", TargetDir: "/x/y", Target: contract.Target{Kind: "time", Value: "noon"}}, testRun())
	refused(t, "a plan to noon", err)
	nowhere, _, _ := memoryRunner(t, func(s *Settings, _ *Cluster) { s.WorkDir = "work" })
	_, err = nowhere.PrepareDrill(t.Context(), contract.PrepareDrillInput{Cluster: "c1", DrillID: "d"}, testRun())
	if ErrorType(err) != contract.ErrorConfiguration {
		t.Errorf("a relative work directory: %v", err)
	}
	unbuilt, _, _ := memoryRunner(t, func(s *Settings, _ *Cluster) { s.Lifeboat = "" })
	_, err = unbuilt.LayFiles(t.Context(), contract.LayFilesInput{Plan: signed(t, recovery.Plan{Cluster: "c1", TargetDir: "/x"})}, testRun())
	if ErrorType(err) != contract.ErrorConfiguration {
		t.Errorf("without the lifeboat program: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A drill's steps end servers and remove files: nowhere but in the drill's own place.
func TestDrillSteps_StayInTheirPlace(t *testing.T) {
	r, _, _ := memoryRunner(t, nil)
	work := r.set.WorkDir
	outside := t.TempDir()
	keep := func(dir string) string {
		t.Helper()
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, recovery.MarkerFile), []byte("{}"), 0o600),
			os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	keep(outside)
	keep(filepath.Join(work, "data"))
	keep(filepath.Join(work, "drill-other"))
	keep(filepath.Join(work, "sub", "drill-d"))
	keep(filepath.Join(outside, "drill-d"))
	if err := os.Symlink(outside, filepath.Join(work, "drill-link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, id string }{
		{outside, "d"},
		{filepath.Join(outside, "drill-d"), "d"},
		{work, "d"},
		{work, ""},
		{"", ""},
		{"/", "d"},
		{filepath.Join(work, "data"), "d"},
		{filepath.Join(work, "data"), "data"},
		{filepath.Join(work, "drill-other"), "d"},
		{filepath.Join(work, "sub", "drill-d"), "d"},
		{filepath.Join(work, "sub", "drill-d"), "../sub/drill-d"},
		{work + "/drill-d/../data", "d"},
		{work + "/drill-/../data", "/../data"},
		{"drill-d", "d"},
		{filepath.Join(work, "drill-"), ""},
		{filepath.Join(work, "drill-link"), "link"},
	} {
		_, err := r.CleanUpDrill(t.Context(), contract.CleanUpDrillInput{TargetDir: c.dir, DrillID: c.id}, testRun())
		if ErrorType(err) != contract.ErrorRefused {
			t.Errorf("removing %s of drill %q: %v", c.dir, c.id, err)
		}
		if c.id == "link" {
			continue // laying into a link is refused by Lay itself
		}
		plan := signed(t, recovery.Plan{Cluster: "c1", TargetDir: c.dir})
		if c.id != "" {
			_, err = r.LayFiles(t.Context(), contract.LayFilesInput{Plan: plan, DrillID: c.id}, testRun())
			refused(t, "laying "+c.dir, err)
		}
		_, err = r.ProveRecovery(t.Context(), contract.ProveRecoveryInput{Plan: plan, DrillID: c.id}, testRun())
		refused(t, "proving "+c.dir, err)
	}
	for _, dir := range []string{outside, filepath.Join(work, "data"), filepath.Join(work, "drill-other"), filepath.Join(work, "sub", "drill-d"), filepath.Join(outside, "drill-d")} {
		if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err != nil {
			t.Errorf("%s was touched: %v", dir, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(work, "drill-link")); err != nil {
		t.Errorf("the link was removed: %v", err)
	}
	in := contract.CleanUpDrillInput{TargetDir: filepath.Join(work, "drill-other"), DrillID: "other"}
	for _, removed := range []bool{true, false} {
		res, err := r.CleanUpDrill(t.Context(), in, testRun())
		if err != nil || res.Removed != removed {
			t.Errorf("removed %v, %v, want %v", res.Removed, err, removed)
		}
	}
	if _, err := os.Stat(in.TargetDir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the drill's directory is still there")
	}
	// What is in a drill's place, but nothing that Lifeboat made.
	foreign := filepath.Join(work, "drill-foreign")
	if err := errors.Join(os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := r.CleanUpDrill(t.Context(), contract.CleanUpDrillInput{TargetDir: foreign, DrillID: "foreign"}, testRun())
	if ErrorType(err) != contract.ErrorRefused {
		t.Errorf("a directory that Lifeboat did not make: %v", err)
	}
}

// StartServer stops what its own dead attempt left, and nothing else (R1).
func TestStartServer_TouchesNoOtherServer(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	r, _, _ := memoryRunner(t, nil)
	plan := recovery.Plan{Cluster: "c1", TargetDir: s.DataDir, PostgresMajor: s.Bin.Major, Superuser: "postgres"}
	data := signed(t, plan)
	p, err := decodePlan(data)
	if err != nil {
		t.Fatal(err)
	}
	start := func() error {
		return second(r.StartServer(t.Context(), contract.StartServerInput{Plan: data}, testRun()))
	}
	alive := func(name string) {
		t.Helper()
		if pgtest.One[int](t, s, "select 1") != 1 {
			t.Errorf("%s: the server is gone", name)
		}
	}
	refused(t, "a server of nobody's restore", start())
	alive("a server of nobody's restore")

	marker := func(hash string) {
		t.Helper()
		text := fmt.Appendf(nil, `{"planHash":%q,"cluster":"c1","backupId":"b","state":"laid"}`, hash)
		path := filepath.Join(s.DataDir, recovery.MarkerFile)
		if err := errors.Join(os.WriteFile(path, text, 0o600), pgtest.Owner(t).Chown(path)); err != nil {
			t.Fatal(err)
		}
	}
	marker("another plan")
	refused(t, "a server of another restore", start())
	alive("a server of another restore")

	marker(p.Hash)
	pid := s.Instance().PID()
	if err := recovery.Record(p, contract.StartServerResult{PID: pid + 1, Port: 1}); err != nil {
		t.Fatal(err)
	}
	refused(t, "a server that somebody started anew", start())
	alive("a server that somebody started anew")

	if err := recovery.Record(p, contract.StartServerResult{PID: pid, Port: 7}); err != nil {
		t.Fatal(err)
	}
	res, err := r.StartServer(t.Context(), contract.StartServerInput{Plan: data}, testRun())
	if err != nil || res.PID != pid || res.Port != 7 {
		t.Errorf("the server of a finished attempt: %+v, %v", res, err)
	}
	alive("the server of a finished attempt")

	// An attempt that did not finish left no record: its server is stopped.
	if err := os.Remove(filepath.Join(s.DataDir, "lifeboat.started.json")); err != nil {
		t.Fatal(err)
	}
	_, done, err := r.adopt(t.Context(), p)
	if err != nil || done {
		t.Errorf("a half-recovered server: %v, %v", done, err)
	}
	if _, err := pginstance.Attach(s.DataDir, pginstance.AttachOptions{}); !errors.Is(err, pginstance.ErrNotRunning) {
		t.Errorf("the server of the dead attempt: %v", err)
	}
}

// report is one of a drill that passed.
func report(id, backup string, at time.Time) contract.Report {
	lost := 3.0
	return contract.Report{
		Format: contract.ReportFormat, BackupID: backup, FinishedAt: at, Reached: &contract.Reached{LSN: "0/1"}, Plan: json.RawMessage("null"),
		DrillResult: contract.DrillResult{
			DrillID: id, Cluster: "c1", Scenario: "restore", Verdict: contract.Pass, Level: 7, RTO: contract.RTO{Measured: 20},
			RPO: contract.RPO{Measured: &lost}, Checks: []contract.CheckResult{{ID: "a", Level: 7, Verdict: contract.Pass}},
		},
	}
}

func TestPublishReport_HoldsTheObjectives(t *testing.T) {
	for _, c := range []struct {
		name     string
		rto, rpo time.Duration
		change   func(*contract.Report)
		verdict  contract.Verdict
		checks   int
		proof    contract.Verdict // of the backup; "" is none
	}{
		{"no objectives", 0, 0, nil, contract.Pass, 1, contract.Pass},
		{"within", 20 * time.Second, 3 * time.Second, nil, contract.Pass, 3, contract.Pass},
		{"too slow: the drill fails, the backup does not", 19 * time.Second, 0, nil, contract.Fail, 2, contract.Pass},
		{"too much lost", 0, 2 * time.Second, nil, contract.Fail, 2, contract.Pass},
		{"loss not measured", 0, time.Second, func(r *contract.Report) { r.RPO.Measured = nil }, contract.Partial, 2, contract.Pass},
		{"partial stays partial", time.Minute, time.Minute, func(r *contract.Report) { r.Verdict = contract.Partial }, contract.Partial, 3, contract.Partial},
		{
			"an objective that holds does not better a verdict", time.Minute, time.Minute,
			func(r *contract.Report) { r.Verdict = contract.CouldNotVerify }, contract.CouldNotVerify, 3, contract.CouldNotVerify,
		},
		{"a failed check", time.Minute, time.Minute, func(r *contract.Report) { r.Verdict = contract.Fail }, contract.Fail, 3, contract.Fail},
		{"nothing came back", time.Second, time.Second, func(r *contract.Report) { r.Verdict, r.Reached, r.Checks = contract.Fail, nil, nil }, contract.Fail, 0, contract.Fail},
		{
			"ended early for another reason", time.Second, time.Second,
			func(r *contract.Report) { r.Verdict, r.Reached, r.Checks = contract.CouldNotVerify, nil, nil }, contract.CouldNotVerify, 0, "",
		},
		{
			"refused before a backup was chosen", time.Second, time.Second,
			func(r *contract.Report) { r.Verdict, r.Reached, r.Checks, r.BackupID = contract.Fail, nil, nil, "" }, contract.Fail, 0, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, rp, _ := memoryRunner(t, func(_ *Settings, cl *Cluster) { cl.RTO, cl.RPO = c.rto, c.rpo })
			in := report("d1", "b1", time.Now())
			if c.change != nil {
				c.change(&in)
			}
			before := len(in.Checks)
			for range 2 { // it may be repeated
				res, err := r.PublishReport(t.Context(), contract.PublishReportInput{Report: in}, testRun())
				if err != nil {
					t.Fatal(err)
				}
				if res.Report.Verdict != c.verdict || len(res.Report.Checks) != c.checks || len(in.Checks) != before {
					t.Errorf("verdict %s and %d checks, want %s and %d", res.Report.Verdict, len(res.Report.Checks), c.verdict, c.checks)
				}
				if res.Report.RTO.Target != c.rto.Seconds() || res.Report.RPO.Target != c.rpo.Seconds() || res.Report.Report != "clusters/c1/reports/d1" {
					t.Errorf("the report is %+v", res.Report)
				}
				var stored contract.Report
				if err := rp.GetDocument(t.Context(), "c1", "reports/d1", &stored); err != nil || stored.Verdict != c.verdict || len(stored.Checks) != c.checks {
					t.Errorf("stored is %+v, %v", stored, err)
				}
			}
			verified, err := ListVerified(t.Context(), rp, "c1")
			if err != nil || verified["b1"].Verdict != c.proof {
				t.Errorf("the proof is %+v (%v), want %q", verified, err, c.proof)
			}
		})
	}
}

func TestPublishReport_NoReportWithoutAStore(t *testing.T) {
	for _, part := range []string{"reports/", "verifications/"} {
		r, _, store := memoryRunner(t, nil)
		store.Add(fault.Rule{Op: fault.Writes, Key: fault.Contains(part), Count: fault.Forever, Do: fault.Fail(nil)})
		if _, err := r.PublishReport(t.Context(), contract.PublishReportInput{Report: report("d", "b", time.Now())}, testRun()); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("failing %s: %v", part, err)
		}
	}
	r, _, store := memoryRunner(t, nil)
	in := report("../../backups/x", "b", time.Now())
	if _, err := r.PublishReport(t.Context(), contract.PublishReportInput{Report: in}, testRun()); err == nil {
		for info, err := range store.List(t.Context(), "", "") {
			t.Log(info.Key, err)
		}
		t.Error("a hostile drill id is accepted")
	}
}

func TestListVerified_TheNewestWins(t *testing.T) {
	r, rp, _ := memoryRunner(t, nil)
	verified, err := ListVerified(t.Context(), rp, "c1")
	if err != nil || len(verified) != 0 {
		t.Fatalf("%v, %v", verified, err)
	}
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		id, backup string
		at         time.Time
		level      int
	}{
		{"z", "b1", at, 1}, {"a", "b1", at.Add(time.Hour), 2}, {"m", "b1", at.Add(-time.Hour), 3}, // by time, not by name
		{"x", "b2", at, 4},
	} {
		in := report(c.id, c.backup, c.at)
		in.Level = c.level
		if _, err := r.PublishReport(t.Context(), contract.PublishReportInput{Report: in}, testRun()); err != nil {
			t.Fatal(err)
		}
	}
	if err := rp.PutDocument(t.Context(), "c1", "verifications/stray", contract.Verified{Level: 9}); err != nil {
		t.Fatal(err)
	}
	verified, err = ListVerified(t.Context(), rp, "c1")
	if err != nil || len(verified) != 2 || verified["b1"].Level != 2 || !verified["b1"].At.Equal(at.Add(time.Hour)) || verified["b2"].Level != 4 {
		t.Errorf("%+v, %v", verified, err)
	}
}

func TestBackupResult_NamesWhatTheManifestSays(t *testing.T) {
	m := &repo.Manifest{
		Cluster: "c1", BackupID: "b", Type: repo.Full, ParentID: "p", SystemID: 7, PostgresText: "15.18", Timeline: 2,
		StartLSN: 0x28, StopLSN: 0x30, SourceBytes: 1, ChangedBytes: 2, StoredBytes: 3, Chunks: 4, NewChunks: 5, Files: 6, Seconds: 7.5, WorkflowID: "w",
		PageCheck: &repo.PageCheck{Corrupt: 8, Unsure: 9},
	}
	got := BackupResult(m)
	want := contract.BackupResult{
		Cluster: "c1", BackupID: "b", Type: "full", ParentID: "p", SystemIdentifier: "7", PostgresVersion: "15.18", Timeline: 2,
		StartLSN: "0/28", StopLSN: "0/30", SourceBytes: 1, ChangedBytes: 2, StoredBytes: 3, Chunks: 4, NewChunks: 5, Files: 6, Seconds: 7.5, WorkflowID: "w",
		CorruptPages: 8, UnsurePages: 9,
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
