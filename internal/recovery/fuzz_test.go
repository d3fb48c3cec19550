package recovery

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"lifeboat/internal/pg"
)

// somePlan is a plan in which everything is set.
func somePlan() *Plan {
	at := pg.TimestampOf(time.Date(2026, 11, 23, 7, 45, 0, 123456000, time.UTC))
	p := &Plan{
		Format: 1, Cluster: "orders", Repository: "file:///r", TargetDir: "/var/lib/x", BackupID: "20261123T074501Z-full-1f3a9c",
		BackupFinishedAt: time.Date(2026, 11, 23, 7, 46, 1, 5, time.UTC), SystemID: 7_500_000_000_000_000_001, PostgresMajor: 17,
		Superuser: "postgres", StartLSN: 0x2000028, StopLSN: 0x2000120, Target: Target{Kind: Time, Value: "2026-11-23T07:45:00.123456Z", Exclusive: true},
		Timeline: 2, Action: Promote, Need: "0000", WALSegments: 3, WALBytes: 3 << 24, Frontier: 0x5000000, Gap: "000000010000000000000007",
		Files: 1000, Bytes: 1 << 30, Settings: map[string]int32{"max_connections": 100, "max_wal_senders": 10},
		Tablespaces:        []Tablespace{{OID: 16385, Source: "/a", Place: "/b", Replayed: true}, {OID: 16386, Source: "/c", Place: "/d", InPlace: true}},
		InPlaceTablespaces: true, Delta: true, DiscardWAL: true, Warnings: []string{"a < b"},
		Stop: Stop{ReplayedTo: 0x4000000, At: 0x4000000, NeedTo: 0x4000100, LastCommit: &Transaction{XID: 750, Time: at}, LastTime: &at},
	}
	p.Hash = p.hash()
	return p
}

// FuzzPlan reads hostile bytes as a plan. Only what was made is accepted: a hash is not forged by chance, so it is one of
// the seeds. And whatever can be read keeps its hash when it is written and read again: attempts are bound to it.
func FuzzPlan(f *testing.F) {
	known := map[string]*Plan{}
	latest := &Plan{Format: 1, Cluster: "c", Target: Target{Kind: Latest}, Action: Pause}
	latest.Hash = latest.hash()
	for _, p := range []*Plan{somePlan(), latest} {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		known[p.Hash] = p
		f.Add(data)
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(data, &fields); err != nil {
			f.Fatal(err)
		}
		for name, value := range fields { // each part of the plan is lost alone
			delete(fields, name)
			less, err := json.Marshal(fields)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(less)
			fields[name] = value
		}
	}
	f.Add([]byte(`{"format":1,"hash":""}`))
	f.Add([]byte(`{"format":1,"backupFinishedAt":"2026-11-23T07:46:01+23:59","settings":{},"tablespaces":[],"stop":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readPlan(data)
		if err != nil {
			return
		}
		_ = p.Summary()
		if p.Check() == nil {
			made, ok := known[p.Hash]
			if !ok {
				t.Fatalf("accepted %+v", p)
			}
			want := *made
			want.Frontier = p.Frontier // the one thing that the hash leaves out
			if !reflect.DeepEqual(*p, want) {
				t.Fatalf("accepted %+v", p)
			}
		}
		p.Format, p.Hash = 1, ""
		if p.Hash = p.hash(); p.Hash == "" {
			t.Fatalf("a plan that was read has no hash: %+v", p)
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readPlan(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if err := again.Check(); err != nil {
			t.Fatalf("%s, then %+v: %v", out, again, err)
		}
	})
}

func readPlan(data []byte) (*Plan, error) {
	var p Plan
	return &p, json.Unmarshal(data, &p)
}

// FuzzTarget reads hostile targets. What is accepted is understood again as the same from its text in the plan.
func FuzzTarget(f *testing.F) {
	f.Add("time", "2026-11-23T07:45:00.123456789+05:30", true)
	f.Add("time", "9999-12-31T23:59:59-01:00", false)
	f.Add("time", "0000-01-01T00:00:00+01:00", false)
	f.Add("lsn", "0/3000028", true)
	f.Add("xid", "750", false)
	f.Add("name", "before the migration", false)
	f.Add("latest", "", false)
	f.Add("", "", false)
	f.Fuzz(func(t *testing.T, kind, value string, exclusive bool) {
		g, err := Target{Kind: Kind(kind), Value: value, Exclusive: exclusive}.parse()
		if err != nil {
			return
		}
		again, err := g.Target.parse()
		if err != nil || !reflect.DeepEqual(again, g) {
			t.Fatalf("%+v, then %+v, %v", g, again, err)
		}
		if g.Kind == Time && pg.TimestampOf(g.time).Time() != g.time {
			t.Fatalf("%v is not a time that PostgreSQL counts", g.time)
		}
	})
}
