package dbcore_test

import (
	"context"
	"errors"
	"strconv"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// Where the traps of TestFaultProxy are.
const (
	inStartup = iota
	inInsert
	inInsertWithArgs
	inCommit
	inTransaction
)

// TestFaultProxy: each trap does to the client and on the server what its name says, with retries switched off. What the
// campaign concludes rests on this.
func TestFaultProxy(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists trapped; create table trapped (a int)")
	p := newFaultProxy(t, srv.socket+"/.s.PGSQL."+strconv.Itoa(srv.port))
	cfg := p.config("postgres")
	cfg.MaxIdleConns = -1 // each call makes a connection
	db, err := dbcore.Open(t.Context(), cfg, dbcore.WithTracer(faultTracer{p}),
		dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 1}), dbcore.WithBreaker(dbcore.BreakerConfig{Mode: dbcore.ModeDisabled}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	kill := func(pid uint32) {
		if !one[bool](t, direct, "select pg_terminate_backend($1, 10000)", pid) {
			t.Errorf("no process %d", pid)
		}
	}
	for _, c := range []struct {
		name  string
		where int
		trap  *trap
		is    error // nil: no error
		state string
		rows  int // -1: open
		least time.Duration
	}{
		{name: "startup dropped", where: inStartup, trap: &trap{at: atRequest}, is: errAny},
		{name: "startup reset", where: inStartup, trap: &trap{at: atRequest, reset: true}, is: syscall.ECONNRESET},
		{name: "startup cut once sent", where: inStartup, trap: &trap{at: atSent}, is: errAny},
		{name: "startup half answered", where: inStartup, trap: &trap{at: atReply, part: 0.5}, is: errAny},
		{name: "startup stalled", where: inStartup, trap: &trap{at: atRequest, stall: 50 * time.Millisecond}, is: errAny, least: 50 * time.Millisecond},
		{name: "startup terminated", where: inStartup, trap: &trap{at: atReply, passOn: true, withoutReady: true, meanwhile: kill}, is: errAny, state: "57P01"},
		{name: "statement dropped", where: inInsert, trap: &trap{at: atRequest}, is: dbcore.ErrConnectionLost},
		{name: "statement reset", where: inInsertWithArgs, trap: &trap{at: atRequest, reset: true}, is: syscall.ECONNRESET},
		{name: "statement cut once sent", where: inInsert, trap: &trap{at: atSent}, is: dbcore.ErrConnectionLost, rows: -1},
		{name: "answer dropped", where: inInsert, trap: &trap{at: atReply}, is: dbcore.ErrConnectionLost, rows: 1},
		{name: "answer reset", where: inInsertWithArgs, trap: &trap{at: atReply, reset: true}, is: syscall.ECONNRESET, rows: 1},
		{name: "half an answer", where: inInsertWithArgs, trap: &trap{at: atReply, part: 0.5}, is: dbcore.ErrConnectionLost, rows: 1},
		{name: "all of an answer but a byte", where: inInsertWithArgs, trap: &trap{at: atReply, part: 1}, is: dbcore.ErrConnectionLost, rows: 1},
		{name: "answer stalled", where: inInsert, trap: &trap{at: atReply, stall: 50 * time.Millisecond}, is: dbcore.ErrConnectionLost, rows: 1, least: 50 * time.Millisecond},
		{name: "answer only held up", where: inInsert, trap: &trap{at: atReply, passOn: true}, rows: 1},
		{name: "request only held up", where: inInsertWithArgs, trap: &trap{at: atRequest, passOn: true}, rows: 1},
		{name: "idle session terminated", where: inInsertWithArgs, trap: &trap{at: atRequest, passOn: true, meanwhile: kill}, is: errAny},
		{name: "in transaction", where: inTransaction, trap: &trap{at: atReply}, is: dbcore.ErrConnectionLost},
		{name: "COMMIT dropped", where: inCommit, trap: &trap{at: atRequest}, is: dbcore.ErrCommitAmbiguous},
		{name: "COMMIT answered", where: inCommit, trap: &trap{at: atReply}, is: dbcore.ErrCommitAmbiguous, rows: 1},
		{name: "COMMIT terminated before", where: inCommit, trap: &trap{at: atRequest, passOn: true, meanwhile: kill}, is: dbcore.ErrCommitAmbiguous},
		{name: "COMMIT half answered", where: inCommit, trap: &trap{at: atReply, part: 0.9}, is: dbcore.ErrCommitAmbiguous, rows: 1},
		{name: "COMMIT late", where: inCommit, trap: &trap{at: atRequest, late: true}, is: dbcore.ErrCommitAmbiguous, rows: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustExec(t, direct, "truncate trapped")
			call := &tracedCall{id: c.name, statement: c.trap, wants: func(sql string) bool { return c.where != inCommit || sql == "commit" }}
			if c.where == inStartup {
				call.start, call.statement = c.trap, nil
			}
			began := time.Now()
			err := runTrapped(call.context(t.Context()), db, c.where)
			if (err == nil) != (c.is == nil) || c.is != nil && !errors.Is(c.is, errAny) && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %v", err, c.is)
			}
			if c.state != "" && dbcore.SQLState(err) != c.state {
				t.Errorf("got %v, want SQLSTATE %s", err, c.state)
			}
			if !c.trap.sprung.Load() {
				t.Error("the trap has not sprung")
			}
			if (call.bitten.Load() > 0) != (err != nil) {
				t.Errorf("%d attempts noted as failed", call.bitten.Load())
			}
			if d := time.Since(began); d < c.least {
				t.Errorf("took only %s", d)
			}
			eventually(t, "the session has ended", func() bool {
				return one[int](t, direct, "select count(*) from pg_stat_activity where application_name = $1", c.name) == 0
			})
			if n := one[int](t, direct, "select count(*) from trapped"); n != c.rows && c.rows >= 0 {
				t.Errorf("%d rows, want %d", n, c.rows)
			}
		})
	}
}

// errAny stands for any error.
var errAny = errors.New("any error")

func runTrapped(ctx context.Context, db *dbcore.DB, where int) error {
	var err error
	switch where {
	case inCommit, inTransaction:
		err = db.RunTx(ctx, dbcore.TxOptions{CommitTimeout: 300 * time.Millisecond}, insert("trapped", 1))
	case inInsertWithArgs, inStartup:
		_, err = db.Exec(ctx, "insert into trapped values ($1)", 1)
	default:
		_, err = db.Exec(ctx, "insert into trapped values (1)")
	}
	return err
}

// TestFaultProxyUnharmed: without a trap the proxy changes nothing, also not for a reply that is larger than its buffers.
func TestFaultProxyUnharmed(t *testing.T) {
	p := newFaultProxy(t, srv.socket+"/.s.PGSQL."+strconv.Itoa(srv.port))
	db := openDB(t, p.config("postgres"))
	got, err := dbcore.Collect[string](t.Context(), db, "select repeat('x', $1) from generate_series(1, 5)", 300_000)
	if err != nil || len(got) != 5 || len(got[4]) != 300_000 {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := db.Exec(ctx, "select pg_sleep(60)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the cancel request came through", func() bool {
		return one[int](t, db, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'") == 0
	})
}

// TestCommitTimeout: it is COMMIT's own time that is up then, not the caller's. What may be repeated is.
func TestCommitTimeout(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists timed; create table timed (a int)")
	if err := dbcore.CreateTokenTable(t.Context(), direct, ""); err != nil {
		t.Fatal(err)
	}
	p := newFaultProxy(t, srv.socket+"/.s.PGSQL."+strconv.Itoa(srv.port))
	db, err := dbcore.Open(t.Context(), p.config("postgres"), dbcore.WithTracer(faultTracer{p}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	once := "insert into timed select 1 where not exists (select from timed)"
	for name, c := range map[string]struct {
		op   dbcore.Op
		opts dbcore.TxOptions
		sql  string
	}{
		"idempotent":   {db.Op("timed").Idempotent(), dbcore.TxOptions{}, once},
		"xid":          {db.Op("timed"), dbcore.TxOptions{Verify: dbcore.VerifyXID}, "insert into timed values (1)"},
		"token":        {db.Op("timed"), dbcore.TxOptions{Verify: dbcore.VerifyToken}, "insert into timed values (1)"},
		"only reading": {db.Op("timed"), dbcore.TxOptions{ReadOnly: true}, "select 1"},
	} {
		t.Run(name, func(t *testing.T) {
			mustExec(t, direct, "truncate timed")
			call := &tracedCall{
				id: name, statement: &trap{at: atRequest, stall: 300 * time.Millisecond},
				wants: func(sql string) bool { return sql == "commit" },
			}
			c.opts.CommitTimeout, c.opts.Report = 100*time.Millisecond, new(dbcore.TxReport)
			err := c.op.RunTx(call.context(t.Context()), c.opts, func(ctx context.Context, tx *dbcore.Tx) error {
				_, err := tx.Exec(ctx, c.sql)
				return err
			})
			if err != nil || c.opts.Report.Attempts != 2 {
				t.Errorf("%d attempts, %v", c.opts.Report.Attempts, err)
			}
			if n := one[int](t, direct, "select count(*) from timed"); n != count(!c.opts.ReadOnly) {
				t.Errorf("%d rows", n)
			}
		})
	}
}
