package dbcore

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// gate stands between the DB of a Cluster's node and its server. While it is closed, no connection is given out and no
// COMMIT is sent, so that a former primary gets no write, also through a *DB that somebody has kept. A DB that belongs to
// no Cluster has none.
type gate struct {
	closed  atomic.Pointer[fencedError]
	conns   sync.Map    // *pgx.Conn that are open
	primary atomic.Bool // the node is the elected primary: a new connection must not lead to a standby

	// failed hears what went wrong, in the middle of somebody's request.
	failed func(v Verdict)
	// current is the primary's DB, which knows best what became of a COMMIT after a failover.
	current func() *DB
}

// withGate is the Cluster's own option.
func withGate(g *gate) Option { return func(p *policy) { p.gate = g } }

// check says why nothing may be sent; nil if it may.
func (g *gate) check() error {
	if g == nil {
		return nil
	}
	if e := g.closed.Load(); e != nil {
		return e
	}
	return nil
}

// observe passes on what a failure means. A failure of the gate's own making means nothing new.
func (g *gate) observe(v Verdict) {
	if g != nil && (v.SuspectRole || v.SuspectPool || v.Health == HealthFailure) {
		g.failed(v)
	}
}

// hook has every new connection checked by what the server reports of itself, without a round trip.
func (g *gate) hook(cfg *pgconn.Config) {
	if g == nil {
		return
	}
	isPrimary := validateRole("primary")
	cfg.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if !g.primary.Load() {
			return nil
		}
		return isPrimary(ctx, conn)
	}
}

// opened refuses a new connection if the gate was closed meanwhile, and remembers it otherwise.
func (g *gate) opened(conn *pgx.Conn) error {
	if g == nil {
		return nil
	}
	g.conns.Store(conn, nil)
	if err := g.check(); err != nil {
		g.conns.Delete(conn)
		return err
	}
	return nil
}

func (g *gate) ended(conn *pgx.Conn) {
	if g != nil {
		g.conns.Delete(conn)
	}
}

// cut breaks all connections, those in use as well: no answer of the server can come any more, and nobody waits for one that
// hangs. What was under way ends as it does with any lost connection.
func (g *gate) cut() {
	g.conns.Range(func(key, _ any) bool {
		conn := key.(*pgx.Conn).PgConn().Conn() //nolint:forcetypeassert // nothing else is stored
		if encrypted, ok := conn.(*tls.Conn); ok {
			conn = encrypted.NetConn() // says no farewell, for which it might have to wait
		}
		_ = conn.Close()
		return true
	})
}

// decider is the DB to ask about a COMMIT whose answer was lost.
func (db *DB) decider() *DB {
	if g := db.policy.gate; g != nil {
		if now := g.current(); now != nil {
			return now
		}
	}
	return db
}

// fencedError is ErrFenced with its reason.
type fencedError struct {
	node   string
	reason string
}

func (e *fencedError) Error() string {
	return "nothing was sent to " + e.node + ": " + ErrFenced.Error() + ": " + e.reason + "; ask the Cluster for the primary again"
}

func (e *fencedError) Is(target error) bool { return target == ErrFenced }

// SafeToRetry is what pgconn.SafeToRetry asks.
func (e *fencedError) SafeToRetry() bool { return true }
