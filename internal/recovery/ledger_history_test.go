package recovery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// life is what a protected cluster went through: writers that commit at the same time, a backup, a promotion after which
// the old primary goes on by itself, a backup on the new timeline, and more writers.
type life struct {
	*bench
	heir    *pginstance.Instance
	heirDir string
	backups [2]*repo.Manifest // one on each timeline
	fork    pg.LSN
	// did is what each transaction would change, by the server that gave it its xid: the old primary, the heir.
	did  [2]*deeds
	seed uint64
	// crowds counts the rows of stampedes.
	crowds atomic.Int64
}

// effect is one change of the ledger's content. A nil value deletes the row.
type effect struct {
	kind  string // row, table, database
	key   string
	value *string
}

// deeds are the effects of transactions as their own clients noted them: what would be there if it committed.
type deeds struct {
	sync.Mutex
	by map[uint32][]effect
}

func (d *deeds) note(xid uint32, effects []effect) {
	d.Lock()
	defer d.Unlock()
	d.by[xid] = append(d.by[xid], effects...)
}

const (
	ledgerWriters = 8
	// contentOfLedger is compared with content.
	contentOfLedger = `select 'rows ' || (select count(*) || ' ' || md5(coalesce(string_agg(id || '=' || v, ',' order by id), '')) from ledger)
		|| ' tables ' || (select coalesce(string_agg(relname, ',' order by relname collate "C"), '') from pg_class where relname like 'made%')
		|| ' databases ' || (select coalesce(string_agg(datname, ',' order by datname collate "C"), '') from pg_database where datname like 'made%')`
)

// live makes such a history.
func live(t *testing.T, major int, seed uint64) *life {
	t.Helper()
	l := &life{bench: newBenchWith(t, pgtest.Options{Major: major, WALSegSizeMB: ledgerSegment >> 20, Settings: map[string]string{
		"max_prepared_transactions": "100", "wal_keep_size": "4GB", "autovacuum": "off", "wal_buffers": "32kB",
	}}), did: [2]*deeds{{by: map[uint32][]effect{}}, {by: map[uint32][]effect{}}}, seed: seed}
	l.Exec(t, "create table ledger (id int primary key, v text)")
	l.Exec(t, "create table bulk as select g as id, repeat(md5(g::text), 10) as v from generate_series(1, 3000) g")
	old := func(db string) string { return l.DSN(db) }
	stop := l.write(t, 0, old)
	<-time.After(2500 * time.Millisecond) // so that the WAL before the backup tells to the microsecond what it contains
	l.stampede(t, 0, old)
	l.backups[0] = l.backup(t)
	l.point(t, old, "twice")
	l.point(t, old, "shared point")
	l.stampede(t, 0, old)
	l.database(t, 0, old, "made_shared")
	l.upset(t, old, 4)
	l.promote(t)
	l.point(t, old, "old point")
	l.upset(t, old, 4)
	stop()
	l.settle(t, 0, old)
	waitForFrontier(t, l.bench)

	heir := func(db string) string { return l.heir.ConnString(db, "") }
	stop = l.write(t, 1, heir)
	l.upset(t, heir, 1)
	cfg, err := dbcore.ParseDSN(heir("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	l.backups[1] = l.backupOf(t, cfg)
	l.point(t, heir, "twice")
	l.point(t, heir, "new point")
	l.stampede(t, 1, heir)
	l.database(t, 1, heir, "made_new")
	l.upset(t, heir, 3)
	stop()
	l.settle(t, 1, heir)
	last := one(t, heir(""), "select pg_walfile_name(pg_switch_wal())")
	l.await(t, last)
	return l
}

// await waits until the repository has a segment.
func (l *life) await(t *testing.T, name string) {
	t.Helper()
	pgtest.Eventually(t, "WAL "+name+" in the repository", func() bool {
		w, err := l.repo.WALHeader(t.Context(), "c1", name)
		return err == nil && w.Name == name
	})
}

// promote makes a standby of the old primary and promotes it. The old primary goes on.
func (l *life) promote(t *testing.T) {
	t.Helper()
	l.heirDir = filepath.Join(pgtest.TempDir(t), "heir")
	l.Run(t, "pg_basebackup", "-d", l.DSN("postgres"), "-D", l.heirDir, "-R", "-X", "stream", "-c", "fast")
	var err error
	l.heir, err = pginstance.Start(t.Context(), pginstance.Options{
		Binaries: l.Bin, DataDir: l.heirDir, SocketOnly: true, Settings: map[string]string{"max_standby_streaming_delay": "-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.heir.Stop(context.Background(), pginstance.Immediate) })
	streaming := func(st pginstance.Status) (bool, error) {
		return st.State == pginstance.StateRecovery && st.ReplayLSN > 0, nil
	}
	if _, err := l.heir.WaitUntil(t.Context(), streaming, nil); err != nil {
		t.Fatal(err)
	}
	here := l.SQL(t, "select pg_current_wal_lsn()")
	dsn := l.heir.ConnString("", "")
	pgtest.Eventually(t, "the standby replays beyond "+here, func() bool {
		return one(t, dsn, "select (coalesce(pg_last_wal_replay_lsn(), '0/0') >= '"+here+"')::text") == "true"
	})
	one(t, dsn, "select pg_promote(true, 60)::text")
	if _, err := l.heir.WaitReady(t.Context(), pginstance.Promoted); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(l.heirDir, "pg_wal", "00000002.history"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(data), "1\t%s", new(string)); err != nil {
		t.Fatal(err)
	}
	if l.fork, err = pg.ParseLSN(strings.Fields(string(data))[1]); err != nil {
		t.Fatal(err)
	}
}

// one runs a query that gives one text, in a session of its own.
func one(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn := session(t, dsn)
	defer conn.Close()
	v, err := dbcore.One[string](t.Context(), conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func session(t *testing.T, dsn string) *dbcore.Conn {
	t.Helper()
	cfg, err := dbcore.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (l *life) point(t *testing.T, dsn func(string) string, name string) {
	t.Helper()
	one(t, dsn(""), "select pg_create_restore_point('"+name+"')::text")
}

func (l *life) database(t *testing.T, server int, dsn func(string) string, name string) {
	t.Helper()
	conn := session(t, dsn(""))
	defer conn.Close()
	if _, err := conn.Exec(t.Context(), "create database "+name+" strategy file_copy"); err != nil {
		t.Fatal(err)
	}
	xid, err := dbcore.One[string](t.Context(), conn, "select xmin::text from pg_database where datname = '"+name+"'")
	if err != nil {
		t.Fatal(err)
	}
	l.did[server].note(number(t, xid), []effect{{kind: "database", key: name, value: &name}})
}

// upset ends segments and makes checkpoints and bulk while writers write: commits then wait for the locks of WAL
// insertion with their times taken, and come out of order.
func (l *life) upset(t *testing.T, dsn func(string) string, times int) {
	t.Helper()
	conn := session(t, dsn(""))
	defer conn.Close()
	for i := range times {
		for _, sql := range []string{
			"select pg_switch_wal()", fmt.Sprintf("update bulk set v = v || 'x' where id %% 50 = %d", i%50),
			[]string{"select 1", "checkpoint"}[i%7/6],
		} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		<-time.After(20 * time.Millisecond) // for commits in between
	}
}

// stampede lets many transactions commit at the same moment, while a switch to a new segment stands still and holds the
// locks of WAL insertion: they have taken their times then, and go on in any order (R19).
func (l *life) stampede(t *testing.T, server int, dsn func(string) string) {
	t.Helper()
	const crowd, tries = 12, 15
	var conns [crowd]*dbcore.Conn
	for i := range conns {
		conns[i] = session(t, dsn(""))
		defer conns[i].Close()
	}
	holder, watch := session(t, dsn("")), session(t, dsn(""))
	defer holder.Close()
	defer watch.Close()
	for try, caught := 0, 0; try < tries && caught < 2; try++ {
		for i, conn := range conns {
			w := &writer{t: t, conn: conn, rng: rand.New(rand.NewPCG(l.seed, uint64(i))), next: 10_000_000 + int(l.crowds.Add(1))}
			w.exec("begin")
			xid, _, e := w.insert()
			l.did[server].note(xid, []effect{e})
		}
		var wg sync.WaitGroup
		run := func(conn *dbcore.Conn, sql string) {
			wg.Go(func() {
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			})
		}
		run(holder, "select pg_switch_wal()")
		<-time.After(time.Duration(try%5+1) * 300 * time.Microsecond)
		_ = syscall.Kill(int(holder.PID()), syscall.SIGSTOP)
		for _, conn := range conns {
			run(conn, "commit")
		}
		<-time.After(30 * time.Millisecond) // for the crowd to gather
		n, err := dbcore.One[int](t.Context(), watch, "select count(*) from pg_stat_activity where wait_event = 'WALInsert'")
		_ = syscall.Kill(int(holder.PID()), syscall.SIGCONT)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if n > 3 {
			caught++
		}
	}
}

// settle ends the prepared transactions that no writer of this server has ended.
func (l *life) settle(t *testing.T, server int, dsn func(string) string) {
	t.Helper()
	conn := session(t, dsn(""))
	defer conn.Close()
	gids, err := dbcore.Collect[string](t.Context(), conn, "select gid from pg_prepared_xacts order by 1")
	if err != nil {
		t.Fatal(err)
	}
	for i, gid := range gids {
		end := []string{"commit", "rollback"}[i%2]
		if _, err := conn.Exec(t.Context(), end+" prepared '"+gid+"'"); err != nil {
			t.Fatal(err)
		}
	}
}

func number(t *testing.T, s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Error(err)
	}
	return uint32(n)
}

// write starts the writers of a server. The function that it returns ends them.
func (l *life) write(t *testing.T, server int, dsn func(string) string) (stop func()) {
	t.Helper()
	var done atomic.Bool
	var wg sync.WaitGroup
	for n := range ledgerWriters {
		w := &writer{
			t: t, conn: session(t, dsn("postgres")), rng: rand.New(rand.NewPCG(l.seed, uint64(server*100+n))), log: l.did[server],
			next: (server*ledgerWriters + n) * 100_000, name: fmt.Sprintf("%d_%d", server, n), rows: map[int]bool{},
		}
		wg.Go(func() {
			defer w.conn.Close()
			for i := 0; !done.Load() && w.step(i); i++ {
			}
		})
	}
	return func() {
		done.Store(true)
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
}

// writer is one client. It changes only rows of its own.
type writer struct {
	t    *testing.T
	conn *dbcore.Conn
	rng  *rand.Rand
	log  *deeds
	next int
	name string
	rows map[int]bool // that it knows to be committed and not locked
	// prepared transactions, oldest first
	pending []prepared
	bad     bool
}

type prepared struct {
	gid string
	id  int
}

func (w *writer) exec(sql string) {
	if w.bad {
		return
	}
	if _, err := w.conn.Exec(context.Background(), sql); err != nil {
		w.t.Errorf("%s: %v", sql, err)
		w.bad = true
	}
}

// change runs a statement that returns the xid, which is 0 if it changed nothing.
func (w *writer) change(sql string) uint32 {
	if w.bad {
		return 0
	}
	xid, err := dbcore.Collect[string](context.Background(), w.conn, sql+" returning pg_current_xact_id()::text")
	if err != nil {
		w.t.Errorf("%s: %v", sql, err)
		w.bad = true
		return 0
	}
	if len(xid) == 0 {
		return 0
	}
	return number(w.t, xid[0])
}

func (w *writer) insert() (xid uint32, id int, e effect) {
	w.next++
	v := strings.Repeat(strconv.FormatUint(w.rng.Uint64(), 36), 1+w.rng.IntN(6))
	xid = w.change(fmt.Sprintf("insert into ledger values (%d, '%s')", w.next, v))
	return xid, w.next, effect{"row", strconv.Itoa(w.next), &v}
}

// some is one of the writer's rows; 0 if there is none.
func (w *writer) some() int {
	for id := range w.rows {
		return id
	}
	return 0
}

// step is one transaction. It is false when the writer cannot go on.
func (w *writer) step(i int) bool {
	switch w.rng.IntN(12) {
	case 0:
		w.exec("begin")
		xid, _, e := w.insert()
		w.log.note(xid, []effect{e})
		w.exec("rollback")
	case 1:
		w.subtransactions()
	case 2, 3:
		if n := len(w.pending); n > 0 && (n > 5 || w.rng.IntN(2) == 0) {
			w.endPrepared()
		} else {
			w.prepare(i)
		}
	case 4:
		w.overwrite()
	case 5:
		if i%8 == 0 {
			w.table(i)
		}
	case 6, 7, 8:
		<-time.After(time.Duration(w.rng.IntN(20)) * time.Millisecond) // idle clients
	default:
		xid, id, e := w.insert()
		w.log.note(xid, []effect{e})
		w.rows[id] = true
	}
	return !w.bad
}

// subtransactions: of three rows in one transaction, the middle one may be rolled back by itself.
func (w *writer) subtransactions() {
	w.exec("begin")
	xid, a, e := w.insert()
	kept := []effect{e}
	w.exec("savepoint s")
	_, b, e := w.insert() // its row belongs to a subtransaction; pg_current_xact_id is the top one's
	if w.rng.IntN(2) == 0 {
		w.exec("rollback to s")
	} else {
		w.exec("release s")
		kept = append(kept, e)
		w.rows[b] = true
	}
	_, c, e := w.insert()
	w.log.note(xid, append(kept, e))
	w.rows[a], w.rows[c] = true, true
	w.exec("commit")
}

func (w *writer) prepare(i int) {
	w.exec("begin")
	xid, id, e := w.insert()
	w.log.note(xid, []effect{e})
	gid := fmt.Sprintf("%s_%d", w.name, i)
	w.exec("prepare transaction '" + gid + "'")
	w.pending = append(w.pending, prepared{gid, id})
}

func (w *writer) endPrepared() {
	p := w.pending[0]
	w.pending = w.pending[1:]
	if w.rng.IntN(3) == 0 {
		w.exec("rollback prepared '" + p.gid + "'")
		return
	}
	w.exec("commit prepared '" + p.gid + "'")
	w.rows[p.id] = true
}

// overwrite changes or deletes a row.
func (w *writer) overwrite() {
	id := w.some()
	if id == 0 {
		return
	}
	e := effect{kind: "row", key: strconv.Itoa(id)}
	var xid uint32
	if w.rng.IntN(2) == 0 {
		v := strconv.FormatUint(w.rng.Uint64(), 36)
		e.value = &v
		xid = w.change(fmt.Sprintf("update ledger set v = '%s' where id = %d", v, id))
	} else {
		xid = w.change(fmt.Sprintf("delete from ledger where id = %d", id))
		delete(w.rows, id)
	}
	w.log.note(xid, []effect{e})
}

func (w *writer) table(i int) {
	name := fmt.Sprintf("made_%s_%d", w.name, i)
	w.exec("begin")
	xid, id, e := w.insert()
	w.exec("create table " + name + " (i int)")
	w.log.note(xid, []effect{e, {"table", name, &name}})
	w.exec("commit")
	w.rows[id] = true
}

// targetTime is a target at a time.
func targetTime(at time.Time, exclusive bool) recovery.Target {
	return recovery.Target{Kind: recovery.Time, Value: at.UTC().Format(time.RFC3339Nano), Exclusive: exclusive}
}
