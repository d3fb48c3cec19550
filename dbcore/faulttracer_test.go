package dbcore_test

import (
	"context"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// callKey is the key of the *tracedCall in a context.
type callKey struct{}

// tracedCall is one call to dbcore that may have a trap on its way.
type tracedCall struct {
	id string
	// start is the trap for its next new connection, statement that for a statement for which wants is true.
	start, statement *trap
	wants            func(sql string) bool

	bitten atomic.Int64 // attempts that failed once the trap had sprung
	onBite func()       // called for the first; may be nil
}

func (c *tracedCall) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func (c *tracedCall) sprung() bool {
	return c.start != nil && c.start.sprung.Load() || c.statement != nil && c.statement.sprung.Load()
}

func (c *tracedCall) note(err error) {
	if err != nil && c.sprung() && c.bitten.Add(1) == 1 && c.onBite != nil {
		c.onBite()
	}
}

// faultTracer leads the traps of calls to the proxy: contexts keep their values through pools and detached COMMITs.
type faultTracer struct{ p *faultProxy }

var (
	_ pgx.QueryTracer   = faultTracer{}
	_ pgx.ConnectTracer = faultTracer{}
)

func (t faultTracer) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	if c, ok := ctx.Value(callKey{}).(*tracedCall); ok {
		data.ConnConfig.RuntimeParams["application_name"] = c.id // of a copy of the pool's settings
		if c.start != nil && !c.start.sprung.Load() {
			t.p.armStart(c.id, c.start)
		}
	}
	return ctx
}

func (t faultTracer) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	if c, ok := ctx.Value(callKey{}).(*tracedCall); ok {
		c.note(data.Err)
	}
}

func (t faultTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if c, ok := ctx.Value(callKey{}).(*tracedCall); ok && c.statement != nil && !c.statement.sprung.Load() && c.wants(data.SQL) {
		t.p.arm(conn.PgConn().PID(), c.statement)
	}
	return ctx
}

func (t faultTracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	if c, ok := ctx.Value(callKey{}).(*tracedCall); ok {
		t.p.arm(conn.PgConn().PID(), nil)
		c.note(data.Err)
	}
}
