package dbcore_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

// txTable makes an empty table of numbers.
func txTable(t *testing.T, q dbcore.Querier, name string) {
	t.Helper()
	mustExec(t, q, "drop table if exists "+name+"; create table "+name+" (a int primary key deferrable initially deferred)")
}

func insert(table string, values ...int) func(context.Context, *dbcore.Tx) error {
	return func(ctx context.Context, tx *dbcore.Tx) error {
		for _, v := range values {
			if _, err := tx.Exec(ctx, "insert into "+table+" values ($1)", v); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestRunTxOutcomes(t *testing.T) {
	cfg := socketConfig()
	cfg.MaxOpenConns = 1 // so that the next transaction meets the same connection
	db := openDB(t, cfg)
	txTable(t, db, "outcome")
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		name  string
		ctx   context.Context
		opts  dbcore.TxOptions
		fn    func(context.Context, *dbcore.Tx) error
		is    error
		state string
		rows  int // afterwards
		keeps bool
	}{
		{name: "commit", fn: insert("outcome", 1, 2), rows: 2, keeps: true},
		{name: "error", is: boom, keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			return errors.Join(insert("outcome", 1)(ctx, tx), boom)
		}},
		{name: "context ends between statements", ctx: ctx, is: context.Canceled, keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			err := insert("outcome", 1)(ctx, tx)
			cancel()
			return err
		}},
		{name: "failed statement", state: "22012", keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("outcome", 1)(ctx, tx)
			_, err := tx.Exec(ctx, "select 1/0")
			return err
		}},
		{name: "swallowed error", is: dbcore.ErrTxAborted, keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("outcome", 1)(ctx, tx)
			_, _ = tx.Exec(ctx, "select 1/0")
			return nil
		}},
		{name: "commit refused", state: "23505", keeps: true, fn: insert("outcome", 1, 1)},
		{name: "read only", opts: dbcore.TxOptions{ReadOnly: true}, state: "25006", keeps: true, fn: insert("outcome", 1)},
		{name: "own rollback", is: dbcore.ErrTxDone, keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("outcome", 1)(ctx, tx)
			_, err := tx.Exec(ctx, "rollback")
			return err
		}},
		{name: "rows left open", fn: func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("outcome", 1)(ctx, tx)
			_, err := tx.Query(ctx, "select generate_series(1, 100000)")
			return err
		}, keeps: false},
		{name: "rows read", rows: 1, keeps: true, fn: func(ctx context.Context, tx *dbcore.Tx) error {
			if n, err := dbcore.Collect[int](ctx, tx, "select generate_series(1, 100000)"); err != nil || len(n) != 100000 {
				return errors.Join(err, boom)
			}
			return insert("outcome", 1)(ctx, tx)
		}},
		{name: "unknown level", opts: dbcore.TxOptions{Isolation: "chaos"}, fn: insert("outcome", 1), keeps: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustExec(t, db, "truncate outcome")
			pid := one[int](t, db, "select pg_backend_pid()")
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			err := db.RunTx(c.ctx, c.opts, c.fn)
			switch {
			case c.is != nil && !errors.Is(err, c.is), c.state != dbcore.SQLState(err), (c.rows == 0) == (err == nil), errors.Is(err, dbcore.ErrCommitAmbiguous):
				t.Errorf("got %v, want %v %s", err, c.is, c.state)
			}
			if n := one[int](t, db, "select count(*) from outcome"); n != c.rows {
				t.Errorf("%d rows, want %d", n, c.rows)
			}
			if kept := one[int](t, db, "select pg_backend_pid()") == pid; kept != c.keeps {
				t.Errorf("connection kept: %t, want %t", kept, c.keeps)
			}
		})
	}
}

func TestRunTxPanic(t *testing.T) {
	cfg := socketConfig()
	cfg.MaxOpenConns = 1
	db := openDB(t, cfg)
	txTable(t, db, "panics")
	pid := one[int](t, db, "select pg_backend_pid()")
	func() {
		defer func() {
			if got := recover(); got != "ouch" {
				t.Errorf("recovered %v", got)
			}
		}()
		_ = db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("panics", 1)(ctx, tx)
			panic("ouch")
		})
		t.Error("the panic was lost")
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
			_ = insert("panics", 1)(ctx, tx)
			runtime.Goexit() // what t.FailNow does
			return nil
		})
	}()
	<-done
	if n := one[int](t, db, "select count(*) from panics"); n != 0 {
		t.Errorf("%d rows stayed", n)
	}
	if got := one[int](t, db, "select pg_backend_pid()"); got != pid {
		t.Error("the connection was lost")
	}
}

func TestTxOptions(t *testing.T) {
	conn := connect(t, socketConfig())
	for _, c := range []struct {
		opts dbcore.TxOptions
		want string
	}{
		{dbcore.TxOptions{}, "read committed off off"},
		{dbcore.TxOptions{Isolation: dbcore.ReadCommitted}, "read committed off off"},
		{dbcore.TxOptions{Isolation: dbcore.RepeatableRead, ReadOnly: true}, "repeatable read on off"},
		{dbcore.TxOptions{Isolation: dbcore.Serializable, ReadOnly: true, Deferrable: true}, "serializable on on"},
	} {
		var kept *dbcore.Tx
		err := conn.RunTx(t.Context(), c.opts, func(ctx context.Context, tx *dbcore.Tx) error {
			kept = tx
			got, err := dbcore.One[string](ctx, tx, `select concat_ws(' ', current_setting('transaction_isolation'),
				current_setting('transaction_read_only'), current_setting('transaction_deferrable'))`)
			if got != c.want {
				t.Errorf("%+v gives %s, want %s", c.opts, got, c.want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := kept.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrTxDone) {
			t.Errorf("after the end: got %v", err)
		}
		if _, err := kept.Query(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrTxDone) {
			t.Errorf("after the end: got %v", err)
		}
	}
}

// TestSerializationFailure: a conflict at COMMIT is a definite no.
func TestSerializationFailure(t *testing.T) {
	db := openDB(t, socketConfig(), dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 1}))
	mustExec(t, db, "drop table if exists ser; create table ser (a int); insert into ser values (1)")
	opts := dbcore.TxOptions{Isolation: dbcore.Serializable}
	readThenAdd := func(ctx context.Context, tx *dbcore.Tx) error {
		if _, err := dbcore.One[int](ctx, tx, "select count(*) from ser"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into ser values (2)")
		return err
	}
	err := db.RunTx(t.Context(), opts, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := readThenAdd(ctx, tx); err != nil {
			return err
		}
		return db.RunTx(ctx, opts, readThenAdd)
	})
	if dbcore.SQLState(err) != "40001" || errors.Is(err, dbcore.ErrCommitAmbiguous) {
		t.Errorf("got %v", err)
	}
	if n := one[int](t, db, "select count(*) from ser"); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// TestCommitCut breaks the connection around COMMIT (see proxy). Whatever happened on the server, the answer is never
// a wrong yes or no.
func TestCommitCut(t *testing.T) {
	direct := openDB(t, socketConfig())
	txTable(t, direct, "cuts")
	for _, c := range []struct {
		name string
		what cut
		rows int
	}{
		{"before the server got it", cutRequest, 0},
		{"after the server committed", cutReply, 1},
		{"server committed and is silent", holdReply, 1},
		{"network swallows it", holdRequest, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustExec(t, direct, "truncate cuts")
			p := newProxy(t, "commit\x00")
			db := openDB(t, p.config())
			p.set(c.what)
			opts := dbcore.TxOptions{CommitTimeout: 300 * time.Millisecond}
			began := time.Now()
			err := db.RunTx(t.Context(), opts, insert("cuts", 1))
			if !errors.Is(err, dbcore.ErrCommitAmbiguous) || pgconn.SafeToRetry(err) || errors.Is(err, dbcore.ErrTxAborted) {
				t.Errorf("got %v (SafeToRetry %t), want ErrCommitAmbiguous", err, pgconn.SafeToRetry(err))
			}
			if p.hit() != 1 {
				t.Errorf("the proxy saw %d commits", p.hit())
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("took %s", d)
			}
			eventually(t, "the server has ended the transaction", func() bool {
				return one[int](t, direct, "select count(*) from pg_locks where relation = 'cuts'::regclass") == 0 || c.what == holdRequest
			})
			if n := one[int](t, direct, "select count(*) from cuts"); n != c.rows {
				t.Errorf("%d rows, want %d", n, c.rows)
			}
			// The pool recovers.
			if n := one[int](t, db, "select 1"); n != 1 {
				t.Error("pool does not work any more")
			}
			p.closeAll(false)
		})
	}
}

// TestLostBeforeCommit: where it is certain that COMMIT was not sent, the answer is a definite no.
func TestLostBeforeCommit(t *testing.T) {
	direct := openDB(t, socketConfig())
	txTable(t, direct, "lost")
	p := newProxy(t, "commit\x00")
	db := openDB(t, p.config(), dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 1}))

	err := db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		err := insert("lost", 1)(ctx, tx)
		if !p.connected(t) {
			t.Error("no connection to break")
		}
		p.closeAll(true) // a RST: the write of COMMIT fails before its first byte
		eventually(t, "the client's kernel has the RST", func() bool { return !p.connected(t) })
		return err
	})
	if err == nil || errors.Is(err, dbcore.ErrCommitAmbiguous) || p.hit() != 0 {
		t.Errorf("reset: got %v, %d commits seen", err, p.hit())
	}

	err = db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		err := insert("lost", 2)(ctx, tx)
		p.closeAll(false)
		if _, lost := tx.Exec(ctx, "select 1"); !errors.Is(lost, dbcore.ErrConnectionLost) && !strings.Contains(lost.Error(), "reset") {
			t.Errorf("statement on a broken connection: got %v", lost)
		}
		return err // swallows the loss
	})
	if !errors.Is(err, dbcore.ErrConnectionLost) || errors.Is(err, dbcore.ErrCommitAmbiguous) {
		t.Errorf("swallowed loss: got %v", err)
	}
	eventually(t, "nothing remains", func() bool { return one[int](t, direct, "select count(*) from lost") == 0 })
}

// withoutStandby makes every COMMIT wait for a synchronous standby that does not exist, but those of the returned session.
func withoutStandby(t *testing.T) *dbcore.Conn {
	t.Helper()
	watcher := connect(t, socketConfig())
	mustExec(t, watcher, "set synchronous_commit = local")
	mustExec(t, watcher, "alter system set synchronous_standby_names = 'nobody'")
	mustExec(t, watcher, "select pg_reload_conf()")
	t.Cleanup(func() { // before watcher is closed
		mustExec(t, watcher, "alter system reset synchronous_standby_names")
		mustExec(t, watcher, "select pg_reload_conf()")
		eventually(t, "setting is withdrawn", func() bool {
			return one[string](t, watcher, "select current_setting('synchronous_standby_names')") == ""
		})
	})
	eventually(t, "setting is in force", func() bool {
		return one[string](t, watcher, "select current_setting('synchronous_standby_names')") == "nobody"
	})
	return watcher
}

// TestCommitTerminated: the session is ended while COMMIT waits for a synchronous standby that does not exist. The
// transaction is committed. When a person ends the session the server says so in a warning, before its FATAL 57P01; when the
// client's patience ends nobody has said anything.
func TestCommitTerminated(t *testing.T) {
	db := openDB(t, socketConfig())
	txTable(t, db, "waits")
	watcher := withoutStandby(t)
	waiting := func() bool {
		return one[int](t, watcher, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == 1
	}
	on := func(function string) func() {
		return func() {
			mustExec(t, watcher, "select "+function+"(pid) from pg_stat_activity where wait_event = 'SyncRep'")
		}
	}
	for name, act := range map[string]struct {
		end           func()
		want          error
		notReplicated bool
	}{
		"terminated":          {on("pg_terminate_backend"), nil, true},
		"cancelled":           {on("pg_cancel_backend"), nil, true},
		"cancelled, required": {on("pg_cancel_backend"), dbcore.ErrCommittedNotReplicated, true},
		"timeout":             {func() {}, dbcore.ErrCommitAmbiguous, false},
	} {
		mustExec(t, watcher, "truncate waits")
		session := connect(t, socketConfig())
		result := make(chan error, 1)
		var report dbcore.TxReport
		opts := dbcore.TxOptions{CommitTimeout: 2 * time.Second, Report: &report, RequireReplication: name == "cancelled, required"}
		go func() { result <- session.RunTx(context.Background(), opts, insert("waits", 1)) }()
		eventually(t, name+": commit waits", waiting)
		act.end()
		if err := <-result; !errors.Is(err, act.want) || report.NotReplicated != act.notReplicated {
			t.Errorf("%s: got %v, want %v; not replicated %t", name, err, act.want, report.NotReplicated)
		}
		eventually(t, name+": the row is there", func() bool { return one[int](t, watcher, "select count(*) from waits") == 1 })
	}
}

// TestLostReply: pgx 5.12 calls a statement without arguments whose reply was lost safe to send again, though the
// server has run it. We do not.
func TestLostReply(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists reply; create table reply (a int)")
	p := newProxy(t, "insert into reply")
	pgxIsWrong := 0
	for _, c := range []struct {
		name string
		what cut
		args []any
		rows int
	}{
		{"no arguments, request lost", cutRequest, nil, 0},
		{"no arguments, reply lost", cutReply, nil, 1},
		{"arguments, request lost", cutRequest, []any{1}, 0},
		{"arguments, reply lost", cutReply, []any{1}, 0}, // lost at Parse, the first of two round trips
	} {
		t.Run(c.name, func(t *testing.T) {
			mustExec(t, direct, "truncate reply")
			db := openDB(t, p.config())
			sql := "insert into reply values (1)"
			if c.args != nil {
				sql = "insert into reply values ($1)"
			}
			p.set(c.what)
			_, err := db.Exec(t.Context(), sql, c.args...)
			if !errors.Is(err, dbcore.ErrConnectionLost) || pgconn.SafeToRetry(err) {
				t.Errorf("got %v (SafeToRetry %t)", err, pgconn.SafeToRetry(err))
			}
			if n := one[int](t, direct, "select count(*) from reply"); n != c.rows {
				t.Errorf("%d rows, want %d", n, c.rows)
			}
			p.set(c.what)
			if _, err := db.Pool().Exec(t.Context(), sql, c.args...); err != nil && pgconn.SafeToRetry(err) {
				pgxIsWrong++
			}
		})
	}
	if pgxIsWrong == 0 {
		t.Error("pgx has mended SafeToRetry: lostError and the documents can be simplified")
	}
}
