package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"lifeboat/dbcore"
)

// session is the one connection that holds the lock and does the work. Because it is one and the same, the lock is held
// exactly as long as the work goes on, also when this process dies and the server still finishes a statement.
type session struct {
	m       *Migrator
	conn    *dbcore.Conn
	pid     uint32
	lock    [2]string // keys of the advisory locks
	t       tables
	watcher *watcher
	// observer measures the statements of a rehearsal; nil otherwise.
	observer *observer
}

// openSession connects, makes sure that there is no pooler in between, and takes the lock.
func (m *Migrator) openSession(ctx context.Context) (*session, error) {
	conn, err := dbcore.Connect(ctx, m.opts.Config)
	if err != nil {
		return nil, err
	}
	s := &session{m: m, conn: conn}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func (s *session) prepare(ctx context.Context) error {
	if err := s.direct(ctx); err != nil {
		return err
	}
	standby, err := dbcore.One[bool](ctx, s.conn, "select pg_is_in_recovery()")
	if err != nil {
		return err
	}
	if standby {
		return fmt.Errorf("%w: connect to the primary", ErrStandby)
	}
	if s.t, err = s.m.tables(ctx, s.conn); err != nil {
		return err
	}
	name, err := dbcore.One[string](ctx, s.conn, "select current_database()::text")
	if err != nil {
		return err
	}
	if s.lock, err = lockKeys(name, s.t.schema, s.t.table); err != nil {
		return err
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	s.watcher = s.m.newWatcher(ctx, s.pid)
	return nil
}

// direct refuses poolers: the process that answers must be the one that the connection was made to, twice. PgBouncer
// and its like send a made-up number when a client connects, in each of their modes.
func (s *session) direct(ctx context.Context) error {
	s.pid = s.conn.PID()
	for range 2 {
		pid, err := dbcore.One[int](ctx, s.conn, "select pg_backend_pid()")
		if err != nil {
			return err
		}
		if uint32(pid) != s.pid {
			return fmt.Errorf("migrate: %w: connected to process %d, answered by %d; a session's lock and settings would belong to whoever comes next, connect to the server itself",
				dbcore.ErrPooler, s.pid, pid)
		}
	}
	return nil
}

const (
	pollMin = 100 * time.Millisecond
	pollMax = 2 * time.Second
)

// tryLockSQL takes both locks or none.
const tryLockSQL = `select case when not pg_try_advisory_lock($1::bigint) then false when pg_try_advisory_lock($2::bigint) then true
	else not pg_advisory_unlock($1::bigint) end`

// acquire polls the lock. Each attempt is a statement of its own: nobody queues in the server, so nothing is left there
// when the context ends, and no snapshot is held for which CREATE INDEX CONCURRENTLY of the holder would have to wait.
func (s *session) acquire(ctx context.Context) error {
	start := time.Now()
	wait := pollMin
	for {
		got, err := dbcore.One[bool](ctx, s.conn, tryLockSQL, s.lock[0], s.lock[1])
		if err != nil {
			return fmt.Errorf("take the migration lock: %w", err)
		}
		if got {
			return nil
		}
		holders, err := s.holders(ctx)
		if err != nil {
			return err
		}
		waited := time.Since(start)
		if waited+wait > s.m.opts.LockWait {
			return &LockedError{Waited: waited, Holders: holders}
		}
		s.m.opts.Progress(Event{Kind: "waiting", Blockers: holders, Elapsed: waited})
		if err := sleep(ctx, jitter(wait)); err != nil {
			return fmt.Errorf("wait for the migration lock: %w", err)
		}
		wait = min(2*wait, pollMax)
	}
}

// holdersSQL finds an advisory lock of one bigint key: its halves are classid and objid, with objsubid 1
// (src/backend/utils/adt/lockfuncs.c, SET_LOCKTAG_INT64).
const holdersSQL = `
select a.pid::int as pid, '' as gid, coalesce(a.usename, '')::text as "user", coalesce(a.application_name, '') as application,
	coalesce(a.client_addr::text, 'local') as address, coalesce(a.state, '') as state,
	coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8 as seconds, coalesce(left(a.query, 500), '') as query, '' as lock
from pg_stat_activity a where a.pid in (select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database())
	and l.objsubid = 1 and (l.classid::bigint << 32 | l.objid::bigint) in ($1::bigint, $2::bigint))`

func (s *session) holders(ctx context.Context) ([]Blocker, error) {
	return holdersOf(ctx, s.conn, s.lock)
}

func holdersOf(ctx context.Context, q dbcore.Querier, lock [2]string) ([]Blocker, error) {
	list, err := dbcore.Collect[Blocker](ctx, q, holdersSQL, lock[0], lock[1])
	if err != nil {
		return nil, fmt.Errorf("ask who holds the migration lock: %w", err)
	}
	return list, nil
}

// verify makes sure, before each version, that this session still is the one that holds the lock, and brings back the
// settings that a file may have changed.
func (s *session) verify(ctx context.Context) error {
	holders, err := s.holders(ctx)
	if err != nil {
		return err
	}
	if len(holders) != 1 || uint32(holders[0].PID) != s.pid {
		return fmt.Errorf("%w: held by %v, this session is process %d", ErrLockLost, holders, s.pid)
	}
	if err := s.direct(ctx); err != nil {
		return err
	}
	return s.reset(ctx)
}

func (s *session) reset(ctx context.Context) error {
	for _, sql := range []string{"reset session authorization", "reset role", "reset all"} {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

const closeTimeout = 10 * time.Second

// close gives the lock back and looks at the answer: false means that somebody else could have been at work meanwhile.
func (s *session) close(ctx context.Context) error {
	s.watcher.close()
	if s.conn.Closed() {
		return s.conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	ok, err := dbcore.One[bool](ctx, s.conn, "select pg_advisory_unlock($1::bigint)::int + pg_advisory_unlock($2::bigint)::int = 2", s.lock[0], s.lock[1])
	switch {
	case err != nil:
		err = fmt.Errorf("give the migration lock back: %w", err)
	case !ok:
		err = fmt.Errorf("%w: it was not held any more at the end", ErrLockLost)
	}
	return errors.Join(err, s.conn.Close())
}

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
