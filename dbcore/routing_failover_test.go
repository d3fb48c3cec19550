package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// load is a set of writers, each of which writes a row after the other through the cluster.
type load struct {
	c    *dbcore.Cluster
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex
	acked     map[int]ack
	ambiguous map[int]bool
	failed    []error
}

type ack struct {
	at       time.Time
	server   int  // that ran the attempt which was acknowledged
	verified bool // its answer was lost, and the new primary has said that it is committed
}

func startLoad(c *dbcore.Cluster, writers int, opts dbcore.TxOptions) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{c: c, stop: stop, acked: map[int]ack{}, ambiguous: map[int]bool{}}
	for w := range writers {
		l.wg.Go(func() {
			for id := w + 1; ctx.Err() == nil; id += writers {
				l.write(ctx, id, opts)
			}
		})
	}
	return l
}

func (l *load) write(ctx context.Context, id int, opts dbcore.TxOptions) {
	var server int
	var report dbcore.TxReport
	opts.Report = &report
	err := l.c.RunTx(ctx, opts, func(ctx context.Context, tx *dbcore.Tx) (err error) {
		server, err = dbcore.One[int](ctx, tx, "insert into writes values ($1, current_setting('port')::int) returning server", id)
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acked[id] = ack{time.Now(), server, report.Verified}
	case errors.Is(err, dbcore.ErrCommitAmbiguous):
		l.ambiguous[id] = true
	case ctx.Err() == nil:
		l.failed = append(l.failed, err)
	}
}

// firstOn is when the first write on a server was acknowledged; zero if none was.
func (l *load) firstOn(server int) (first time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acked {
		if a.server == server && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
	}
	return first
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// check compares what the writers were told with what is there: nothing acknowledged is missing or there twice, and no
// error was seen but an ambiguous COMMIT.
func (l *load) check(t *testing.T, s *pgtest.Server, verified bool) {
	t.Helper()
	times := map[int]int{}
	for _, id := range pgtest.Collect[int](t, s, "select id from writes") {
		if times[id]++; times[id] > 1 {
			t.Errorf("write %d is there %d times", id, times[id])
		}
	}
	for id := range l.acked {
		if times[id] == 0 {
			t.Errorf("write %d was acknowledged and is lost", id)
		}
	}
	for _, err := range l.failed {
		t.Errorf("a writer saw: %v", err)
	}
	if verified && len(l.ambiguous) > 0 {
		t.Errorf("writes %v are undecided", l.ambiguous)
	}
	t.Logf("%d writes acknowledged, %d ambiguous, %d rows", len(l.acked), len(l.ambiguous), len(times))
}

// TestFailover: the primary dies under load and its standby is promoted. The writers go on there by themselves. The old
// primary comes back as it was and says that it is the primary: it never gets a write.
func TestFailover(t *testing.T) {
	bothMajors(t, func(t *testing.T, major int) {
		var fromKill, fromPromoted []time.Duration
		for run := range min(10, pgtest.Scale(t)) {
			t.Run(strconv.Itoa(run), func(t *testing.T) {
				k, p := failover(t, major, (run+major/2)%2 == 0)
				fromKill, fromPromoted = append(fromKill, k), append(fromPromoted, p)
			})
		}
		for _, list := range [][]time.Duration{fromKill, fromPromoted} {
			if len(list) == 0 {
				return
			}
			slices.Sort(list)
		}
		t.Logf("PostgreSQL %d, %d runs: first write on the new primary, median %s after the kill (at most %s), %s after the promotion was done (at most %s)", major,
			len(fromKill), fromKill[len(fromKill)/2], fromKill[len(fromKill)-1], fromPromoted[len(fromPromoted)/2], fromPromoted[len(fromPromoted)-1])
	})
}

func failover(t *testing.T, major int, verify bool) (fromKill, fromPromoted time.Duration) {
	ctx := context.Background()
	a, b := pair(t, major)
	a.Exec(t, "create table writes (id int, server int)")
	var opts dbcore.TxOptions
	if verify {
		opts = dbcore.TxOptions{Verify: dbcore.VerifyToken, VerifyTimeout: time.Minute}
		a.Exec(t, "create table dbcore_commit_tokens (token text primary key, fence boolean not null default false, at timestamptz not null default now())")
	}
	// Nothing is acknowledged that the standby does not have, so that nothing acknowledged may be missing later.
	a.Set(t, map[string]string{"synchronous_standby_names": "*"})
	c := openCluster(t, a, b)
	kept, err := c.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(c, 4, opts)
	defer l.end()
	pgtest.Eventually(t, "writes", func() bool { return l.count() > 50 })

	killed := time.Now()
	a.Kill(t)
	b.Promote(t)
	promoted := time.Now()
	var first time.Time
	pgtest.Eventually(t, "a write on the new primary", func() bool { first = l.firstOn(b.Port); return !first.IsZero() })
	fromKill, fromPromoted = first.Sub(killed), max(0, first.Sub(promoted))

	a.Start(t)
	a.Set(t, map[string]string{"synchronous_standby_names": ""}) // it would take writes
	before := a.SQL(t, "select count(*), pg_is_in_recovery() from writes")
	pgtest.Eventually(t, "the old primary is recognised", func() bool {
		s := status(c, a)
		return s.Reachable && s.Role == dbcore.RolePrimary && strings.Contains(s.Fenced, "former primary")
	})
	back := time.Now()
	if _, err := kept.Op("kept").Exec(ctx, "insert into writes values (0, 0)"); !errors.Is(err, dbcore.ErrFenced) {
		t.Errorf("write through the DB of the old primary: %v", err)
	}
	n := l.count()
	pgtest.Eventually(t, "more writes", func() bool { return l.count() > n+50 })

	// Also when the new one is gone: rather no writes than some that are lost.
	b.Kill(t)
	pgtest.Eventually(t, "no primary", func() bool { _, err := c.Primary(ctx); return errors.Is(err, dbcore.ErrNoPrimary) })
	holds(t, "no writes anywhere", 10*probeInterval, func() bool { _, err := c.Primary(ctx); return errors.Is(err, dbcore.ErrNoPrimary) })
	n = l.count()
	b.Start(t)
	pgtest.Eventually(t, "writes go on", func() bool { return l.count() > n+10 })
	l.end()

	if after := a.SQL(t, "select count(*), pg_is_in_recovery() from writes"); after != before {
		t.Errorf("the old primary has got writes: %s rows before, %s after", before, after)
	}
	for id, w := range l.acked {
		if w.server == a.Port && w.at.After(back) && !w.verified {
			t.Errorf("write %d was acknowledged by the old primary", id)
		}
	}
	l.check(t, b, verify)
	return fromKill, fromPromoted
}

// TestDemotion: the primary is shut down, becomes a standby of the new one, and is promoted again in the end, as in planned
// switchovers. Its pool serves reads in between.
func TestDemotion(t *testing.T) {
	ctx := context.Background()
	a, b := pair(t, 0)
	c := openCluster(t, a, b)
	if _, err := c.Exec(ctx, "insert into log values (1)"); err != nil {
		t.Fatal(err)
	}
	b.Stop(t)
	if _, err := c.Exec(ctx, "insert into log values (2)"); err != nil {
		t.Fatalf("without the standby: %v", err)
	}
	b.StartStandby(t)
	a.Stop(t) // a clean shutdown waits until the standby has all
	b.Promote(t)
	if _, err := c.Exec(ctx, "insert into log values (3)"); err != nil {
		t.Fatal(err)
	}
	a.Follow(t, b)
	pgtest.Eventually(t, "the former primary serves reads", func() bool { return replicaAt(t, c) == a.Port })
	if db, err := c.WaitPrimary(ctx); at(t, db, err) != b.Port {
		t.Error("it is the primary")
	}
	l, err := c.LSN(ctx)
	if err != nil {
		t.Fatal(err)
	}
	replica, err := c.Replica(ctx, dbcore.AfterLSN(l), dbcore.WaitReplay(time.Minute))
	if got := at(t, replica, err); got != a.Port {
		t.Fatalf("read at %d", got)
	}
	if got := one[int](t, replica, "select count(*) from log"); got != 3 {
		t.Errorf("%d rows on the new standby", got)
	}
	if _, err := replica.Exec(ctx, "insert into log values (4)"); dbcore.SQLState(err) != "25006" {
		t.Errorf("write on a replica: %v", err)
	}
	if db, err := c.Primary(ctx); at(t, db, err) != b.Port {
		t.Error("a write refused by a replica has cost the primary its part")
	}
	b.Stop(t)
	a.Promote(t)
	if _, err := c.Exec(ctx, "insert into log values (5)"); err != nil {
		t.Fatal(err)
	}
	if db, err := c.WaitPrimary(ctx); at(t, db, err) != a.Port {
		t.Error("the first one is not the primary again")
	}
}

// TestSplitBrain: a standby that was made a primary by removing standby.signal is on the same timeline. Nobody is written to.
func TestSplitBrain(t *testing.T) {
	ctx := context.Background()
	a, b := pair(t, 0)
	c := openCluster(t, a, b)
	a.Exec(t, "create table writes (id int, server int)")
	kept, err := c.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	err = kept.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if runs++; runs > 1 {
			t.Error("it runs again, where nothing must be written")
		}
		if _, err := tx.Exec(ctx, "insert into writes values (0, 0)"); err != nil {
			return err
		}
		b.Stop(t)
		b.Independent(t)
		pgtest.Eventually(t, "a split brain", func() bool { _, err := c.Primary(ctx); return errors.Is(err, dbcore.ErrSplitBrain) })
		return nil
	})
	if !errors.Is(err, dbcore.ErrFenced) || errors.Is(err, dbcore.ErrCommitAmbiguous) {
		t.Errorf("COMMIT after the split brain: %v", err)
	}
	_, err = c.Primary(ctx)
	if !errors.Is(err, dbcore.ErrNoPrimary) || !strings.Contains(err.Error(), "pg_rewind") {
		t.Errorf("error %v", err)
	}
	bounded, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(bounded, "insert into writes values (1, 1)"); !errors.Is(err, dbcore.ErrSplitBrain) {
		t.Errorf("write: %v", err)
	}
	b.Kill(t)
	holds(t, "one that has gone silent may have the truth", 5*probeInterval, func() bool { _, err := c.Primary(ctx); return errors.Is(err, dbcore.ErrSplitBrain) })
	if n := a.SQL(t, "select count(*) from writes"); n != "0" {
		t.Errorf("%s writes", n)
	}
	b.Follow(t, a)
	if _, err := c.Exec(ctx, "insert into writes values (2, 2)"); err != nil {
		t.Errorf("write after the second primary was made a standby: %v", err)
	}
}

// TestHungPrimary: the primary does not die but hangs, with the requests that it has. They end when another one has taken over,
// and all writers go on there.
func TestHungPrimary(t *testing.T) {
	a, b := pair(t, 0)
	a.Exec(t, "create table writes (id int, server int)")
	c := openCluster(t, a, b)
	const writers = 4
	l := startLoad(c, writers, dbcore.TxOptions{CommitTimeout: 10 * time.Minute})
	defer l.end()
	pgtest.Eventually(t, "writes", func() bool { return l.count() > 50 })
	hung := time.Now()
	freeze(t, a)
	pgtest.Eventually(t, "it is given up", func() bool { return !status(c, a).Reachable })
	unreachable := time.Since(hung)
	b.Promote(t)
	promoted := time.Now()
	pgtest.Eventually(t, "all writers go on", func() bool { return l.writersOn(b.Port, writers) == writers })
	t.Logf("given up after %s; all writers on the new primary %s after the promotion was done", unreachable, time.Since(promoted))
	l.end()
	for _, err := range l.failed {
		t.Errorf("a writer saw: %v", err)
	}
}

// writersOn counts the writers that have had a write acknowledged by a server.
func (l *load) writersOn(server, writers int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := map[int]bool{}
	for id, a := range l.acked {
		if a.server == server {
			who[id%writers] = true
		}
	}
	return len(who)
}

// freeze stops all processes of a server until the test ends.
func freeze(t *testing.T, s *pgtest.Server) {
	t.Helper()
	pid := s.Instance().PID()
	pids := []int{pid}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // first, so that it makes no more
		t.Fatal(err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	for _, p := range pids[1:] {
		_ = syscall.Kill(p, syscall.SIGSTOP) // may have ended
	}
	if len(pids) < 4 {
		t.Fatalf("children of %d: %v", pid, pids[1:])
	}
	t.Cleanup(func() {
		for _, p := range pids {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	})
}
