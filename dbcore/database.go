package dbcore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// closeTimeout bounds the farewell to a server that may be gone.
const closeTimeout = 5 * time.Second

// DB is a pool of connections to one server, with the policies that requests to it pass: see Op. It is safe for
// concurrent use.
type DB struct {
	pool     *pgxpool.Pool
	target   target
	maxConns int32
	patience time.Duration // for a connection of a full pool; negative: the caller's
	pooler   bool

	policy   *policy
	counted  bool // somebody wants metrics of every request
	breakers *breakerSet
	plain    Op
	typical  median // how long a request takes

	// pgxpool has no limit of idle connections, so release keeps one: open and busy tell cheaply when to look closer.
	// busy counts from before a connection is acquired, so that it also tells whether one must be waited for.
	maxIdle int64
	open    atomic.Int64
	busy    atomic.Int64

	suspicion
}

// Open makes a pool and proves it by one connection, which stays in it. Each host gets cfg.ConnectTimeout. Open itself
// tries once: see ConnectWithRetry.
//
// The error is ErrInvalidConfig, or a *ConnectError that names host, database, user and a remedy, and never the
// password. Open changes nothing on the server; calling it again is safe.
func Open(ctx context.Context, cfg Config, opts ...Option) (*DB, error) {
	p, err := newPolicy(opts)
	if err != nil {
		return nil, err
	}
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, s, p)
}

func open(ctx context.Context, cfg Config, s *settings, p *policy) (*DB, error) {
	var err error
	db := &DB{
		target: s.target(), maxConns: s.pool.MaxConns, maxIdle: int64(s.maxIdle), patience: cfg.AcquireTimeout, pooler: cfg.Pooler,
		policy: p,
	}
	setDefault(&db.patience, DefaultAcquireTimeout)
	if _, none := p.metrics.(noMetrics); !none {
		db.counted = true
	}
	if db.breakers, err = newBreakerSet(p.breakerConfig(&db.target)); err != nil {
		return nil, err
	}
	db.plain = Op{db: db, breaker: db.breakers.get("")}
	db.hook(s.pool)
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

// ConnectWithRetry is Open, repeated by retry's rules while no connection can be made and Classify says that waiting can
// help: not for a wrong password, for instance. retry.MaxAttempts 0 is 3 here too; the context bounds the time.
//
// retry also becomes the DB's own, unless opts have WithRetry. The error is that of Open, or a *RetryError around it.
func ConnectWithRetry(ctx context.Context, cfg Config, retry RetryConfig, opts ...Option) (*DB, error) {
	opts = append([]Option{WithRetry(retry)}, opts...)
	p, err := newPolicy(opts)
	if err != nil {
		return nil, err
	}
	p.retry = retry.withDefaults()
	r := &retrying{db: &DB{policy: p}, op: "connect", began: time.Now()}
	for {
		began := time.Now()
		db, err := Open(ctx, cfg, opts...)
		if err == nil {
			return db, nil
		}
		a := Attempt{Err: err, Phase: PhaseConnect, Verdict: p.classify(err, PhaseConnect), Took: time.Since(began)}
		if err := r.next(ctx, a); err != nil {
			return nil, err
		}
	}
}

// hook puts this package into pgx's pool.
func (db *DB) hook(cfg *pgxpool.Config) {
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		if err := db.policy.gate.opened(conn); err != nil {
			return err
		}
		db.open.Add(1)
		metaOf(conn).generation = db.generation.Load()
		return nil
	}
	cfg.BeforeClose = func(conn *pgx.Conn) {
		db.policy.gate.ended(conn)
		db.open.Add(-1)
	}
	cfg.ShouldPing = db.shouldPing
	cfg.ConnConfig.OnNotice = onNotice
	db.policy.gate.hook(&cfg.ConnConfig.Config)
	if db.policy.tracer != nil {
		cfg.ConnConfig.Tracer = db.policy.tracer
	}
}

// firstConn waits a little longer than pgx may take to connect: pgx's own timeout tells what it was doing.
func (db *DB) firstConn(ctx context.Context, s *settings) (*pgxpool.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, s.connectBound()+time.Second)
	defer cancel()
	db.busy.Add(1)
	conn, err := db.pool.Acquire(bounded)
	if err != nil {
		db.busy.Add(-1)
		return nil, db.target.connectError(err)
	}
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
func (db *DB) Close() {
	db.pool.Close()
	db.breakers.close()
}

// Pool gives access to pgx's own pool, for what this package does not offer. Connections acquired there are outside
// MaxIdleConns and of this package's errors.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Budget is what the repetitions of the DB's requests are paid from: that of WithBudget, or its own.
func (db *DB) Budget() *Budget { return db.policy.budget }

// Exec runs one statement (or, without args, several that are separated by semicolons) and returns the number of
// rows that it touched, 0 for statements that touch none. Outside RunTx it commits by itself.
//
// An error that is ErrConnectionLost leaves open whether the statement took effect.
//
// It is repeated only if the server has certainly not run it, or has rolled it back for a reason that passes. To have it
// repeated after a lost connection, too, declare it: db.Op("name").Idempotent().Exec.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	return db.plain.Exec(ctx, sql, args...)
}

// Query runs one statement that returns rows, and waits for the first. The caller closes them; until then they hold a
// connection of the pool. Collect and One do so by themselves, and can be repeated as a whole.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	return db.plain.Query(ctx, sql, args...)
}

func (db *DB) collect(ctx context.Context, sql string, args []any, fn func(*Rows) error) error {
	return db.plain.collect(ctx, sql, args, fn)
}

// Acquire takes a connection out of the pool, for statements that must share a session. Close gives it back: undo
// what you changed of the session before (settings, locks, temporary tables). For a session that must never be shared
// use Connect.
//
// Behind a pooler in transaction mode that is ErrPooler. No policy applies to what runs on it.
func (db *DB) Acquire(ctx context.Context) (*Conn, error) {
	if db.pooler {
		return nil, fmt.Errorf("acquire a session: %w: connect to the server itself, past the pooler", ErrPooler)
	}
	conn, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn.Conn(), release: func() { db.release(conn) }}, nil
}

// acquire waits for a connection of a full pool only as long as db.patience. Whoever finds fewer busy than there may be has
// one for certain, and needs no timer.
func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if err := db.policy.gate.check(); err != nil {
		return nil, err
	}
	if n := db.busy.Add(1); n > int64(db.maxConns) && db.patience > 0 {
		return db.acquireBounded(ctx)
	}
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		db.busy.Add(-1)
		return nil, db.acquireError(ctx, err)
	}
	return conn, nil
}

func (db *DB) acquireBounded(ctx context.Context) (*pgxpool.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, db.patience)
	defer cancel()
	conn, err := db.pool.Acquire(bounded)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() == nil && bounded.Err() != nil:
		err = fmt.Errorf("acquire connection to %s: %w: all %d were in use for %s: find who holds them, or raise MaxOpenConns", db.target, ErrPoolSaturated, db.maxConns, db.patience)
	default:
		err = db.acquireError(ctx, err)
	}
	db.busy.Add(-1)
	return nil, err
}

func (db *DB) acquireError(ctx context.Context, err error) error {
	err = db.target.wrapAcquire(ctx, db.maxConns, err)
	v := db.policy.classify(err, PhaseConnect)
	db.policy.gate.observe(v)
	if v.Alert && ctx.Err() == nil {
		db.policy.logger.Error("no connection, and waiting will not help", "target", db.target.String(), "error", err)
	}
	return err
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
