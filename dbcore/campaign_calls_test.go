package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/dbcore"
)

// callKind is what a worker of the campaign asks of dbcore.
type callKind int

const (
	callInsert     callKind = iota // Exec, not idempotent: run twice it leaves two rows
	callInsertText                 // the same without arguments, which pgx sends by the simple protocol
	callUpsert                     // Exec, declared idempotent
	callRead                       // Collect, declared idempotent
	callTx                         // RunTx that writes three rows
	callTxXID                      // the same with VerifyXID
	callTxToken                    // the same with VerifyToken
	callTxRead                     // RunTx, READ ONLY
	callTxUpsert                   // RunTx, declared idempotent
)

var (
	autocommitCalls = []callKind{callInsert, callInsertText, callUpsert, callRead}
	txCalls         = []callKind{callTx, callTxXID, callTxToken, callTxRead, callTxUpsert}
)

// String names a kind of call in messages.
func (k callKind) String() string {
	return [...]string{"insert", "insert without arguments", "upsert", "read", "tx", "tx verify xid", "tx verify token", "read-only tx", "idempotent tx"}[k]
}

// idempotent says whether dbcore was told, or can see, that running it twice does no harm.
func (k callKind) idempotent() bool {
	return k == callUpsert || k == callRead || k == callTxRead || k == callTxUpsert
}

func (k callKind) verified() bool { return k == callTxXID || k == callTxToken }
func (k callKind) writes() bool   { return k != callRead && k != callTxRead }
func (k callKind) upserts() bool  { return k == callUpsert || k == callTxUpsert }
func (k callKind) isTx() bool     { return k >= callTx }

// said is what dbcore told its caller of a call.
type said int

const (
	saidYes  said = iota
	saidOpen      // it may have happened
	saidNo        // it has not happened
)

// callRecord is one call, as its caller saw it.
type callRecord struct {
	id     string
	worker int
	kind   callKind
	fault  *draw // nil for the load in between
	said   said
	err    error
	report dbcore.TxReport
	stale  string // what a read saw that must not be; "" if nothing
}

// judgeError reads an error as the documents of dbcore tell: what is lost in a transaction before COMMIT is a definite no.
func judgeError(kind callKind, err error) said {
	switch {
	case err == nil:
		return saidYes
	case errors.Is(err, dbcore.ErrCommitAmbiguous), !kind.isTx() && errors.Is(err, dbcore.ErrConnectionLost):
		return saidOpen
	}
	return saidNo
}

const (
	insertRow  = "insert into w (call, step) values ($1, $2)"
	insertSync = "insert into w (call, step) select $1, $2 from set_config('synchronous_commit', 'on', true)"
	upsertRow  = "insert into u (call) values ($1) on conflict (call) do nothing"
	setSync    = "select set_config('synchronous_commit', 'on', true)"
)

var campaignTables = []string{
	"create table w (call text, step int)",
	"create index on w (call)", // not unique: what is done twice must be seen
	"create table u (call text primary key)",
	"create table counter (worker int primary key, n int)",
}

// caller runs calls for one worker, one after the other.
type caller struct {
	worker int
	last   string // the last call whose rows must be there
	db     *dbcore.DB
	opts   dbcore.TxOptions
	sync   func() bool // whether the next attempt is to wait for a synchronous standby at its COMMIT
}

// run runs one call. The record's fault is the campaign's business.
func (c *caller) run(ctx context.Context, kind callKind, id string) callRecord {
	rec := callRecord{id: id, worker: c.worker, kind: kind}
	c.opts.Report = &rec.report
	switch kind {
	case callInsert:
		_, rec.err = c.db.Exec(ctx, c.insertSQL(), id, 1)
	case callInsertText:
		sql := fmt.Sprintf("insert into w (call, step) values ('%s', 1)", id)
		if c.sync() {
			sql = fmt.Sprintf("insert into w (call, step) select '%s', 1 from set_config('synchronous_commit', 'on', true)", id)
		}
		_, rec.err = c.db.Exec(ctx, sql)
	case callUpsert:
		sql := upsertRow
		if c.sync() {
			sql = "insert into u (call) select $1 from set_config('synchronous_commit', 'on', true) on conflict (call) do nothing"
		}
		_, rec.err = c.db.Op("upsert").Idempotent().Exec(ctx, sql, id)
	case callRead:
		var n []int
		n, rec.err = dbcore.Collect[int](ctx, c.db.Op("read").Idempotent(), "select count(*) from w where call = $1 and step = 1", c.last)
		rec.stale = c.judgeRead(n, rec.err)
	default:
		c.runTx(ctx, &rec)
	}
	rec.said = judgeError(kind, rec.err)
	if rec.said == saidYes && kind.writes() && !kind.upserts() {
		c.last = id
	}
	return rec
}

func (c *caller) insertSQL() string {
	if c.sync() {
		return insertSync
	}
	return insertRow
}

func (c *caller) runTx(ctx context.Context, rec *callRecord) {
	opts, op := c.opts, c.db.Op("tx")
	fn := c.writeTx(rec.id)
	switch rec.kind {
	case callTxXID:
		opts.Verify = dbcore.VerifyXID
	case callTxToken:
		opts.Verify = dbcore.VerifyToken
	case callTxRead:
		opts.ReadOnly, opts.Isolation = true, dbcore.RepeatableRead
		fn = func(ctx context.Context, tx *dbcore.Tx) error {
			for range 2 {
				n, err := dbcore.Collect[int](ctx, tx, "select count(*) from w where call = $1 and step = 1", c.last)
				if err != nil {
					return err
				}
				rec.stale = c.judgeRead(n, nil)
			}
			return nil
		}
	case callTxUpsert:
		op = c.db.Op("tx upsert").Idempotent()
		fn = c.statements(statement{upsertRow, []any{rec.id}}, statement{upsertRow, []any{rec.id + "/2"}})
	}
	rec.err = op.RunTx(ctx, opts, fn)
}

// writeTx writes two rows and counts in a third.
func (c *caller) writeTx(id string) func(context.Context, *dbcore.Tx) error {
	return c.statements(
		statement{insertRow, []any{id, 1}},
		statement{"update counter set n = n + 1 where worker = $1", []any{c.worker}},
		statement{insertRow, []any{id, 2}},
	)
}

type statement struct {
	sql  string
	args []any
}

func (c *caller) statements(list ...statement) func(context.Context, *dbcore.Tx) error {
	return func(ctx context.Context, tx *dbcore.Tx) error {
		now := list
		if c.sync() {
			now = append([]statement{{setSync, nil}}, list...)
		}
		for _, s := range now {
			if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
				return err
			}
		}
		return nil
	}
}

// judgeRead says what is wrong with a read of the worker's last write.
func (c *caller) judgeRead(n []int, err error) string {
	switch {
	case err != nil, c.last == "", len(n) == 1 && n[0] == 1:
		return ""
	}
	return fmt.Sprintf("%v rows of call %s, which had been told that its row is there", n, c.last)
}

// truth is what the database holds after all.
type truth struct {
	rows     map[string]map[int]int // by call and step
	upserts  map[string]bool
	counters map[int]int
}

func readTruth(ctx context.Context, q dbcore.Querier) (*truth, error) {
	tr := &truth{rows: map[string]map[int]int{}, upserts: map[string]bool{}, counters: map[int]int{}}
	type row struct {
		Call    string
		Step, N int
	}
	rows, err := dbcore.Collect[row](ctx, q, "select call, step, count(*)::int as n from w group by call, step")
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if tr.rows[r.Call] == nil {
			tr.rows[r.Call] = map[int]int{}
		}
		tr.rows[r.Call][r.Step] = r.N
	}
	upserts, err := dbcore.Collect[string](ctx, q, "select call from u")
	if err != nil {
		return nil, err
	}
	for _, u := range upserts {
		tr.upserts[u] = true
	}
	type counter struct{ Worker, N int }
	counters, err := dbcore.Collect[counter](ctx, q, "select worker, n from counter")
	for _, c := range counters {
		tr.counters[c.Worker] = c.N
	}
	return tr, err
}

// times says how often a call's writes are there; -1 if a transaction is there by half.
func (tr *truth) times(rec *callRecord) int {
	rows := tr.rows[rec.id]
	switch rec.kind {
	case callInsert, callInsertText:
		return rows[1]
	case callUpsert:
		return count(tr.upserts[rec.id])
	case callTxUpsert:
		if tr.upserts[rec.id] != tr.upserts[rec.id+"/2"] {
			return -1
		}
		return count(tr.upserts[rec.id])
	case callTx, callTxXID, callTxToken:
		if rows[1] != rows[2] {
			return -1
		}
		return rows[1]
	}
	return 0
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// wrong says how the truth contradicts what the caller was told; "" if it does not.
func (tr *truth) wrong(rec *callRecord) string {
	if rec.stale != "" {
		return rec.stale
	}
	n := tr.times(rec)
	switch {
	case !rec.kind.writes():
		return ""
	case n < 0:
		return "a transaction is there by half"
	case n > 1:
		return fmt.Sprintf("written %d times", n)
	case rec.said == saidYes && n == 0:
		return "lost: the caller was told that it is there"
	case rec.said == saidNo && n == 1:
		return "the caller was told that it is not there, and it is"
	}
	return ""
}

// patience bounds a call, only so that a hanging one fails the test and does not hang it.
const patience = 30 * time.Second
