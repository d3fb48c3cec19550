package contract

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWorst(t *testing.T) {
	for _, c := range []struct {
		parts []Verdict
		want  Verdict
	}{
		{nil, CouldNotVerify},
		{[]Verdict{Pass}, Pass},
		{[]Verdict{Pass, Pass}, Pass},
		{[]Verdict{Pass, Skipped}, Pass},
		{[]Verdict{Skipped}, CouldNotVerify},
		{[]Verdict{Skipped, Skipped}, CouldNotVerify},
		{[]Verdict{Fail}, Fail},
		{[]Verdict{Pass, Fail}, Fail},
		{[]Verdict{CouldNotVerify, Fail}, Fail},
		{[]Verdict{Fail, Skipped}, Fail},
		{[]Verdict{CouldNotVerify}, CouldNotVerify},
		{[]Verdict{CouldNotVerify, Skipped}, CouldNotVerify},
		{[]Verdict{Pass, CouldNotVerify}, Partial},
		{[]Verdict{Pass, Partial}, Partial},
		{[]Verdict{Partial}, CouldNotVerify},
		{[]Verdict{Pass, ""}, Partial},
		{[]Verdict{Pass, "pass"}, Partial}, // an unknown word is never green
	} {
		if got := Worst(c.parts...); got != c.want {
			t.Errorf("%v is %s, want %s", c.parts, got, c.want)
		}
		slices.Reverse(c.parts)
		if got := Worst(c.parts...); got != c.want {
			t.Errorf("%v is %s, want %s", c.parts, got, c.want)
		}
	}
}

// invalid checks that an input is accepted (part is "") or refused with a message that contains part.
func invalid(t *testing.T, name string, err error, part string) {
	t.Helper()
	switch {
	case part == "" && err != nil:
		t.Errorf("%s is refused: %v", name, err)
	case part != "" && err == nil:
		t.Errorf("%s is accepted", name)
	case part != "" && !strings.Contains(err.Error(), part):
		t.Errorf("%s: error is %q, want %q in it", name, err, part)
	}
}

func TestTarget_Validate(t *testing.T) {
	for _, c := range []struct {
		target Target
		part   string
	}{
		{Target{}, ""},
		{Target{Kind: "latest"}, ""},
		{Target{Kind: "immediate"}, ""},
		{Target{Kind: "time", Value: "2026-11-23T07:45:00Z"}, ""},
		{Target{Kind: "time", Value: "5 minutes ago"}, ""},
		{Target{Kind: "lsn", Value: "0/3000028"}, ""},
		{Target{Kind: "xid", Value: "7"}, ""},
		{Target{Kind: "name", Value: "before"}, ""},
		{Target{Value: "2026-11-23T07:45:00Z"}, "takes no value"},
		{Target{Kind: "latest", Value: "1"}, "takes no value"},
		{Target{Kind: "immediate", Value: "1"}, "takes no value"},
		{Target{Kind: "time"}, "write it as"},
		{Target{Kind: "time", Value: "2026-11-23T07:45:00"}, "no zone"},
		{Target{Kind: "lsn"}, "needs a value"},
		{Target{Kind: "xid"}, "needs a value"},
		{Target{Kind: "name"}, "needs a value"},
		{Target{Kind: "Time", Value: "2026-11-23T07:45:00Z"}, "use time, lsn"},
		{Target{Kind: "now"}, "use time, lsn"},
	} {
		invalid(t, fmt.Sprintf("%+v", c.target), c.target.Validate(), c.part)
	}
}

func TestInputs_Validate(t *testing.T) {
	backup := func(in BackupInput) error { return in.Validate() }
	invalid(t, "backup", backup(BackupInput{Cluster: "c"}), "")
	invalid(t, "full backup", backup(BackupInput{Cluster: "c", Type: TypeFull}), "")
	invalid(t, "backup of nothing", backup(BackupInput{}), `"cluster" is required`)
	invalid(t, "incremental backup", backup(BackupInput{Cluster: "c", Type: TypeIncremental}), "")
	invalid(t, "logical backup", backup(BackupInput{Cluster: "c", Type: TypeLogical}), "not available")
	invalid(t, "logical backup", backup(BackupInput{Cluster: "c", Type: TypeLogical}), "not available")
	invalid(t, "backup of another kind", backup(BackupInput{Cluster: "c", Type: "Full"}), `"type"`)

	restore := func(change func(*RestoreInput)) error {
		in := RestoreInput{Cluster: "c", TargetDir: "/x", Host: "h"}
		change(&in)
		return in.Validate()
	}
	for _, c := range []struct {
		name   string
		change func(*RestoreInput)
		part   string
	}{
		{"restore", func(*RestoreInput) {}, ""},
		{"started restore", func(in *RestoreInput) { in.Start, in.Port, in.Action = true, 5433, "pause" }, ""},
		{"no cluster", func(in *RestoreInput) { in.Cluster = "" }, `"cluster"`},
		{"no directory", func(in *RestoreInput) { in.TargetDir = "" }, `"targetDir"`},
		{"relative directory", func(in *RestoreInput) { in.TargetDir = "x" }, `"targetDir"`},
		{"no host", func(in *RestoreInput) { in.Host = "" }, `"host"`},
		{"negative port", func(in *RestoreInput) { in.Start, in.Port = true, -1 }, `"port"`},
		{"impossible port", func(in *RestoreInput) { in.Start, in.Port = true, 65536 }, `"port"`},
		{"port without a server", func(in *RestoreInput) { in.Port = 5433 }, `"start": true`},
		{"unknown action", func(in *RestoreInput) { in.Action = "run" }, `"action"`},
		{"bad target", func(in *RestoreInput) { in.Target.Kind = "x" }, "target kind"},
	} {
		invalid(t, c.name, restore(c.change), c.part)
	}

	for _, c := range []struct {
		name string
		in   DrillInput
		part string
	}{
		{"drill", DrillInput{Cluster: "c"}, ""},
		{"drill with all", DrillInput{
			Cluster: "c", Scenario: ScenarioRestore, DisasterAt: "5 minutes ago",
			Target: Target{Kind: "latest"}, Checks: []SQLCheck{{Name: "n", SQL: "select 1", Expect: "1"}},
		}, ""},
		{"no cluster", DrillInput{}, `"cluster"`},
		{"unknown scenario", DrillInput{Cluster: "c", Scenario: "flood"}, "scenario"},
		{"disaster without a zone", DrillInput{Cluster: "c", DisasterAt: "2026-11-23T07:45:00"}, `"disasterAt"`},
		{"check without a name", DrillInput{Cluster: "c", Checks: []SQLCheck{{SQL: "select 1"}}}, "check 1"},
		{"check without sql", DrillInput{Cluster: "c", Checks: []SQLCheck{{Name: "a", SQL: "b"}, {Name: "n"}}}, "check 2"},
		{"bad target", DrillInput{Cluster: "c", Target: Target{Kind: "time"}}, "write it as"},
	} {
		invalid(t, c.name, c.in.Validate(), c.part)
	}
}

func TestObjectiveChecks(t *testing.T) {
	number := func(f float64) *float64 { return &f }
	for _, c := range []struct {
		name           string
		reached        bool
		rtoTarget, rto float64
		rpoTarget      float64
		rpo            *float64
		want           string
	}{
		{"within", true, 10, 9.9, 5, number(5), "rto=PASS rpo=PASS"},
		{"too slow", true, 10, 10.1, 5, number(0), "rto=FAIL rpo=PASS"},
		{"too much lost", true, 10, 1, 5, number(5.001), "rto=PASS rpo=FAIL"},
		{"no objectives", true, 0, 1, 0, number(1), ""},
		{"only an rto", true, 10, 1, 0, number(1), "rto=PASS"},
		{"loss not measured", true, 10, 1, 5, nil, "rto=PASS rpo=COULD_NOT_VERIFY"},
		{"loss neither measured nor bounded", true, 0, 1, 0, nil, ""},
		{"nothing came back", false, 10, 1, 5, number(1), ""},
	} {
		r := Report{DrillResult: DrillResult{
			RTO: RTO{Target: c.rtoTarget, Measured: c.rto}, RPO: RPO{Target: c.rpoTarget, Measured: c.rpo},
		}}
		if c.reached {
			r.Reached = &Reached{}
		}
		var got []string
		for _, check := range ObjectiveChecks(&r) {
			got = append(got, check.ID+"="+string(check.Verdict))
			if check.Expected == "" || check.Observed == "" {
				t.Errorf("%s: %+v says too little", c.name, check)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

// fields lists the JSON names of a value's object, in order.
func fields(t *testing.T, v any, inside ...string) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range inside {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatal(err)
		}
		data = object[name]
		var list []json.RawMessage
		if json.Unmarshal(data, &list) == nil && len(list) > 0 {
			data = list[0]
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	_, _ = dec.Token()
	var names []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprint(name))
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(names, ",")
}

// TestResults_HaveTheFieldsOfTheInterface holds the lists of the interface (section JSON): scripts read these names.
// More names may follow those of the list.
func TestResults_HaveTheFieldsOfTheInterface(t *testing.T) {
	const backup = "cluster,backupId,type,parentId,systemIdentifier,postgresVersion,timeline,startLsn,stopLsn,startedAt,finishedAt," +
		"sourceBytes,changedBytes,storedBytes,chunks,newChunks,files,corruptPages,unsurePages,seconds,workflowId"
	now := start
	reached := &Reached{Time: &now, LastCommitAt: &now}
	restore := RestoreResult{Target: Target{Kind: "time", Value: "v"}, Reached: reached, Plan: json.RawMessage("{}")}
	drill := DrillResult{Checks: []CheckResult{{}}}
	list := BackupList{Backups: []ListedBackup{{Verified: &Verified{}}}}
	status := WALStatus{Timelines: []TimelineStatus{{Gaps: []Gap{{}}}}}
	for _, c := range []struct {
		name string
		got  string
		want string
	}{
		{"backup", fields(t, BackupResult{}), backup},
		{"backups", fields(t, list), "cluster,backups"},
		{"backups[]", fields(t, list, "backups"), backup + ",verified"},
		{"backups[].verified", fields(t, list, "backups", "verified"), "level,verdict,at"},
		{"restore", fields(t, restore), "cluster,backupId,targetDir,target,reached,plan,bytes,reusedBytes,walSegments,spans,seconds,workflowId"},
		{"restore.target", fields(t, restore, "target"), "kind,value"},
		{"restore.reached", fields(t, restore, "reached"), "lsn,time,timeline,lastCommitAt"},
		{"restore.spans", fields(t, restore, "spans"), "fetch,replay,start,check"},
		{"drill", fields(t, drill), "drillId,cluster,scenario,verdict,level,checks,rto,rpo,report,workflowId"},
		{"drill.checks[]", fields(t, drill, "checks"), "id,level,verdict,expected,observed,seconds"},
		{"drill.rto", fields(t, drill, "rto"), "target,measured,predicted,spans"},
		{"drill.rpo", fields(t, drill, "rpo"), "target,measured"},
		{"wal-status", fields(t, status), "cluster,timelines,exposureSeconds,archiveLagBytes"},
		{"wal-status.timelines[]", fields(t, status, "timelines"), "timeline,frontierLsn,firstSegment,lastSegment,gaps"},
		{"wal-status.timelines[].gaps[]", fields(t, status, "timelines", "gaps"), "from,to"},
	} {
		if c.got != c.want {
			t.Errorf("%s has the fields\n%s, the interface has\n%s", c.name, c.got, c.want)
		}
	}
}

// A report is a drill's result and more: its fields must not hide each other.
func TestReport_IsADrillResultAndMore(t *testing.T) {
	got := fields(t, Report{DrillResult: DrillResult{Checks: []CheckResult{}}})
	want := "format," + fields(t, DrillResult{Checks: []CheckResult{}})
	if !strings.HasPrefix(got, want+",") {
		t.Errorf("a report has %s, want it to begin with %s", got, want)
	}
	r := Report{DrillResult: DrillResult{DrillID: "d", Checks: []CheckResult{}}, BackupID: "b", Plan: json.RawMessage(`{"hash":"h"}`)}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode[Report](data)
	if err != nil || back.DrillID != "d" || back.BackupID != "b" || string(back.Plan) != `{"hash":"h"}` {
		t.Errorf("%s came back as %+v, %v", data, back, err)
	}
}
