package recovery

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

const mib = 1 << 20

// inventory is one of 1 MiB segments: names a timeline's runs.
func inventory(timelines map[pg.Timeline][][2]uint64) *wal.Inventory {
	inv := &wal.Inventory{Cluster: "c", SegmentSize: mib, Histories: map[pg.Timeline]pg.History{}}
	for tli := pg.Timeline(1); tli < 9; tli++ {
		if runs, ok := timelines[tli]; ok {
			line := wal.Timeline{Timeline: tli}
			for _, r := range runs {
				line.Runs = append(line.Runs, wal.Run{First: r[0], Last: r[1]})
			}
			inv.Timelines = append(inv.Timelines, line)
		}
	}
	return inv
}

func TestWALPath_FollowsOneHistoryOnly(t *testing.T) {
	inside := pg.History{Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, SwitchLSN: 5*mib + 100}}}
	edge := pg.History{Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, SwitchLSN: 5 * mib}}}
	tests := []struct {
		name      string
		history   pg.History
		timelines map[pg.Timeline][][2]uint64
		end       uint64
		files     map[uint64]pg.Timeline
		gap       bool
	}{
		{"one timeline", pg.History{Timeline: 1}, map[pg.Timeline][][2]uint64{1: {{2, 9}}}, 10, map[uint64]pg.Timeline{3: 1, 9: 1}, false},
		{"a gap", pg.History{Timeline: 1}, map[pg.Timeline][][2]uint64{1: {{2, 4}, {6, 9}}}, 5, nil, true},
		{"the start is missing", pg.History{Timeline: 1}, map[pg.Timeline][][2]uint64{1: {{4, 9}}}, 3, nil, true},
		{"the child's copy of the segment of the switch", inside, map[pg.Timeline][][2]uint64{1: {{2, 5}}, 2: {{5, 7}}}, 8, map[uint64]pg.Timeline{4: 1, 5: 2, 7: 2}, false},
		{"the parent went on and the child has not archived", inside, map[pg.Timeline][][2]uint64{1: {{2, 9}}}, 5, map[uint64]pg.Timeline{4: 1}, false},
		{"the parent went on beyond what the child archived", inside, map[pg.Timeline][][2]uint64{1: {{2, 9}}, 2: {{5, 6}}}, 7, map[uint64]pg.Timeline{5: 2, 6: 2}, false},
		{"the child's first segment is missing", inside, map[pg.Timeline][][2]uint64{1: {{2, 9}}, 2: {{6, 7}}}, 5, nil, true},
		{"a switch between two segments", edge, map[pg.Timeline][][2]uint64{1: {{2, 4}}, 2: {{5, 7}}}, 8, map[uint64]pg.Timeline{4: 1, 5: 2}, false},
		{"a switch between two segments, the parent went on", edge, map[pg.Timeline][][2]uint64{1: {{2, 9}}}, 5, map[uint64]pg.Timeline{4: 1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newWALPath(nil, inventory(tt.timelines), tt.history, 3*mib+8, nil)
			if p.end != tt.end || p.frontier != pg.LSN(tt.end*mib) {
				t.Errorf("end %d, frontier %v, want %d", p.end, p.frontier, tt.end)
			}
			for n, want := range tt.files {
				if seg, ok := p.file(n); !ok || seg.Timeline != want {
					t.Errorf("segment %d is taken from timeline %d (%v), want %d", n, seg.Timeline, ok, want)
				}
			}
			if p.gap() != tt.gap {
				t.Errorf("gap %v, want %v", p.gap(), tt.gap)
			}
		})
	}
}

func TestNeededFiles_NamesRangesOfEachTimeline(t *testing.T) {
	h := pg.History{Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, SwitchLSN: 5*mib + 100}}}
	p := newWALPath(nil, inventory(map[pg.Timeline][][2]uint64{1: {{2, 9}}, 2: {{5, 7}}}), h, 3*mib+8, nil)
	const want = "000000010000000000000003..000000010000000000000004,000000020000000000000005..000000020000000000000006"
	if got := neededFiles(p, 6).String(); got != want {
		t.Errorf("need %s, want %s", got, want)
	}
	if got, err := wal.ParseNeed(want); err != nil || !got.Has("000000020000000000000006") || got.Has("000000010000000000000005") {
		t.Errorf("parsed %v, %v", got, err)
	}
}

func TestForkOf(t *testing.T) {
	h := func(tli pg.Timeline, entries ...pg.HistoryEntry) pg.History {
		return pg.History{Timeline: tli, Entries: entries}
	}
	one := h(1)
	two := h(2, pg.HistoryEntry{Timeline: 1, SwitchLSN: 50})
	three := h(3, pg.HistoryEntry{Timeline: 1, SwitchLSN: 50}, pg.HistoryEntry{Timeline: 2, SwitchLSN: 70})
	sibling := h(4, pg.HistoryEntry{Timeline: 1, SwitchLSN: 30})
	for _, tt := range []struct {
		name string
		a, b pg.History
		want pg.LSN
	}{
		{"parent", two, one, 50},
		{"grandparent", three, one, 50},
		{"parent of the third", three, two, 70},
		{"sibling", three, sibling, 30},
		{"strangers", two, h(7, pg.HistoryEntry{Timeline: 6, SwitchLSN: 10}), 0},
	} {
		if got := forkOf(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got := forkOf(tt.b, tt.a); got != tt.want {
			t.Errorf("%s, turned: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTarget_Parse(t *testing.T) {
	for _, tt := range []struct {
		in    Target
		value string // of the understood target
		err   string
	}{
		{in: Target{}},
		{in: Target{Kind: Immediate}},
		{in: Target{Kind: Time, Value: "2026-11-23T08:45:00.1234569+01:00"}, value: "2026-11-23T07:45:00.123456Z"},
		{in: Target{Kind: Time, Value: "2026-11-23T07:45:00Z", Exclusive: true}, value: "2026-11-23T07:45:00Z"},
		{in: Target{Kind: Time, Value: "2026-11-23T07:45:00"}, err: "with a zone"},
		{in: Target{Kind: Time, Value: "yesterday"}, err: "with a zone"},
		{in: Target{Kind: LSN, Value: "0/3a000028"}, value: "0/3A000028"},
		{in: Target{Kind: LSN, Value: "3000028"}, err: "slash"},
		{in: Target{Kind: XID, Value: "0777"}, value: "777"},
		{in: Target{Kind: XID, Value: "2"}, err: "3 or more"},
		{in: Target{Kind: XID, Value: "4294967296"}, err: "3 or more"},
		{in: Target{Kind: Name, Value: "before '\\ upgrade"}, value: "before '\\ upgrade"},
		{in: Target{Kind: Name}, err: "1 to 63"},
		{in: Target{Kind: Name, Value: strings.Repeat("x", 64)}, err: "1 to 63"},
		{in: Target{Kind: Name, Value: "x", Exclusive: true}, err: "exclusive"},
		{in: Target{Kind: Latest, Exclusive: true}, err: "exclusive"},
		{in: Target{Exclusive: true}, err: "exclusive"},
		{in: Target{Kind: Immediate, Exclusive: true}, err: "exclusive"},
		{in: Target{Kind: Latest, Value: "now"}, err: "no value"},
		{in: Target{Kind: "tomorrow"}, err: "use time, lsn"},
	} {
		g, err := tt.in.parse()
		switch {
		case tt.err == "" && (err != nil || g.Value != tt.value):
			t.Errorf("%+v: %q, %v, want %q", tt.in, g.Value, err, tt.value)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%+v: error %v, want one with %q", tt.in, err, tt.err)
		}
	}
}

func samplePlan() *Plan {
	at := pg.TimestampOf(time.Date(2026, 11, 23, 7, 45, 0, 123456000, time.UTC))
	p := &Plan{
		Format: 1, Cluster: "main", Repository: "file:///backups", TargetDir: "/restore/main",
		BackupID: "20261123T070000Z-full-abcdef", BackupFinishedAt: time.Date(2026, 11, 23, 7, 1, 2, 345, time.UTC),
		SystemID: 7400000000000000001, PostgresMajor: 17, Superuser: "postgres", StartLSN: 0x3000028, StopLSN: 0x3000120,
		Target: Target{Kind: Time, Value: "2026-11-23T07:45:00.123456Z"}, Timeline: 2, Action: Promote,
		Stop: Stop{
			ReplayedTo: 0x5000100, At: 0x5000100, NeedTo: 0x5000200, LastTime: &at,
			LastCommit: &Transaction{Time: at, LSN: 0x50000c0, XID: 777}, FirstLost: &Transaction{Time: at + 1, LSN: 0x5000100, XID: 778},
		},
		Need: "000000010000000000000003..000000010000000000000005", WALSegments: 3, WALBytes: 48 << 20, Frontier: 0x9000000,
		Files: 1000, Bytes: 1 << 30, Settings: map[string]int32{"max_connections": 100, "max_worker_processes": 8},
		Warnings: []string{"look twice"},
	}
	p.Hash = p.hash()
	return p
}

func TestPlan_HashNamesWhatIsDone(t *testing.T) {
	p := samplePlan()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(data, &back); err != nil || back.Check() != nil {
		t.Fatalf("a plan that was carried as JSON: %v, %v", err, back.Check())
	}
	// The hash is part of directories and approvals: a change of the format must be seen.
	if want := "04312de7de557d35ca62a574b56e67fcbfb1f03e6fba0b92cd230a0f6bf654ca"; p.Hash != want {
		t.Errorf("hash %s, want %s", p.Hash, want)
	}
	grown := *p
	grown.Frontier += 16 << 20
	if grown.hash() != p.Hash {
		t.Error("the hash changes when more WAL is archived, which changes nothing that the plan does")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for name, raw := range fields {
		if name == "hash" || name == "frontier" {
			continue
		}
		changed := map[string]json.RawMessage{}
		for k, v := range fields {
			changed[k] = v
		}
		changed[name] = tamper(raw)
		data, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		var bad Plan
		if json.Unmarshal(data, &bad) == nil && bad.Check() == nil {
			t.Errorf("a changed %s passes", name)
		}
	}
	empty := *p
	empty.Hash = ""
	if empty.Check() == nil {
		t.Error("a plan without a hash passes")
	}
}

// tamper makes another value of the same shape.
func tamper(raw json.RawMessage) json.RawMessage {
	for _, swap := range [][2]string{{"1", "2"}, {"0", "1"}, {"7", "8"}, {"main", "mine"}, {"promote", "pause"}, {"postgres", "someone"}, {"look", "Look"}} {
		if s := strings.Replace(string(raw), swap[0], swap[1], 1); s != string(raw) {
			return json.RawMessage(s)
		}
	}
	return json.RawMessage(`null`)
}

func TestPlan_SummaryGolden(t *testing.T) {
	p := samplePlan()
	want := `restore main to time 2026-11-23T07:45:00.123456Z, from backup 20261123T070000Z-full-abcdef (finished 2026-11-23T07:01:02Z)
into /restore/main: 1000 entries, 1073741824 bytes
replay 3 WAL segments (50331648 bytes) on timeline 2, from 0/3000028 to 0/5000100, then promote
last transaction kept: xid 777, committed 2026-11-23T07:45:00.123456Z
first transaction lost: xid 778, committed 2026-11-23T07:45:00.123457Z
warning: look twice
plan hash ` + p.Hash + "\n"
	if got := p.Summary(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestPlan_ServerConfigGolden(t *testing.T) {
	p := samplePlan()
	p.Cluster, p.Hash = "o'clock 100%", "h"
	got := p.serverConfig([]string{"/opt/life boat's/lifeboat", "--repository", "file:///back\\ups/50%\nx"})
	want := `# Laid by Lifeboat: cluster o'clock 100%, backup 20261123T070000Z-full-abcdef, plan h.
# A minimal configuration that starts. The source's own stands beside it: postgresql.conf.lifeboat-source

# This server is nobody's successor: it does not archive, connect out, or run jobs.
listen_addresses = '127.0.0.1'
archive_mode = 'off'
primary_conninfo = ''
max_logical_replication_workers = '0'
shared_preload_libraries = ''
session_preload_libraries = ''

# At least what the WAL asks for.
hot_standby = 'on'
max_connections = '100'
max_worker_processes = '8'

# Recovery, by the plan.
restore_command = '''/opt/life boat''\\''''s/lifeboat'' ''--repository'' ''file:///back\\ups/50%%\nx'' wal-fetch %f "%p" --cluster ''o''\\''''clock 100%%'' --need ''000000010000000000000003..000000010000000000000005'''
recovery_target_timeline = '2'
recovery_target_action = 'promote'
recovery_target_time = '2026-11-23 07:45:00.123456+00'
recovery_target_inclusive = 'on'
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, tt := range []struct {
		target Target
		want   string
	}{
		{Target{Kind: Immediate}, "recovery_target = 'immediate'"},
		{Target{Kind: Name, Value: `it's a \ point`}, `recovery_target_name = 'it''s a \\ point'`},
		{Target{Kind: LSN, Value: "0/5", Exclusive: true}, "recovery_target_lsn = '0/5'\nrecovery_target_inclusive = 'off'"},
		{Target{Kind: Latest}, "recovery_target_lsn = '0/5000100'\nrecovery_target_inclusive = 'on'"},
	} {
		p.Target = tt.target
		if got := p.serverConfig(nil); !strings.Contains(got, tt.want) || strings.Contains(got, "recovery_target_time =") {
			t.Errorf("%v: no %s in\n%s", tt.target, tt.want, got)
		}
	}
}

func TestPlan_AssertComparesPlaceAndTime(t *testing.T) {
	p := samplePlan()
	at := p.Stop.LastTime.Time()
	tests := []struct {
		name string
		lsn  pg.LSN
		at   time.Time
		ok   bool
	}{
		{"the same", 0x5000100, at, true},
		{"no transaction replayed since a restart", 0x5000100, time.Time{}, true},
		{"a record more", 0x5000140, at, false},
		{"a record less", 0x50000c0, at, false},
		{"another transaction", 0x5000100, at.Add(time.Microsecond), false},
	}
	for _, tt := range tests {
		err := p.assert(Reached{LSN: tt.lsn, LastCommitAt: tt.at})
		if asserted := (*AssertionError)(nil); (err == nil) != tt.ok || err != nil && !errors.As(err, &asserted) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, tt := range []struct {
		a, b pg.LSN
		same bool
	}{
		{0x2000, 0x2000, true},
		{0x2000, 0x2018, true},
		{0x2018, 0x2000, true},
		{0x1000000, 0x1000028, true},
		{0x2000, 0x2030, false},
		{0x2008, 0x2020, false},
		{0x2018, 0x2030, false},
	} {
		if samePlace(tt.a, tt.b) != tt.same {
			t.Errorf("%v and %v: %v", tt.a, tt.b, !tt.same)
		}
	}
}

func TestConsider_TablespacesAndSettingsOfReplayedRecordsOnly(t *testing.T) {
	here := t.TempDir()
	create := func(lsn pg.LSN, path string) *walrecord.Event {
		return &walrecord.Event{LSN: lsn, Tablespace: &walrecord.TablespaceCreation{LSN: lsn, Path: path}}
	}
	tests := []struct {
		name string
		ev   *walrecord.Event
		want string
	}{
		{"before the backup", create(0x3000000, here), ""},
		{"replayed, its path is here", create(0x4000000, here), "exists on this host"},
		{"replayed, its path is not here", create(0x4000000, here+"/no"), "does not exist on this host"},
		{"the last replayed record", create(0x50000c0, here), "exists on this host"},
		{"not replayed", create(0x5000100, here), ""},
		{"in place", create(0x4000000, ""), ""},
		{"not UTF-8", &walrecord.Event{LSN: 0x4000000, Tablespace: &walrecord.TablespaceCreation{Path: "?", PathRaw: []byte(here)}}, "exists on this host"},
	}
	for _, tt := range tests {
		err := samplePlan().consider(tt.ev, &mapping{})
		var refused *RefusedError
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	p := samplePlan()
	for lsn, n := range map[pg.LSN]int32{0x3000000: 900, 0x4000000: 300, 0x4000100: 200, 0x5000100: 800} {
		if err := p.consider(&walrecord.Event{LSN: lsn, ParameterChange: &walrecord.ParameterChange{MaxConnections: n}}, &mapping{}); err != nil {
			t.Fatal(err)
		}
	}
	if p.Settings["max_connections"] != 300 || p.Settings["max_worker_processes"] != 8 {
		t.Errorf("settings %v", p.Settings)
	}
}

func TestSplitTablespace(t *testing.T) {
	for path, want := range map[string]string{
		"pg_tblspc": "", "pg_tblspc/16384": "16384|", "pg_tblspc/16384/PG_15/1/2": "16384|/PG_15/1/2",
		"pg_tblspc/note": "", "pg_tblspc/12x/y": "", "base/pg_tblspc/1": "",
	} {
		oid, rest, ok := splitTablespace(path)
		if got := oid + "|" + rest; ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
}
