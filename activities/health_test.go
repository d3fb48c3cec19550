package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/contract"
	"lifeboat/internal/health"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// sick is a protected server that a test makes ill and well again, and what the last check remembers.
type sick struct {
	*pgtest.Server
	dir     string // of the repository
	set     Settings
	cluster Cluster
	rules   []fault.Rule // of the store
	push    string       // the archive_command that works
	memory  *contract.HealthMemory
	opened  map[string]int
}

func newSick(t *testing.T, major int) *sick {
	t.Helper()
	s := &sick{dir: filepath.Join(pgtest.TempDir(t), "repo"), opened: map[string]int{}}
	files, err := fs.Open(s.dir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666})
	if err == nil {
		err = os.Chmod(s.dir, 0o777)
	}
	if err == nil {
		_, err = repo.OpenOrCreate(t.Context(), files)
	}
	if err != nil {
		t.Fatal(err)
	}
	lifeboat := pgtest.Build(t, "lifeboat/cmd/starter")
	s.push = fmt.Sprintf("%s --repository file://%s wal-push %%p --cluster c1", lifeboat, s.dir)
	s.Server = pgtest.New(t, pgtest.Options{
		Major: major, Checksums: true, OwnIdentity: true, WALSegSizeMB: 1, Archive: func(*pgtest.Server) string { return s.push },
		Settings: map[string]string{"archive_timeout": "60", "max_prepared_transactions": "5", "autovacuum": "off"},
	})
	s.cluster = Cluster{
		Server: s.config(t, s.DSN("")), DataDirectory: s.DataDir, RepositoryURL: "file://" + s.dir, RTO: time.Hour, RPO: time.Hour,
		OpenRepository: func(ctx context.Context, _ bool) (*repo.Repository, error) {
			files, err := fs.Open(s.dir, fs.Options{DirMode: 0o777, FileMode: 0o666})
			if err != nil {
				return nil, err
			}
			return repo.Open(ctx, fault.New(files, s.rules...))
		},
	}
	s.set = Settings{
		Host: "h", TaskQueue: "lifeboat", WorkDir: filepath.Join(pgtest.TempDir(t), "work"), Lifeboat: lifeboat, Program: "test",
		Owner: pgtest.Owner(t).Name, Logger: slog.New(slog.DiscardHandler), HealthLimits: health.DefaultLimits(),
	}
	limits := &s.set.HealthLimits
	limits.Transaction, limits.Prepared = 3*time.Second, 3*time.Second
	limits.SlotRetained, limits.StandbyBehind, limits.AgeWarning = 2<<20, 2<<20, 6000
	limits.DiskShare = 0 // the disk of the machine that tests is none of our business
	return s
}

func (s *sick) config(t *testing.T, dsn string) dbcore.Config {
	t.Helper()
	cfg, err := dbcore.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (s *sick) runner() *Runner {
	set := s.set
	set.Clusters = map[string]Cluster{"c1": s.cluster}
	return NewRunner(set)
}

// check is one check that goes on from the last.
func (s *sick) check(t *testing.T) contract.HealthCheckResult {
	t.Helper()
	res, err := s.runner().CheckHealth(t.Context(), contract.HealthCheckInput{Cluster: "c1", Previous: s.memory}, testRun())
	if err != nil {
		t.Fatal(err)
	}
	s.memory = res.Memory()
	for _, id := range res.Opened {
		s.opened[id]++
	}
	return res
}

func find(list []contract.HealthFinding, id string) *contract.HealthFinding {
	if i := slices.IndexFunc(list, func(f contract.HealthFinding) bool { return f.ID == id }); i >= 0 {
		return &list[i]
	}
	return nil
}

// ills causes what makes findings of these ids, and nothing else, looks for them, mends it and looks that they are gone.
func (s *sick) ills(t *testing.T, name string, cause func(t *testing.T), mend func(t *testing.T), ids ...string) {
	t.Run(name, func(t *testing.T) {
		s.expectOnly(t, s.check(t), "before")
		clear(s.opened)
		cause(t)
		rounds, closing := 1, 1
		for _, id := range ids {
			r := ruleNamed(t, id)
			rounds, closing = max(rounds, r.Open), max(closing, r.Close)
		}
		for i := range rounds + 1 { // one more: what is open does not open again
			res := s.check(t)
			s.expectOnly(t, res, fmt.Sprintf("check %d", i+1), ids...)
			for _, id := range ids {
				f := find(res.Findings, id)
				want := contract.FindingPending
				if i+1 >= ruleNamed(t, id).Open {
					want = contract.FindingOpen
				}
				if f == nil || f.Status != want || f.Remedy == "" || f.Evidence == "" {
					t.Errorf("check %d: %s is %+v, want it %s", i+1, id, f, want)
				}
			}
		}
		for _, id := range ids {
			if s.opened[id] != 1 {
				t.Errorf("%s opened %d times", id, s.opened[id])
			}
		}
		mend(t)
		closed := map[string]int{}
		for i := range closing {
			for _, f := range s.check(t).Closed {
				closed[f.ID] = i + 1
			}
		}
		for _, id := range ids {
			if want := ruleNamed(t, id).Close; closed[id] != want {
				t.Errorf("%s closed after %d checks, want %d", id, closed[id], want)
			}
		}
	})
}

func ruleNamed(t *testing.T, id string) health.Rule {
	t.Helper()
	name, _, _ := strings.Cut(id, "/")
	for _, r := range health.Rules() {
		if r.ID == name {
			return r
		}
	}
	t.Fatalf("there is no rule %s", name)
	return health.Rule{}
}

// expectOnly: there is no finding but these, and all was looked at that the findings do not explain.
func (s *sick) expectOnly(t *testing.T, res contract.HealthCheckResult, when string, ids ...string) {
	t.Helper()
	for _, f := range res.Findings {
		if !slices.Contains(ids, f.ID) {
			t.Errorf("%s: %s %s: %s", when, f.Status, f.ID, f.Evidence)
		}
	}
	hidden := slices.ContainsFunc(ids, func(id string) bool { return strings.HasSuffix(id, "_unreachable") })
	if len(res.NotLookedAt) > 0 != hidden {
		t.Errorf("%s: not looked at: %+v", when, res.NotLookedAt)
	}
}

// switches ends n segments of 1 MB.
func (s *sick) switches(t *testing.T, n int) {
	t.Helper()
	for range n {
		s.Exec(t, "select pg_logical_emit_message(false, 'test', 'x')")
		s.Exec(t, "select pg_switch_wal()")
	}
}

func (s *sick) backup(t *testing.T) {
	t.Helper()
	if _, err := s.runner().TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c1", Type: contract.TypeFull}, testRun()); err != nil {
		t.Fatal(err)
	}
}

func (s *sick) verify(t *testing.T, want contract.Verdict) {
	t.Helper()
	level := 1
	res, err := s.runner().VerifyBackups(t.Context(), contract.VerifyInput{Cluster: "c1", Level: &level}, testRun())
	if err != nil || res.Verdict != want {
		t.Fatalf("verification says %s, %v, want %s", res.Verdict, err, want)
	}
}

// waitArchived waits until nothing failed since the last segment was archived.
func (s *sick) waitArchived(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, "archiving works again", func() bool {
		return s.SQL(t, "select coalesce(last_archived_time > last_failed_time, true) from pg_stat_archiver") == "t" &&
			s.SQL(t, "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'") == "0"
	})
}

func (s *sick) session(t *testing.T) *dbcore.Conn {
	t.Helper()
	conn, err := dbcore.Connect(t.Context(), s.config(t, s.DSN("")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func do(t *testing.T, conn *dbcore.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// wait waits until d has passed since a moment.
func wait(t *testing.T, since time.Time, d time.Duration) {
	t.Helper()
	pgtest.Eventually(t, "time passes", func() bool { return time.Since(since) > d })
}

// TestHealth_EachFinding causes on a real server, one after another, what the health check is to find. Each must be seen by
// the first check, open once, and close when it is mended; at no time may there be a finding of something else.
func TestHealth_EachFinding(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes and mends thirty faults")
	}
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		if major == 16 || major == 18 {
			t.Skip("nothing that the health check asks differs from the versions that are tested, 15 and 17")
		}
		t.Parallel() // much of it waits
		s := newSick(t, major)
		set := func(name, value string) func(t *testing.T) {
			return func(t *testing.T) { s.Set(t, map[string]string{name: value}) }
		}
		first := s.check(t)
		if len(first.Opened) != 2 || find(first.Findings, "backup_missing") == nil || find(first.Findings, "fsync") == nil || first.Verdict != contract.Fail {
			t.Fatalf("the first check says %+v", first)
		}
		s.Set(t, map[string]string{"fsync": "on"})
		s.backup(t)
		if res := s.check(t); len(res.Closed) != 2 || len(res.Findings) != 0 || res.Verdict != contract.Pass {
			t.Fatalf("after the first backup: %+v", res)
		}

		s.ills(t, "wraparound", s.burnIDs, s.freeze, "xid_age/postgres", "xid_age/template0", "xid_age/template1",
			"multixact_age/postgres", "multixact_age/template0", "multixact_age/template1")
		s.ills(t, "fsync", set("fsync", "off"), set("fsync", "on"), "fsync")
		s.ills(t, "full_page_writes", set("full_page_writes", "off"), set("full_page_writes", "on"), "full_page_writes")
		s.ills(t, "archive_command", set("archive_command", "cp %p /nowhere"), set("archive_command", s.push), "archive_command")
		s.ills(t, "archive_timeout", set("archive_timeout", "0"), set("archive_timeout", "60"), "archive_timeout")
		s.transactions(t)
		s.archivingIlls(t)
		s.slots(t)
		s.standbys(t)
		s.otherServer(t)
		s.repositoryIlls(t)
		s.backups(t)
		if res := s.check(t); res.Verdict != contract.Pass || len(res.Findings) != 0 {
			t.Errorf("at the end: %+v", res)
		}
	})
}

// burnIDs ages all databases by 7000 transaction ids and as many multixact ids.
func (s *sick) burnIDs(t *testing.T) {
	s.Exec(t, "create table locked as select g as i from generate_series(1, 7000) g")
	conn := s.session(t)
	do(t, conn, "begin")
	do(t, conn, "select * from locked for share")
	s.Exec(t, "do $$ begin for k in 1..7000 loop perform from locked where i = k for share; commit; end loop; end $$")
	do(t, conn, "rollback")
}

func (s *sick) freeze(t *testing.T) {
	s.Exec(t, "alter database template0 allow_connections true")
	s.Run(t, "vacuumdb", "--all", "--freeze", "--quiet", "--no-password", "--host", s.SocketDir, "--port", fmt.Sprint(s.Port), "--username", "postgres")
	s.Exec(t, "alter database template0 allow_connections false")
}

func (s *sick) transactions(t *testing.T) {
	conn := s.session(t)
	pid := fmt.Sprint(conn.PID())
	s.ills(t, "long transaction", func(t *testing.T) {
		begun := time.Now()
		do(t, conn, "begin")
		do(t, conn, "select count(*) from pg_class")
		wait(t, begun, 4*time.Second)
	}, func(t *testing.T) { do(t, conn, "rollback") }, "long_transaction/"+pid)
	s.ills(t, "prepared transaction", func(t *testing.T) {
		begun := time.Now()
		for _, sql := range []string{"begin", "create table two (i int)", "prepare transaction 'two'"} {
			do(t, conn, sql)
		}
		wait(t, begun, 4*time.Second)
	}, func(t *testing.T) { do(t, conn, "rollback prepared 'two'") }, "prepared_transaction/two")
}

// archivingIlls: the archiver fails; segments queue up, and the exposure passes the RPO.
func (s *sick) archivingIlls(t *testing.T) {
	s.ills(t, "archiving", func(t *testing.T) {
		s.Set(t, map[string]string{"archive_command": "false wal-push %p --cluster c1", "archive_timeout": "1"})
		s.cluster.RPO = 3 * time.Second
		s.Exec(t, "create table lost (i int)")
		begun := time.Now()
		s.switches(t, 34)
		pgtest.Eventually(t, "archiving fails", func() bool {
			return s.SQL(t, "select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver") == "t"
		})
		wait(t, begun, 4*time.Second)
	}, func(t *testing.T) {
		s.cluster.RPO = time.Hour
		s.Set(t, map[string]string{"archive_command": s.push, "archive_timeout": "60"})
		s.waitArchived(t)
	}, "archiver", "archive_queue", "exposure")
}

func (s *sick) slots(t *testing.T) {
	s.ills(t, "slot that nobody reads", func(t *testing.T) {
		s.Exec(t, "select pg_create_physical_replication_slot('forgotten', true)")
		s.switches(t, 4)
		s.waitArchived(t)
	}, func(t *testing.T) { s.Exec(t, "select pg_drop_replication_slot('forgotten')") }, "slot_inactive/forgotten", "max_slot_wal_keep_size")
	s.ills(t, "slot that lost its WAL", func(t *testing.T) {
		s.Set(t, map[string]string{"max_slot_wal_keep_size": "1MB"})
		s.Exec(t, "select pg_create_physical_replication_slot('behind', true)")
		s.switches(t, 4)
		s.Exec(t, "checkpoint")
		s.waitArchived(t)
	}, func(t *testing.T) {
		s.Exec(t, "select pg_drop_replication_slot('behind')")
		s.Set(t, map[string]string{"max_slot_wal_keep_size": "-1"})
	}, "slot_wal_status/behind")
}

func (s *sick) standbys(t *testing.T) {
	standby := s.Standby(t)
	standby.Exec(t, "select pg_wal_replay_pause()")
	behind := func(more string) func() bool {
		return func() bool {
			return s.SQL(t, "select pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) "+more+" from pg_stat_replication") == "t"
		}
	}
	s.ills(t, "standby behind", func(t *testing.T) {
		s.switches(t, 4)
		pgtest.Eventually(t, "the standby is behind", behind("> 3000000"))
		s.waitArchived(t)
	}, func(t *testing.T) {
		standby.Exec(t, "select pg_wal_replay_resume()")
		pgtest.Eventually(t, "the standby catches up", behind("< 1000000"))
	}, "standby_behind/walreceiver")
	s.ills(t, "no synchronous standby", func(t *testing.T) { s.Set(t, map[string]string{"synchronous_standby_names": "nobody"}) },
		func(t *testing.T) { s.Set(t, map[string]string{"synchronous_standby_names": ""}) }, "sync_standby_missing")
	primary := s.cluster.Server
	s.ills(t, "the dsn leads to a standby", func(t *testing.T) { s.cluster.Server = s.config(t, standby.DSN("")) },
		func(t *testing.T) { s.cluster.Server = primary }, "server_standby")
	standby.Stop(t)
}

// otherServer: the dsn leads to another server, which nobody has prepared for backups.
func (s *sick) otherServer(t *testing.T) {
	other := pgtest.New(t, pgtest.Options{Major: s.Bin.Major, Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "fsync": "on"}})
	right := s.cluster.Server
	s.ills(t, "another server", func(t *testing.T) { s.cluster.Server = s.config(t, other.DSN("")) },
		func(t *testing.T) { s.cluster.Server = right }, "server_identity", "wal_level", "archive_mode", "checksums")
}

func (s *sick) repositoryIlls(t *testing.T) {
	s.ills(t, "repository that cannot be written to", func(t *testing.T) {
		s.rules = []fault.Rule{{Op: fault.Writes, Key: fault.Prefix("probe-"), Count: fault.Forever, Do: fault.Fail(syscall.EROFS)}}
	}, func(t *testing.T) { s.rules = nil }, "repository_write")
	s.ills(t, "neither server nor repository", func(t *testing.T) {
		s.Stop(t)
		if err := os.Rename(s.dir, s.dir+"-away"); err != nil {
			t.Fatal(err)
		}
	}, func(t *testing.T) {
		if err := os.Rename(s.dir+"-away", s.dir); err != nil {
			t.Fatal(err)
		}
		s.Start(t)
	}, "server_unreachable", "repository_unreachable")
	was := s.set.HealthLimits
	s.ills(t, "disk", func(t *testing.T) { // no test may fill the disk: the limit moves instead
		s.set.HealthLimits.DiskShare, s.set.HealthLimits.DiskBytes = 2, math.MaxInt64
	}, func(t *testing.T) { s.set.HealthLimits = was }, "disk_space/data directory")
}

func (s *sick) backups(t *testing.T) {
	was := s.set.HealthLimits
	restore := func() { s.set.HealthLimits = was }
	s.ills(t, "old backup", func(t *testing.T) { s.set.HealthLimits.BackupAge = time.Since(s.finished(t, -1)) - time.Second }, s.backup, "backup_age")
	restore()
	s.ills(t, "no verification", func(t *testing.T) { s.set.HealthLimits.VerifiedAge = time.Since(s.finished(t, 0)) - time.Second },
		func(t *testing.T) { s.verify(t, contract.Pass) }, "verification_age")
	restore()
	packs, err := filepath.Glob(filepath.Join(s.dir, "clusters/c1/data/*/*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs: %v, %v", packs, err)
	}
	flip := func(t *testing.T) {
		for _, pack := range packs {
			data, err := os.ReadFile(pack)
			if err == nil {
				data[len(data)/2] ^= 1
				err = os.WriteFile(pack, data, 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	s.ills(t, "rotten backup", func(t *testing.T) { flip(t); s.verify(t, contract.Fail) }, func(t *testing.T) { flip(t); s.verify(t, contract.Pass) }, "verification_failed")
	s.ills(t, "rotten server", func(t *testing.T) { s.rot(t); s.backup(t) }, func(t *testing.T) { s.Exec(t, "drop table rotten"); s.backup(t) }, "backup_corrupt")
}

// finished is when the nth backup was finished, -1 for the newest.
func (s *sick) finished(t *testing.T, n int) time.Time {
	t.Helper()
	r, err := s.cluster.OpenRepository(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Manifests(t.Context(), "c1")
	if err != nil || len(all) == 0 {
		t.Fatalf("%d backups, %v", len(all), err)
	}
	return all[(n+len(all))%len(all)].FinishedAt
}

// rot changes a page on the disk behind the server's back.
func (s *sick) rot(t *testing.T) {
	t.Helper()
	s.Exec(t, "create table rotten as select g as i from generate_series(1, 1000) g")
	path := filepath.Join(s.DataDir, s.SQL(t, "select pg_relation_filepath('rotten')"))
	s.Stop(t)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("rot"), 8192+4000)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Start(t)
}
