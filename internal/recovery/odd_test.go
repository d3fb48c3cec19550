package recovery_test

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// oddCluster is a way to make a cluster.
type oddCluster struct {
	name       string
	from       int // major version that has it first; 0 is every
	opt        pgtest.Options
	symlinkWAL bool   // as initdb --waldir makes it
	renamed    string // name of the bootstrap superuser
	raise      bool   // settings that replay needs are raised behind the backup
}

// oddClusters covers what initdb can decide; each of them holds everything that fillOdd makes.
var oddClusters = []oddCluster{
	{
		name: "64 MB segments, no checksums, group access", raise: true,
		opt: pgtest.Options{WALSegSizeMB: 64, InitArgs: []string{"--allow-group-access"}},
	},
	{
		name: "1 MB segments, checksums, ICU, pg_wal elsewhere", symlinkWAL: true,
		opt: pgtest.Options{WALSegSizeMB: 1, Checksums: true, InitArgs: []string{"--locale-provider=icu", "--icu-locale=de-AT"}},
	},
	{
		name: "LATIN1, renamed superuser", renamed: `Käpt'n "Boss"`,
		opt: pgtest.Options{Checksums: true, InitArgs: []string{"--encoding=LATIN1", "--locale=C"}},
	},
	{
		name: "builtin locale provider", from: 17,
		opt: pgtest.Options{InitArgs: []string{"--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-locale"}},
	},
}

// TestRestore_EveryKindOfCluster backs clusters of every kind up while they change, lets them change more, restores them
// to the end of their WAL, and compares everything: rows, sequences, large objects, catalogues, files and modes.
func TestRestore_EveryKindOfCluster(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		for i, odd := range oddClusters {
			if odd.from > major || major == pg.MaxMajor && i > 0 && !scaled() {
				continue
			}
			t.Run(odd.name, func(t *testing.T) {
				t.Parallel()
				odd.opt.Major = major
				restoreOdd(t, odd)
			})
		}
	})
}

// scaled tells whether a long run was asked for.
func scaled() bool {
	v := os.Getenv("LIFEBOAT_TEST_SCALE")
	return v != "" && v != "0" && v != "1"
}

func restoreOdd(t *testing.T, odd oddCluster) {
	b := newOdd(t, odd)
	fillOdd(t, b)
	plantForeign(t, b)
	source := place{dir: b.SocketDir, port: b.Port, user: "postgres", bin: b.Bin.Path("pg_dumpall")}
	m := backupWhile(t, b, source, func() { changeOdd(t, b, source, "during") }, func() {
		b.Exec(t, "drop database d_gone") // waits until the walsender reads its signals, which it does not while it is held
		b.Exec(t, "commit prepared 'early'")
	})
	checkStored(t, b, m)
	changeOdd(t, b, source, "after")
	if odd.raise {
		b.Set(t, map[string]string{"max_connections": "70", "max_prepared_transactions": "9", "max_worker_processes": "11"})
		b.Restart(t)
		b.Exec(t, "insert into rows values (-1, 'raised')")
	}
	want := source.look(t)
	end, err := pg.ParseLSN(b.SQL(t, "select pg_switch_wal()::text"))
	if err != nil {
		t.Fatal(err)
	}
	if err := recovery.WaitArchived(t.Context(), b.repo, "c1", end, time.Minute); err != nil {
		t.Fatal(err)
	}

	p := b.plan(t, recovery.PlanOptions{})
	if _, err := recovery.Lay(t.Context(), p, b.lay()); err != nil {
		t.Fatal(err)
	}
	verified(t, b, p) // pg_verifybackup: level 4
	checkLaid(t, b, p)
	in := b.start(t, p).Instance
	restored := place{dir: in.SocketDir(), port: in.Port(), user: "postgres", bin: source.bin}
	want.equal(t, restored.look(t), 45)
	checkRestored(t, odd, restored)
}

// newOdd makes the cluster.
func newOdd(t *testing.T, odd oddCluster) *bench {
	t.Helper()
	odd.opt.Settings = map[string]string{"max_prepared_transactions": "5", "max_replication_slots": "20", "autovacuum": "off"}
	if odd.opt.Major >= 18 {
		odd.opt.Settings["max_active_replication_origins"] = "20" // it was part of max_replication_slots before
	}
	odd.opt.Stopped = true
	b := newBenchOf(t, odd.opt)
	if odd.symlinkWAL {
		wal, elsewhere := b.DataDir+"/pg_wal", b.Dir+"/wal elsewhere"
		if err := errors.Join(os.Rename(wal, elsewhere), os.Symlink(elsewhere, wal)); err != nil {
			t.Fatal(err)
		}
	}
	b.Start(t)
	if odd.renamed != "" {
		b.Exec(t, "create role other superuser login")
		conn := place{dir: b.SocketDir, port: b.Port, user: "other"}.connect(t, "postgres")
		defer conn.Close()
		for _, sql := range []string{`alter role postgres rename to "` + strings.ReplaceAll(odd.renamed, `"`, `""`) + `"`, "create role postgres superuser login"} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// fillOdd makes content of every kind before the backup.
func fillOdd(t *testing.T, b *bench) {
	t.Helper()
	for _, sql := range []string{
		"create table rows (id int primary key, v text)",
		"insert into rows select g, md5(g::text) from generate_series(1, 3000) g",
		"create unlogged table unlogged_rows (id int primary key, v text)",
		"insert into unlogged_rows select g, md5(g::text) from generate_series(1, 1000) g",
		"create unlogged sequence unlogged_seq",
		"create sequence seq increment 7 cycle maxvalue 1000", "select setval('seq', 50)",
		// Values of a megabyte that do not compress: TOAST of many chunks.
		"create table toasted as select g as id, string_agg(md5((g * 1000000 + n)::text), '') as v from generate_series(1, 3) g, generate_series(1, 32768) n group by g",
		"create table parts (id int, v text) partition by range (id)",
		"create table parts_low partition of parts for values from (0) to (500)",
		"create table parts_high partition of parts for values from (500) to (1000) partition by hash (v)",
		"create table parts_high_0 partition of parts_high for values with (modulus 2, remainder 0)",
		"create table parts_high_1 partition of parts_high for values with (modulus 2, remainder 1)",
		"insert into parts select g, 'v' || g from generate_series(0, 999) g",
		"create materialized view mv as select count(*) as n, sum(id) as s from parts",
		"create table empty ()", "create schema \"Sch ema\"", "create table \"Sch ema\".\"Ta.ble ü\" as select 1 as \"co\"\"l\"",
		"select lo_from_bytea(9001, convert_to(repeat('large object ', 100000), 'UTF8'))", "select lo_create(9002)",
		"grant select on large object 9001 to public",
		"create role app login password 'secret'", "comment on table rows is 'commented'",
		"create database d_gone", "create database d_before", "create database d_closed", "create database d_template is_template true",
		"create database d_other encoding 'SQL_ASCII' locale 'C' locale_provider libc template template0",
		"alter database d_closed allow_connections false", "alter database d_before connection limit 7",
	} {
		b.Exec(t, sql)
	}
	for i := range 12 {
		b.Exec(t, fmt.Sprintf("select pg_replication_origin_create('origin %d')", i))
		b.Exec(t, fmt.Sprintf("select pg_replication_origin_advance('origin %d', '0/%d')", i, i+1))
	}
	prepare(t, b, "early")
	prepare(t, b, "pending")
	b.Exec(t, "checkpoint")
}

// prepare leaves a prepared transaction.
func prepare(t *testing.T, b *bench, name string) {
	t.Helper()
	conn := place{dir: b.SocketDir, port: b.Port, user: "postgres"}.connect(t, "postgres")
	defer conn.Close()
	for _, sql := range []string{"begin", fmt.Sprintf("insert into rows values (%d, 'prepared')", 100_000+len(name)), "prepare transaction '" + name + "'"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// foreign are files that do not belong to PostgreSQL, by path in the data directory.
var foreign = map[string]string{
	"foreign/empty":                       "",
	"foreign/latin1 \xe4\xf6":             "a name that is not UTF-8",
	"foreign/ünï ©ode":                    "x",
	"foreign/" + strings.Repeat("l", 80):  "a long name: longer ones do not fit in the tar format that BASE_BACKUP sends",
	"base/foreign \n with a line feed":    "x",
	"conf.d/nested.conf":                  "work_mem = '1GB'\n",
	"pg_hba_other.conf":                   "local all all reject\n",
	"foreign/deep/deeper/deepest/content": strings.Repeat("0123456789", 50_000),
}

// plantForeign puts in the data directory what the server does not know.
func plantForeign(t *testing.T, b *bench) {
	t.Helper()
	owner := pgtest.Owner(t)
	for name, content := range foreign {
		path := filepath.Join(b.DataDir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Mkdir(b.DataDir+"/foreign/nothing", 0o700), os.Symlink("/etc/hostname", b.DataDir+"/foreign/link"),
		os.Symlink("/etc", b.DataDir+"/foreign/dirlink"), unix.Mkfifo(b.DataDir+"/foreign/fifo", 0o600))
	for _, top := range []string{"foreign", "conf.d", "pg_hba_other.conf", "base"} {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(b.DataDir, top), func(path string, _ iofs.DirEntry, err error) error {
			return errors.Join(err, owner.Chown(path))
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// backupWhile takes a backup, and lets the cluster change when the copy begins: while it stands still, and while it goes on.
// A session with temporary tables is open all the time.
func backupWhile(t *testing.T, b *bench, p place, held, flowing func()) *repo.Manifest {
	t.Helper()
	temporary := p.connect(t, "postgres")
	defer temporary.Close()
	if _, err := temporary.Exec(t.Context(), "create temporary table tt as select g from generate_series(1, 10000) g"); err != nil {
		t.Fatal(err)
	}
	cfg, err := dbcore.ParseDSN(b.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	began, changed, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	hold := sync.OnceFunc(func() { close(began); <-changed })
	var m *repo.Manifest
	go func() {
		defer close(ended)
		m, err = basebackup.Take(t.Context(), basebackup.Options{
			Repo: b.repo, Cluster: "c1", Server: cfg, WorkflowID: t.Name(), Host: "test", Program: "test",
			Progress: func(p basebackup.Progress) {
				if p.Phase == "copy" {
					hold()
				}
			},
		})
	}()
	t.Cleanup(func() { <-ended })
	select {
	case <-began:
	case <-ended:
		t.Fatalf("the backup ended before it copied: %v", err)
	}
	func() {
		defer close(changed)
		held()
	}()
	flowing()
	if <-ended; err != nil {
		t.Fatal(err)
	}
	return m
}

// changeOdd changes content of every kind, and databases with it. when makes names.
func changeOdd(t *testing.T, b *bench, p place, when string) {
	t.Helper()
	for _, sql := range []string{
		"insert into rows select 10000 + g + (select max(id) from rows where id < 100000), '" + when + "' from generate_series(1, 50) g",
		"update toasted set v = v || '" + when + "' where id = 1", "delete from parts where id % 7 = 0", "refresh materialized view mv",
		"select nextval('seq')", "select lo_put(9001, 100, '\\xdeadbeef')", "select lo_from_bytea(0, '\\x" + fmt.Sprintf("%x", when) + "')",
		"insert into unlogged_rows select g, 'x' from generate_series(20001 + " + fmt.Sprint(len(when)) + "000, 20100 + " + fmt.Sprint(len(when)) + "000) g",
		"create database d_wal_" + when + " strategy wal_log template d_template", "create database d_copy_" + when + " strategy file_copy template d_template",
		"create table made_" + when + " as select g from generate_series(1, 100) g", "truncate made_" + when, "insert into made_" + when + " values (1)",
	} {
		b.Exec(t, sql)
	}
	in := func(db, sql string) {
		t.Helper()
		conn := p.connect(t, db)
		defer conn.Close()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, db := range []string{"d_wal_", "d_copy_"} {
		in(db+when, "create table here as select g, md5(g::text) from generate_series(1, 200) g")
	}
	if when == "during" {
		return
	}
	b.Exec(t, "alter database d_before rename to \"d renamed\"")
	in("d renamed", "create table here as select 1 as one")
	b.Exec(t, "drop database d_wal_during")
	prepare(t, b, "the latest")
}

// temporaryFile matches the files of temporary relations (RelationGetRelationFilepath: t, backend, relation).
var temporaryFile = regexp.MustCompile(`/t\d+_\d+`)

// checkStored looks for what a backup must not hold.
func checkStored(t *testing.T, b *bench, m *repo.Manifest) {
	t.Helper()
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	unlogged := b.SQL(t, "select pg_relation_filepath('unlogged_rows')")
	seen := map[string]bool{}
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen[e.Path] = true
		if temporaryFile.MatchString(e.Path) || e.Path == unlogged || strings.HasPrefix(e.Path, "pg_wal/0") || e.Type == repo.TypeSymlink {
			t.Errorf("%s is in the backup", e.Path)
		}
	}
	if !seen[unlogged+"_init"] {
		t.Errorf("the init fork of an unlogged table, %s_init, is not in the backup", unlogged)
	}
}

// checkLaid compares modes and foreign files with the source's.
func checkLaid(t *testing.T, b *bench, p *recovery.Plan) {
	t.Helper()
	for name, content := range foreign {
		if got, err := os.ReadFile(filepath.Join(p.TargetDir, name)); err != nil || string(got) != content {
			t.Errorf("%q has %d bytes, want %d: %v", name, len(got), len(content), err)
		}
	}
	for _, name := range []string{"foreign/link", "foreign/dirlink", "foreign/fifo"} {
		if _, err := os.Lstat(filepath.Join(p.TargetDir, name)); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s was laid: %v", name, err)
		}
	}
	if info, err := os.Lstat(p.TargetDir + "/pg_wal"); err != nil || !info.IsDir() {
		t.Errorf("pg_wal is %v, %v", info, err)
	}
	for _, name := range []string{".", "base", "base/1", "base/1/PG_VERSION", "global/pg_control", "postgresql.conf", "foreign/nothing"} {
		was, err1 := os.Stat(filepath.Join(b.DataDir, name))
		is, err2 := os.Stat(filepath.Join(p.TargetDir, name))
		if err := errors.Join(err1, err2); err != nil || was.Mode() != is.Mode() {
			t.Errorf("%s: mode %v became %v, %v", name, was.Mode(), is.Mode(), err)
		}
	}
}

// checkRestored looks at what a fingerprint does not tell.
func checkRestored(t *testing.T, odd oddCluster, p place) {
	t.Helper()
	conn := p.connect(t, "postgres")
	defer conn.Close()
	ask := func(sql string) string {
		t.Helper()
		v, err := dbcore.One[string](t.Context(), conn, sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return v
	}
	for sql, want := range map[string]string{
		"select count(*)::text from unlogged_rows":                                      "0", // they come back empty, and usable
		"select string_agg(gid, ',' order by gid) from pg_prepared_xacts":               "pending,the latest",
		"select count(*)::text from pg_class where relpersistence = 't'":                "0",
		"select count(*)::text from pg_replication_origin_status":                       "12",
		"select rolname from pg_authid where oid = 10":                                  orDefault(odd.renamed, "postgres"),
		"select count(*)::text from rows where id between 100000 and 100010":            "1", // 'early' was committed
		"select pg_is_in_recovery()::text || ' ' || current_setting('archive_mode')":    "false off",
		"select string_agg(datname, ',') from pg_database where datname like '%during'": "d_copy_during",
	} {
		if got := ask(sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	for _, sql := range []string{
		"insert into unlogged_rows values (1, 'again')", "rollback prepared 'the latest'", "commit prepared 'pending'", "alter database d_closed allow_connections true",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if got := ask("select count(*)::text from rows where id between 100000 and 100010"); got != "2" {
		t.Errorf("of the prepared transactions %s are committed, want 2", got)
	}
	closed := p.connect(t, "d_closed")
	defer closed.Close()
	if _, err := closed.Exec(t.Context(), "create table works ()"); err != nil {
		t.Error(err)
	}
}

func orDefault(v, def string) string {
	if v == "" {
		return def
	}
	return v
}
