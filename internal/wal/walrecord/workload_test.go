package walrecord

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/pg"
)

// wholeCluster is a stopped server that has written every kind of WAL that the reader
// must understand, all of it still in pg_wal: timeline 1, and from a promotion on 2.
type wholeCluster struct {
	*cluster
	major    int
	segSize  pg.SegmentSize
	promoted pg.LSN // switch point to timeline 2

	overwritten int // records that a crash left unfinished
}

const restorePointUTF8 = "vor der Änderung ≤ 1"

func writeWAL(t testing.TB, major, segMiB int) *wholeCluster {
	t.Helper()
	c := newCluster(t, major, fmt.Sprintf("--wal-segsize=%d", segMiB), "--encoding=UTF8")
	w := &wholeCluster{cluster: c, major: major, segSize: pg.SegmentSize(segMiB) << 20}
	settings := []string{
		"wal_level=logical", "wal_keep_size=8GB", "max_wal_size=8GB", "min_wal_size=256MB",
		"max_prepared_transactions=20", "checkpoint_timeout=1h", "synchronous_commit=off",
	}
	c.start(settings...)
	c.script(workload)
	w.tablespaces()
	for i := range 40 {
		c.sql(fmt.Sprintf("select pg_create_restore_point('point %d')", i))
	}
	c.sql("select pg_create_restore_point('" + restorePointUTF8 + "')")
	c.run("pgbench", "-h", c.root, "-U", "postgres", "-i", "-q", "-s", "2", "postgres")
	c.pgbench("-c", "4", "-j", "2", "-t", "400")
	c.prepared()
	c.script("select pg_backup_start('x', true); insert into log select 'backup'; select pg_backup_stop();")
	w.crossSegments()
	for range 3 {
		c.pgbench("-c", "2", "-t", "150")
		c.sql("select pg_switch_wal()")
	}
	c.stop(syscall.SIGQUIT) // crash: recovery writes an end-of-recovery checkpoint
	c.start(append(settings, "max_connections=123", "track_commit_timestamp=on", "wal_log_hints=on", "wal_compression=on")...)
	c.script(workload) // again, on other settings
	c.pgbench("-c", "4", "-j", "2", "-t", "200")
	c.stop(syscall.SIGINT)
	w.promote(append(settings, "max_connections=123", "restore_command=false"))
	return w
}

func (c *cluster) pgbench(args ...string) {
	c.t.Helper()
	c.run("pgbench", append(append([]string{"-h", c.root, "-U", "postgres", "-n"}, args...), "postgres")...)
}

func (w *wholeCluster) tablespaces() {
	w.t.Helper()
	for i := range 3 {
		dir := filepath.Join(w.root, fmt.Sprintf("space %d", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
		if w.cred != nil {
			if err := os.Chown(dir, int(w.cred.Uid), int(w.cred.Gid)); err != nil {
				w.t.Fatal(err)
			}
		}
		w.sql(fmt.Sprintf("create tablespace ts%d location '%s'", i, dir))
		w.sql(fmt.Sprintf("create table in_ts%d tablespace ts%d as select generate_series(1, 100) i", i, i))
	}
	w.sql("drop table in_ts2")
	w.sql("drop tablespace ts2")
}

// promote makes the stopped server a standby of nobody and promotes it.
func (w *wholeCluster) promote(settings []string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.data, "standby.signal"), nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.start(append(settings, "hot_standby=on")...)
	lsn, err := pg.ParseLSN(w.sql("select pg_last_wal_replay_lsn()"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.promoted = lsn
	w.sql("select pg_promote()")
	w.pgbench("-c", "2", "-t", "100")
	w.sql("checkpoint")
	w.script("insert into log select 'after promotion'; select pg_create_restore_point('on two');")
	w.stop(syscall.SIGINT)
}

// crossings are how many transaction ends crossSegments aims at, by segment size.
var crossings = map[pg.SegmentSize]int{1 << 20: 12, 16 << 20: 2, 64 << 20: 1}

// crossSegments makes commits, aborts and ends of prepared transactions begin a few
// bytes before the end of a segment, by a message that fills it up to there.
func (w *wholeCluster) crossSegments() {
	w.t.Helper()
	for i := range crossings[w.segSize] {
		distance := []int{16, 8, 24, 32}[i%4]
		fill := fmt.Sprintf(`select pg_logical_emit_message(false, 'f', repeat('f', (goal - pos - 24 * (goal / 8192 - pos / 8192) - 55)::int))
			from (select pos, (pos / size + 1) * size - %d as goal
			from (select (pg_current_wal_insert_lsn() - '0/0')::bigint as pos, %d::bigint as size) x) y;`, distance, w.segSize)
		switch i % 3 {
		case 0:
			w.script("begin; insert into log values ('cross'); " + fill + " commit;")
		case 1:
			w.script("begin; insert into log values ('cross'); " + fill + " rollback;")
		case 2:
			w.script("begin; insert into log values ('cross'); prepare transaction 'cross'; " + fill + " commit prepared 'cross';")
		}
	}
}

// prepared ends prepared transactions in all ways, with everything before the xid
// that a commit record can hold; the big ones have more than is kept of main data.
func (c *cluster) prepared() {
	c.t.Helper()
	var b strings.Builder
	for i, n := range []int{0, 1, 100, 17000} {
		for _, end := range []string{"commit", "rollback"} {
			fmt.Fprintf(&b, "create table victim%d%s(i int primary key, v text);\n", i, end)
			fmt.Fprintf(&b, "begin; drop table victim%d%s; create table born%d%s(i int);\n", i, end, i, end)
			fmt.Fprintf(&b, "select subtransactions(%d);\nprepare transaction 'p%d%s';\n", n, i, end)
			fmt.Fprintf(&b, "%s prepared 'p%d%s';\n", end, i, end)
		}
	}
	c.script(b.String())
}

const workload = `
create table if not exists log(v text);
create table if not exists sub(i int, v text);
create or replace function subtransactions(n int) returns void language plpgsql as $$
begin
  for i in 1..n loop
    begin
      insert into sub values (i, 'x');
      if i % 100 = 7 then raise exception 'abort the subtransaction'; end if;
    exception when raise_exception then null;
    end;
  end loop;
end $$;
-- commits with and without subtransactions, aborts
select subtransactions(50);
begin; select subtransactions(3000); rollback;
begin; select subtransactions(5000); commit;
begin; insert into log values ('never'); rollback;
begin; insert into log values ('a'); savepoint s; insert into log values ('b'); rollback to s; commit;
-- access methods, so that many resource managers write
create table am(i int, t text, a int[], p point, tv tsvector);
create index on am using btree(i); create index on am using hash(i); create index on am using gin(a);
create index on am using gist(p); create index on am using spgist(p); create index on am using brin(i);
insert into am select i, md5(i::text), array[i, i % 10], point(i, i % 100), to_tsvector('simple', md5(i::text))
  from generate_series(1, 2000) i;
update am set t = t || 'y' where i % 3 = 0;
delete from am where i % 5 = 0;
vacuum am;
checkpoint;
update am set i = i + 1;  -- full page images
create sequence sq; select count(nextval('sq')) from generate_series(1, 200);
select count(*) from (select * from am for update) x;
truncate am; drop table am; drop sequence sq;
-- records that cross pages and segments, and some that are longer than a segment of 1 MB
select pg_logical_emit_message(false, 'lb', repeat('x', n)) from unnest(array[1, 100, 8000, 8192, 70000, 65536, 300000]) n;
select pg_logical_emit_message(true, 'lb', repeat('y', 2500000));
select pg_logical_emit_message(false, 'lb', repeat('z', 1000000)) from generate_series(1, 5);
checkpoint;
create database other; drop database other;
alter system set work_mem = '5MB'; select pg_reload_conf();
`
