package verify

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/recovery"
)

// Transaction asks a restored server that is paused at its target what became of a transaction of the source
// (pg_xact_status, level 5). want is "committed" or "not there". After promotion the question is void: the server gives
// numbers of lost transactions to its own. A nil transaction is Skipped.
func Transaction(ctx context.Context, conn *dbcore.Conn, id string, t *recovery.Transaction, want string) Finding {
	begin := time.Now()
	f := Finding{ID: id, Level: 5, Expected: want}
	if t == nil {
		f.Outcome, f.Observed = Skipped, "the archive has no such transaction near the target"
		return f
	}
	f.Expected = fmt.Sprintf("xid %d of %s: %s", t.XID, t.Time, want)
	status, err := transactionStatus(ctx, conn, t.XID)
	f.Took = time.Since(begin)
	f.Observed = status
	switch {
	case err != nil:
		f.Outcome, f.Observed = Unable, err.Error()
	case status == want || want == "not there" && (status == "aborted" || status == "in progress"):
		f.Outcome = Passed
	case status == "forgotten":
		f.Outcome, f.Observed = Unable, "the server no longer knows that transaction"
	default:
		f.Outcome = Failed
	}
	return f
}

func transactionStatus(ctx context.Context, conn *dbcore.Conn, xid uint32) (string, error) {
	text, err := dbcore.One[string](ctx, conn, "select pg_snapshot_xmax(pg_current_snapshot())::text")
	if err != nil {
		return "", err
	}
	next, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return "", fmt.Errorf("the server's next transaction: %w", err)
	}
	full := fullXID(next, xid)
	if full >= next { // pg_xact_status refuses the future
		return "not there", nil
	}
	return dbcore.One[string](ctx, conn, "select coalesce(pg_xact_status($1::text::xid8), 'forgotten')", strconv.FormatUint(full, 10))
}

// fullXID completes a transaction id of WAL, which has 32 bits, by the epoch: that in which it is nearest to the
// server's next one. PostgreSQL never lets live ids be 2^31 or more apart (transam.c).
func fullXID(next uint64, xid uint32) uint64 {
	const epoch, half = 1 << 32, 1 << 31
	full := next&^(epoch-1) | uint64(xid)
	switch {
	case full > next && full-next > half && full >= epoch:
		return full - epoch
	case next > full && next-full > half:
		return full + epoch
	}
	return full
}
