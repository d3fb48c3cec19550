package dbcore

import (
	"context"
	"fmt"
	"strconv"
)

// savepointWarning is how many savepoints in one transaction are worth a warning: a backend keeps 64 subtransactions at
// hand (PGPROC_MAX_CACHED_SUBXIDS, src/include/storage/proc.h), and one that has more slows down all others.
const savepointWarning = 32

// Savepoint runs fn in a nested transaction. If fn returns an error or panics, its changes are taken back and those made
// before it remain, so the transaction can go on; otherwise they become part of the transaction. Either way the
// savepoint is released, so that they do not pile up.
//
// Inside fn only the Tx that it is given may be used. The error is fn's, or that of the savepoint. A serialization
// failure cannot be mended by a savepoint: return its error from the transaction's function, and RunTx begins again.
func (t *Tx) Savepoint(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if err := t.usable(); err != nil {
		return err
	}
	t.savepoints++
	if t.savepoints == savepointWarning && t.db != nil {
		t.db.warnSavepoints(t.savepoints)
	}
	name := "dbcore_" + strconv.Itoa(t.savepoints)
	if _, err := execOn(ctx, t.conn, "savepoint "+name, nil); err != nil {
		return t.mark(fmt.Errorf("savepoint: %w", err))
	}
	t.txState.depth++
	inner := &Tx{txState: t.txState, depth: t.txState.depth}
	over := false
	end := func(sql string) error {
		over = true
		t.txState.depth = t.depth
		return t.endSavepoint(ctx, sql)
	}
	defer func() { // a panic or Goexit: RunTx rolls all of it back, but somebody may recover in between
		if !over {
			_ = end("rollback to " + name + "; release " + name)
		}
	}()
	if err := fn(ctx, inner); err != nil {
		if endErr := end("rollback to " + name + "; release " + name); endErr != nil {
			return fmt.Errorf("%w (and its savepoint could not be rolled back: %w)", err, endErr)
		}
		return err
	}
	return end("release " + name)
}

// endSavepoint runs on a context of its own, like the end of a transaction.
func (t *txState) endSavepoint(ctx context.Context, sql string) error {
	if t.done || t.conn.IsClosed() {
		return t.mark(fmt.Errorf("savepoint: %w", ErrConnectionLost))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if _, err := execOn(ctx, t.conn, sql, nil); err != nil {
		return t.mark(fmt.Errorf("savepoint: %w", err))
	}
	return nil
}

func (db *DB) warnSavepoints(n int) {
	db.policy.logger.Warn("many savepoints in one transaction slow down the whole server", "savepoints", n, "target", db.target.String())
}
