package dbcore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Conn is one session. Unlike a DB it is not safe for concurrent use.
//
// A Conn from Connect is direct and pinned: it is never pooled, never replaced and never connected again behind its
// user's back. That is what a backup session needs, because pg_backup_start ends with its session (R6).
type Conn struct {
	conn    *pgx.Conn
	release func() // gives the connection back to the pool; nil for a direct one
	done    bool
}

// Connect opens one session outside any pool. Each host gets cfg.ConnectTimeout. Errors are those of Open.
//
// A context that ends in the middle of a statement closes the session.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	// The bound also covers the resolver, for which pgx has none.
	ctx, cancel := context.WithTimeout(ctx, s.connectBound()+time.Second)
	defer cancel()
	s.pool.ConnConfig.OnNotice = onNotice
	conn, err := pgx.ConnectConfig(ctx, s.pool.ConnConfig)
	if err != nil {
		return nil, s.target().connectError(err)
	}
	return &Conn{conn: conn}, nil
}

// Exec is DB.Exec on this session.
func (c *Conn) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	if c.done {
		return 0, ErrClosed
	}
	return execOn(ctx, c.conn, sql, args)
}

// Query is DB.Query on this session. No other statement can run on it until the rows are closed.
func (c *Conn) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	if c.done {
		return nil, ErrClosed
	}
	return queryOn(ctx, c.conn, sql, args)
}

// Closed says that the session has ended: by Close, by a context that ended in the middle of a statement, or by a
// failure that a statement has met. A server that died while the session was idle is only noticed by the next
// statement.
func (c *Conn) Closed() bool { return c.done || c.conn.IsClosed() }

// PID returns the process id of the server's backend.
func (c *Conn) PID() uint32 { return c.conn.PgConn().PID() }

// Parameter returns a setting that the server reports by itself, such as server_version or in_hot_standby, as of the
// last statement; "" if it reports no such setting (section 55.2.7, "Asynchronous Operations"). It costs no round trip.
func (c *Conn) Parameter(name string) string { return c.conn.PgConn().ParameterStatus(name) }

// Close ends the session, or gives it back to the pool that it came from. Closing twice is harmless.
func (c *Conn) Close() error {
	if c.done {
		return nil
	}
	c.done = true
	if c.release != nil {
		c.release()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.conn.Close(ctx)
}
