package health

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// sound is a snapshot in which nothing is wrong.
func sound() *Snapshot {
	return &Snapshot{
		At: noon, Cluster: "orders", ConfigFile: "/etc/lifeboat.yaml", RPO: 15 * time.Minute,
		Server: &Server{
			VersionNum: 170005, Version: "17.5", WALLevel: "replica", ArchiveMode: "on", ArchiveTimeout: 60,
			ArchiveCommand: "lifeboat wal-push %p --cluster orders", Checksums: true, FSync: true, FullPageWrites: true,
			SystemID: "7", LSN: "0/3000060", SlotKeepMB: -1,
		},
		Queue: to(int64(0)), Databases: []Database{{"shop", 200_000_000, 0, 200_000_000, 400_000_000}},
		Slots:      []Slot{{Name: "standby1", Kind: "physical", Active: true, Status: "reserved", Retained: 2 << 30}},
		Standbys:   []Standby{{Name: "standby1", State: "streaming", Sync: "sync"}},
		SyncNames:  "standby1",
		Disks:      []Disk{{"repository", "/r", 400 << 30, 1 << 40}, {"data directory", "/d", 11 << 30, 100 << 30}},
		Repository: Repository{Name: "file:///r", Identity: &repo.Identity{SystemID: 7}},
		Exposure:   to(60.0),
		Backups:    []Backup{{ID: "b1", FinishedAt: noon.Add(-200 * time.Hour)}, {ID: "b2", FinishedAt: noon.Add(-time.Hour), Proof: &Proof{At: noon.Add(-time.Hour), Passed: true}}},
	}
}

func to[T any](v T) *T { return &v }

// TestJudge causes each finding alone, at its limit.
func TestJudge(t *testing.T) {
	day := 24 * time.Hour
	tests := map[string]struct {
		change   func(*Snapshot)
		id       string // "": nothing
		severity Severity
		says     string
	}{
		"sound":                  {func(*Snapshot) {}, "", "", ""},
		"unreachable":            {func(s *Snapshot) { s.Server, s.Unreachable = nil, &Failure{"no route", "mend it"} }, "server_unreachable", Critical, "no route"},
		"old version":            {func(s *Snapshot) { s.Server.VersionNum = 140010 }, "server_version", Critical, "14"},
		"standby":                {func(s *Snapshot) { s.Server.InRecovery = true }, "server_standby", Critical, "standby"},
		"other server":           {func(s *Snapshot) { s.Server.SystemID = "8" }, "server_identity", Critical, "identifier 8"},
		"unknown cluster":        {func(s *Snapshot) { s.Server.SystemID, s.Repository.Identity = "8", nil }, "", "", ""},
		"minimal":                {func(s *Snapshot) { s.Server.WALLevel = "minimal" }, "wal_level", Critical, "minimal"},
		"logical":                {func(s *Snapshot) { s.Server.WALLevel = "logical" }, "", "", ""},
		"no full pages":          {func(s *Snapshot) { s.Server.FullPageWrites = false }, "full_page_writes", Critical, "torn"},
		"no fsync":               {func(s *Snapshot) { s.Server.FSync = false }, "fsync", Warning, "fsync"},
		"no checksums":           {func(s *Snapshot) { s.Server.Checksums = false }, "checksums", Warning, "rot"},
		"no archiving":           {func(s *Snapshot) { s.Server.ArchiveMode, s.Server.ArchiveTimeout = "off", 0 }, "archive_mode", Critical, "off"},
		"no command":             {func(s *Snapshot) { s.Server.ArchiveCommand = "" }, "archive_command", Critical, "empty"},
		"library":                {func(s *Snapshot) { s.Server.ArchiveLibrary = "basic_archive" }, "archive_command", Warning, "basic_archive"},
		"other command":          {func(s *Snapshot) { s.Server.ArchiveCommand = "PGPASSWORD=secret cp %p /x" }, "archive_command", Warning, "does not call"},
		"other cluster":          {func(s *Snapshot) { s.Server.ArchiveCommand = "lifeboat wal-push %p --cluster shop" }, "archive_command", Warning, "does not name"},
		"no timeout":             {func(s *Snapshot) { s.Server.ArchiveTimeout = 0 }, "archive_timeout", Critical, "0s"},
		"timeout at half":        {func(s *Snapshot) { s.Server.ArchiveTimeout = 450 }, "", "", ""},
		"timeout above half":     {func(s *Snapshot) { s.Server.ArchiveTimeout = 451 }, "archive_timeout", Critical, "7m30s"},
		"unbounded slots":        {func(s *Snapshot) { s.Server.IdleSlots = 1 }, "max_slot_wal_keep_size", Warning, "1 replication slots"},
		"bounded slots":          {func(s *Snapshot) { s.Server.IdleSlots, s.Server.SlotKeepMB = 1, 64 }, "", "", ""},
		"archiver":               {func(s *Snapshot) { s.Server.LastFailed, s.Server.FailedFor = to("00000001"), to(3.0) }, "archiver", Critical, "failed 3 s ago"},
		"queue at limit":         {func(s *Snapshot) { s.Queue = to(int64(32)) }, "", "", ""},
		"queue":                  {func(s *Snapshot) { s.Queue = to(int64(33)) }, "archive_queue", Warning, "33"},
		"slot nobody reads":      {func(s *Snapshot) { s.Slots[0].Active = false }, "slot_inactive/standby1", Warning, "2.15 GB"},
		"small slot":             {func(s *Snapshot) { s.Slots[0] = Slot{Name: "x", Status: "reserved", Retained: 1 << 30} }, "", "", ""},
		"lost slot":              {func(s *Snapshot) { s.Slots[0].Active, s.Slots[0].Status = false, "lost" }, "slot_wal_status/standby1", Critical, "lost"},
		"slot about to be lost":  {func(s *Snapshot) { s.Slots[0].Status = "unreserved" }, "slot_wal_status/standby1", Warning, "next checkpoint"},
		"standby behind":         {func(s *Snapshot) { s.Standbys[0].Behind = 1<<30 + 1 }, "standby_behind/standby1", Warning, "1.07 GB"},
		"no synchronous standby": {func(s *Snapshot) { s.Standbys[0].Sync = "potential" }, "sync_standby_missing", Critical, "wait"},
		"old ids":                {func(s *Snapshot) { s.Databases[0].XIDAge = 400_000_000 }, "xid_age/shop", Warning, "400000000"},
		"very old ids":           {func(s *Snapshot) { s.Databases[0].XIDAge = 1_600_000_000 }, "xid_age/shop", Critical, "1600000000"},
		"old with a high limit":  {func(s *Snapshot) { s.Databases[0] = Database{"x", 1_000_000_000, 0, 1_500_000_000, 1} }, "xid_age/x", Warning, "1000000000"},
		"old multixacts":         {func(s *Snapshot) { s.Databases[0].MultiAge = 800_000_000 }, "multixact_age/shop", Warning, "multixact"},
		"long transaction":       {func(s *Snapshot) { s.Long = []Transaction{{Name: "42", Age: 3601}} }, "long_transaction/42", Warning, "60 min"},
		"very long transaction":  {func(s *Snapshot) { s.Long = []Transaction{{Name: "42", Age: 43201}} }, "long_transaction/42", Critical, "12.0 h"},
		"short transaction":      {func(s *Snapshot) { s.Long = []Transaction{{Name: "42", Age: 3600}} }, "", "", ""},
		"prepared":               {func(s *Snapshot) { s.Prepared = []Transaction{{Name: "two", Age: 601}} }, "prepared_transaction/two", Warning, "two"},
		"long prepared":          {func(s *Snapshot) { s.Prepared = []Transaction{{Name: "two", Age: 43201}} }, "prepared_transaction/two", Critical, "two"},
		"disk":                   {func(s *Snapshot) { s.Disks[1].Free = 9 << 30 }, "disk_space/data directory", Warning, "9.66 GB of 107"},
		"full disk":              {func(s *Snapshot) { s.Disks[1].Free = 2 << 30 }, "disk_space/data directory", Critical, "/d"},
		"large disk":             {func(s *Snapshot) { s.Disks[0].Free = 51 << 30 }, "", "", ""},
		"repository":             {func(s *Snapshot) { s.Repository.Failed = &Failure{"gone", "mount it"} }, "repository_unreachable", Critical, "gone"},
		"read-only repository":   {func(s *Snapshot) { s.Repository.Broken = &Failure{"read-only", ""} }, "repository_write", Critical, "read-only"},
		"exposure at the RPO":    {func(s *Snapshot) { s.Exposure = to(900.0) }, "", "", ""},
		"exposure":               {func(s *Snapshot) { s.Exposure = to(901.0) }, "exposure", Critical, "15 min"},
		"no backup":              {func(s *Snapshot) { s.Backups = nil }, "backup_missing", Critical, "orders"},
		"old backup":             {func(s *Snapshot) { s.At = noon.Add(36 * time.Hour) }, "backup_age", Warning, "37.0 h"},
		"very old backup":        {func(s *Snapshot) { s.Backups = s.Backups[:1]; s.Backups[0].Proof = &Proof{At: noon, Passed: true} }, "backup_age", Critical, "8.3 days"},
		"corrupt":                {func(s *Snapshot) { s.Backups[1].Corrupt = 2 }, "backup_corrupt", Critical, "2 corrupt"},
		"older one corrupt":      {func(s *Snapshot) { s.Backups[0].Corrupt = 2 }, "", "", ""},
		"failed":                 {func(s *Snapshot) { s.Backups[0].Proof = &Proof{At: noon, Failed: true} }, "verification_failed", Critical, "b1"},
		"failed, then passed":    {func(s *Snapshot) { s.Backups[0].Proof = &Proof{At: noon.Add(-day), Failed: true} }, "", "", ""},
		"never verified":         {func(s *Snapshot) { s.Backups[1].Proof = nil }, "verification_age", Warning, "ever"},
		"verified long ago":      {func(s *Snapshot) { s.Backups[1].Proof.At = noon.Add(-73 * time.Hour) }, "verification_age", Warning, "3.0 days"},
		"overdue":                {func(s *Snapshot) { s.Schedules = []ScheduleProblem{{"verify", false, "not made"}} }, "schedule_overdue/verify", Warning, "not made"},
		"drift":                  {func(s *Snapshot) { s.Schedules = []ScheduleProblem{{"verify", true, "differs"}} }, "schedule_drift/verify", Warning, "differs"},
		"young and not verified": {func(s *Snapshot) { s.Backups = s.Backups[1:]; s.Backups[0].Proof = nil }, "", "", ""},
	}
	caused := map[string]bool{}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := sound()
			tt.change(s)
			got := Judge(s, DefaultLimits())
			if tt.id == "" {
				if len(got) != 0 {
					t.Errorf("found %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].ID != tt.id || got[0].Severity != tt.severity || !strings.Contains(got[0].Evidence, tt.says) || got[0].Remedy == "" {
				t.Fatalf("found %+v, want %s, %s, %q", got, tt.id, tt.severity, tt.says)
			}
			if strings.Contains(got[0].Evidence, "secret") {
				t.Errorf("it tells a password: %s", got[0].Evidence)
			}
			r := ruleOf(got[0].Rule)
			if !slices.Contains(r.Severities, got[0].Severity) {
				t.Errorf("rule %s documents %v", r.ID, r.Severities)
			}
			caused[r.ID] = true
			s.cannotSee(Failure{"blind", ""}, r.Area)
			if got := r.Judge(s, DefaultLimits()); got != nil {
				t.Errorf("what was not looked at was judged: %+v", got)
			}
		})
	}
	for _, r := range Rules() {
		if !caused[r.ID] {
			t.Errorf("no test causes %s", r.ID)
		}
	}
}

// TestJudge_Bounded: thousands of sick databases make no result that is too large for Temporal.
func TestJudge_Bounded(t *testing.T) {
	s := sound()
	for range 1000 {
		s.Databases = append(s.Databases, Database{"x", 1 << 31, 1 << 31, 1, 1})
	}
	if n := len(Judge(s, DefaultLimits())); n != 2*maxSights {
		t.Errorf("%d findings", n)
	}
}

// TestRules: ids are unique, and each rule says all that its document needs.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules() {
		if seen[r.ID] || r.When == "" || r.Remedy == "" || len(r.Severities) == 0 || r.Open < 1 || r.Close < 1 || !slices.Contains(Areas(), r.Area) {
			t.Errorf("rule %+v", r)
		}
		seen[r.ID] = true
	}
}

// TestJudge_AnySnapshot: no snapshot makes the rules fail, and the worst comes first.
func TestJudge_AnySnapshot(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	empty := &Snapshot{}
	Judge(empty, DefaultLimits())
	for range 2000 {
		s := sound()
		s.At = noon.Add(time.Duration(rnd.Int64N(int64(1000 * time.Hour))))
		s.Server.ArchiveTimeout, s.Server.VersionNum = rnd.Int64N(1000), pgVersion(rnd)
		s.Queue, s.Exposure = to(rnd.Int64N(60)), to(rnd.Float64()*2000)
		s.Slots[0].Active, s.Slots[0].Status = rnd.IntN(2) == 0, []string{"", "reserved", "lost", "unreserved"}[rnd.IntN(4)]
		s.Databases[0].XIDAge, s.Disks[0].Free = rnd.Int64N(1<<31), rnd.Int64N(1<<40)
		rank := 0
		for _, f := range Judge(s, DefaultLimits()) {
			if f.Severity.rank() < rank || f.Remedy == "" || f.Evidence == "" || ruleOf(f.Rule) == nil || !strings.HasPrefix(f.ID, f.Rule) {
				t.Fatalf("finding %+v in %+v", f, s)
			}
			rank = f.Severity.rank()
		}
	}
}

func pgVersion(rnd *rand.Rand) int { return (pg.MinMajor - 1 + rnd.IntN(6)) * 10000 }
