package dbcore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// closeTimeout bounds the farewell to a server that may be gone.
const closeTimeout = 5 * time.Second

// DB is a pool of connections to one server. It is safe for concurrent use.
type DB struct {
	pool     *pgxpool.Pool
	target   target
	maxConns int32

	// pgxpool has no limit of idle connections, so release keeps one: open and busy tell cheaply when to look closer.
	maxIdle int64
	open    atomic.Int64
	busy    atomic.Int64
}

// Open makes a pool and proves it by one connection, which stays in it. Each host gets cfg.ConnectTimeout.
//
// The error is ErrInvalidConfig, or a *ConnectError that names host, database, user and a remedy, and never the
// password. Open changes nothing on the server; calling it again is safe.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	db := &DB{target: s.target(), maxConns: s.pool.MaxConns, maxIdle: int64(s.maxIdle)}
	s.pool.AfterConnect = func(context.Context, *pgx.Conn) error {
		db.open.Add(1)
		return nil
	}
	s.pool.BeforeClose = func(*pgx.Conn) { db.open.Add(-1) }
	if db.pool, err = pgxpool.NewWithConfig(ctx, s.pool); err != nil {
		return nil, db.target.connectError(err)
	}
	conn, err := db.firstConn(ctx, s)
	if err != nil {
		db.pool.Close()
		return nil, err
	}
	db.release(conn)
	return db, nil
}

// firstConn waits a little longer than pgx may take to connect: pgx's own timeout tells what it was doing.
func (db *DB) firstConn(ctx context.Context, s *settings) (*pgxpool.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, s.connectBound()+time.Second)
	defer cancel()
	conn, err := db.pool.Acquire(bounded)
	if err != nil {
		return nil, db.target.connectError(err)
	}
	db.busy.Add(1)
	return conn, nil
}

// connectBound is the time that all hosts of the settings may take together.
func (s *settings) connectBound() time.Duration {
	c := s.pool.ConnConfig
	hosts := 1
	host, port := c.Host, c.Port
	for _, f := range c.Fallbacks {
		if f.Host != host || f.Port != port {
			hosts++
		}
		host, port = f.Host, f.Port
	}
	return time.Duration(hosts) * c.ConnectTimeout
}

// Close ends all connections. It waits until those in use are given back.
func (db *DB) Close() { db.pool.Close() }

// Pool gives access to pgx's own pool, for what this package does not offer. Connections acquired there are outside
// MaxIdleConns and of this package's errors.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Exec runs one statement (or, without args, several that are separated by semicolons) and returns the number of
// rows that it touched, 0 for statements that touch none. Outside RunTx it commits by itself.
//
// An error that is ErrConnectionLost leaves open whether the statement took effect.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer db.release(conn)
	return execOn(ctx, conn.Conn(), sql, args)
}

// Query runs one statement that returns rows. The caller closes them; until then they hold a connection of the pool.
// Collect and One do so by themselves.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := queryOn(ctx, conn.Conn(), sql, args)
	if err != nil {
		db.release(conn)
		return nil, err
	}
	rows.release = func() { db.release(conn) }
	return rows, nil
}

// Acquire takes a connection out of the pool, for statements that must share a session. Close gives it back: undo
// what you changed of the session before (settings, locks, temporary tables). For a session that must never be shared
// use Connect.
func (db *DB) Acquire(ctx context.Context) (*Conn, error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn.Conn(), release: func() { db.release(conn) }}, nil
}

func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return nil, db.target.wrapAcquire(ctx, db.maxConns, err)
	}
	db.busy.Add(1)
	return conn, nil
}

// release gives conn back, or closes it if enough others are idle.
func (db *DB) release(conn *pgxpool.Conn) {
	// The counters miss connections that were acquired through Pool, so the pool has the last word.
	if db.open.Load()-db.busy.Add(-1) > db.maxIdle && int64(db.pool.Stat().IdleConns()) >= db.maxIdle {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		_ = conn.Conn().Close(ctx) // Release sees that it is closed and drops it
		cancel()
	}
	conn.Release()
}
