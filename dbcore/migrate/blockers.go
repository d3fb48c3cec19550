package migrate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lifeboat/dbcore"
)

// Blocker is a session, or a prepared transaction, that somebody waits for.
type Blocker struct {
	// PID is 0 for a prepared transaction; then GID is its name.
	PID int    `json:"pid"`
	GID string `json:"gid,omitempty"`

	User        string `json:"user,omitempty"`
	Application string `json:"application,omitempty"`
	Address     string `json:"address,omitempty"`
	// State is pg_stat_activity's: active, idle in transaction ...
	State string `json:"state,omitempty"`
	// Seconds is the age of its transaction.
	Seconds float64 `json:"seconds,omitempty"`
	Query   string  `json:"query,omitempty"`
	// Lock is what it was waited for: "AccessExclusiveLock on t".
	Lock string `json:"lock,omitempty"`
}

func (b Blocker) String() string {
	if b.GID != "" {
		return fmt.Sprintf("prepared transaction %q of %s, %.0f s old (COMMIT PREPARED or ROLLBACK PREPARED ends it)", b.GID, b.User, b.Seconds)
	}
	s := fmt.Sprintf("process %d (%s, %s, %s, %.1f s): %s", b.PID, b.User, b.Application, b.State, b.Seconds, shorten(b.Query, 80))
	if b.Lock != "" {
		s += ", waited for " + b.Lock
	}
	return s
}

// blockersSQL asks who is in the way of a process. A prepared transaction has the number 0 in pg_blocking_pids; which one
// it is, its locks on the same object tell. They have the virtual transaction in common with the lock on its own number.
const blockersSQL = `
with waits as (select * from pg_locks where pid = $1 and not granted limit 1),
what as (select coalesce(max(mode || coalesce(' on ' || relation::regclass::text, '')), '') as lock from waits)
select coalesce(a.pid, 0)::int as pid, '' as gid, coalesce(a.usename, '')::text as "user", coalesce(a.application_name, '') as application,
	coalesce(a.client_addr::text, 'local') as address, coalesce(a.state, a.backend_type, '') as state,
	coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8 as seconds, coalesce(left(a.query, 500), '') as query, what.lock
from what, (select distinct unnest(pg_blocking_pids($1)) as pid) b join pg_stat_activity a on a.pid = b.pid
union all
select 0, x.gid, x.owner::text, '', '', 'prepared', extract(epoch from clock_timestamp() - x.prepared)::float8, '', what.lock
from what, pg_prepared_xacts x
where 0 = any(pg_blocking_pids($1)) and exists (
	select from pg_locks own join pg_locks l using (virtualtransaction), waits w
	where own.locktype = 'transactionid' and own.transactionid = x.transaction and own.pid is null and l.pid is null and l.locktype = w.locktype and l.relation is not distinct from w.relation and l.database is not distinct from w.database)`

func blockersOf(ctx context.Context, q dbcore.Querier, pid uint32) ([]Blocker, error) {
	list, err := dbcore.Collect[Blocker](ctx, q, blockersSQL, int32(pid))
	if err != nil {
		return nil, fmt.Errorf("ask who blocks process %d: %w", pid, err)
	}
	return list, nil
}

// watcher looks, on a session of its own, who is in the way of another: once the wait has ended nobody can tell any
// more. Without such a session (all slots taken) it sees nothing, and the migration goes on.
type watcher struct {
	conn  *dbcore.Conn
	pid   uint32
	every time.Duration
	log   *slog.Logger

	query sync.Mutex // the session runs one at a time
	mu    sync.Mutex
	last  []Blocker
}

const watchQueryTimeout = 5 * time.Second

func (m *Migrator) newWatcher(ctx context.Context, pid uint32) *watcher {
	cfg := m.opts.Config
	cfg.ApplicationName += " (watching)"
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		m.log.WarnContext(ctx, "no second connection: whoever blocks a statement will not be named", "error", err)
		conn = nil
	}
	every := min(max(m.opts.LockTimeout/5, 20*time.Millisecond), time.Second)
	return &watcher{conn: conn, pid: pid, every: every, log: m.log}
}

// watch runs until stop is called, and calls seen whenever somebody is in the way.
func (w *watcher) watch(seen func([]Blocker)) (stop func()) {
	return w.repeat(w.every, func() { w.look(seen) })
}

const sampleEvery = 10 * time.Millisecond

// sample runs until stop is called, and gives away the locks that the other session holds.
func (w *watcher) sample(seen func([]TableLock)) (stop func()) {
	return w.repeat(sampleEvery, func() {
		ctx, cancel := context.WithTimeout(context.Background(), watchQueryTimeout)
		defer cancel()
		w.query.Lock()
		defer w.query.Unlock()
		if w.conn.Closed() {
			return
		}
		if locks, err := locksOf(ctx, w.conn, w.pid); err == nil {
			seen(locks)
		}
	})
}

func (w *watcher) repeat(every time.Duration, fn func()) (stop func()) {
	if w.conn == nil {
		return func() {}
	}
	done, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fn()
			}
		}
	}()
	return func() { close(done); <-finished }
}

// look uses a context of its own: the end of the caller's would cost the session in the middle of a query.
func (w *watcher) look(seen func([]Blocker)) {
	w.query.Lock()
	defer w.query.Unlock()
	if w.conn.Closed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), watchQueryTimeout)
	defer cancel()
	list, err := blockersOf(ctx, w.conn, w.pid)
	if err != nil {
		w.log.Warn("cannot see who blocks the migration", "error", err)
		return
	}
	if len(list) == 0 {
		return
	}
	w.mu.Lock()
	w.last = list
	w.mu.Unlock()
	seen(list)
}

// blockers returns those seen since the last call.
func (w *watcher) blockers() []Blocker {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.last
	w.last = nil
	return list
}

func (w *watcher) close() {
	if w.conn != nil {
		_ = w.conn.Close() // it only ever read
	}
}
