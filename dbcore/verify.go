package dbcore

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Verify is how RunTx finds out about a COMMIT whose answer was lost.
type Verify int

// The ways.
const (
	// VerifyNone reports ErrCommitAmbiguous.
	VerifyNone Verify = iota
	// VerifyXID asks pg_xact_status. It needs nothing, and costs one round trip in each transaction. It cannot decide
	// once the server was restarted, has crashed, or another took over, because transaction ids that were never written
	// to disk are given out again: then ErrCommitAmbiguous stays.
	VerifyXID
	// VerifyToken writes a row into a table of its own (CreateTokenTable) in the same transaction, and looks for it. It
	// decides after restarts and failovers, too, and makes sure that a COMMIT that is still on its way cannot happen
	// any more.
	VerifyToken
)

// DefaultTokenTable is the table of commit tokens.
const DefaultTokenTable = "dbcore_commit_tokens"

// DefaultVerifyTimeout is that of TxOptions.
const DefaultVerifyTimeout = 15 * time.Second

// CreateTokenTable creates the table that VerifyToken needs, if it does not exist; table "" is DefaultTokenTable.
// Every role that verifies needs INSERT and SELECT on it. Calling it again is safe.
func CreateTokenTable(ctx context.Context, q Querier, table string) error {
	setDefault(&table, DefaultTokenTable)
	_, err := q.Exec(ctx, "create table if not exists "+table+" (token text primary key, fence boolean not null default false, at timestamptz not null default now())")
	if err != nil {
		return fmt.Errorf("create the table of commit tokens: %w", err)
	}
	return nil
}

// DropTokens deletes tokens that are older than age, and returns how many. A token is needed only while its transaction
// is being verified; an hour is plenty.
func DropTokens(ctx context.Context, q Querier, table string, age time.Duration) (int64, error) {
	setDefault(&table, DefaultTokenTable)
	n, err := q.Exec(ctx, "delete from "+table+" where at < now() - make_interval(secs => $1)", age.Seconds())
	if err != nil {
		return 0, fmt.Errorf("drop old commit tokens: %w", err)
	}
	return n, nil
}

// witness is what is noted before COMMIT, to recognise the transaction afterwards.
type witness struct {
	how   Verify
	table string

	token       string
	xid         string // "" if the transaction has written nothing
	incarnation string
}

// incarnationSQL names the run of the server in which a transaction id means what it meant: the cluster, the timeline,
// the start of the postmaster, and, for a crash that the postmaster survived, the time since which statistics are
// counted, as they are thrown away in crash recovery (pgstat_discard_stats, src/backend/utils/activity/pgstat.c).
const incarnationSQL = `concat_ws('/', (select system_identifier from pg_control_system()), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
	extract(epoch from pg_postmaster_start_time()), (select extract(epoch from stats_reset) from pg_stat_wal))`

func (w *witness) prepare(ctx context.Context, tx *Tx) error {
	if w.how == VerifyToken {
		w.token = rand.Text()
		_, err := tx.Exec(ctx, "insert into "+w.table+" (token) values ($1)", w.token)
		return err
	}
	type noted struct{ XID, Incarnation string }
	n, err := One[noted](ctx, tx, "select coalesce(pg_current_xact_id_if_assigned()::text, '') as xid, "+incarnationSQL+" as incarnation")
	w.xid, w.incarnation = n.XID, n.Incarnation
	return err
}

type commitOutcome int

const (
	outcomeUndecided commitOutcome = iota
	outcomeCommitted
	outcomeRolledBack
)

// findOut decides what became of a transaction. It goes around retry and breaker, with patience of its own.
func (db *DB) findOut(ctx context.Context, opts TxOptions, w *witness) (outcome commitOutcome, why string) {
	if w.how == VerifyXID && w.xid == "" {
		return outcomeRolledBack, "" // it has written nothing: there is nothing that could be committed
	}
	timeout := opts.VerifyTimeout
	setDefault(&timeout, DefaultVerifyTimeout)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	why = "no connection in time"
	for attempt := 1; ; attempt++ {
		db := db.decider()
		conn, err := db.acquire(ctx)
		if err == nil {
			if w.how == VerifyToken {
				outcome, err = w.fence(ctx, conn.Conn())
			} else {
				outcome, why, err = w.ask(ctx, conn.Conn())
			}
			db.release(conn)
			if err == nil && (outcome != outcomeUndecided || why != stillRunning) {
				return outcome, why
			}
		}
		if err != nil {
			why = oneLine(err.Error())
		}
		if err := sleep(ctx, min(time.Second, time.Duration(attempt)*20*time.Millisecond)); err != nil {
			return outcomeUndecided, why
		}
	}
}

const stillRunning = "the transaction is still under way"

// ask decides by pg_xact_status. In another run of the server "committed" may be said of another transaction that was
// given the same id; what is not committed there was not committed here.
func (w *witness) ask(ctx context.Context, conn *pgx.Conn) (commitOutcome, string, error) {
	var incarnation, status string
	err := conn.QueryRow(ctx, "select "+incarnationSQL+", coalesce(pg_xact_status($1::text::xid8), '')", w.xid).Scan(&incarnation, &status)
	sameRun := incarnation == w.incarnation
	switch {
	case err != nil:
		return outcomeUndecided, "", fmt.Errorf("ask for transaction %s: %w", w.xid, err)
	case status == "committed" && sameRun:
		return outcomeCommitted, "", nil
	case status == "aborted" && sameRun:
		return outcomeRolledBack, "", nil
	case status == "in progress" && sameRun:
		return outcomeUndecided, stillRunning, nil
	case sameRun:
		return outcomeUndecided, fmt.Sprintf("transaction %s is too old to ask for", w.xid), nil
	}
	return outcomeUndecided, "the server was restarted or replaced since, so its transaction ids prove nothing; VerifyToken would", nil
}

// fence writes the token itself, marked as a fence. If the transaction is still under way that waits for its end, because
// of the primary key. If it succeeds, the transaction has not committed, and now cannot. The mark tells a fence, whose own
// answer may have been lost, from the transaction's token.
func (w *witness) fence(ctx context.Context, conn *pgx.Conn) (commitOutcome, error) {
	_, err := conn.Exec(ctx, "insert into "+w.table+" (token, fence) values ($1, true) on conflict do nothing", w.token)
	if err != nil {
		return outcomeUndecided, fmt.Errorf("fence token %s: %w", w.token, err)
	}
	var fenced bool
	if err := conn.QueryRow(ctx, "select fence from "+w.table+" where token = $1", w.token).Scan(&fenced); err != nil {
		return outcomeUndecided, fmt.Errorf("look for token %s: %w", w.token, err)
	}
	if fenced {
		return outcomeRolledBack, nil
	}
	return outcomeCommitted, nil
}
