package dbcore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// TestVerify decides what became of a COMMIT whose request or answer was lost.
func TestVerify(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists verified; create table verified (a int)")
	if err := dbcore.CreateTokenTable(t.Context(), direct, ""); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, "commit\x00")
	db := openDB(t, p.config())
	for _, how := range []dbcore.Verify{dbcore.VerifyXID, dbcore.VerifyToken} {
		for what, attempts := range map[cut]int{cutRequest: 2, cutReply: 1} {
			mustExec(t, direct, "truncate verified")
			p.set(what)
			var report dbcore.TxReport
			err := db.RunTx(t.Context(), dbcore.TxOptions{Verify: how, Report: &report}, insert("verified", 1))
			if err != nil || report.Attempts != attempts || report.Verified != (what == cutReply) && attempts == 1 {
				t.Errorf("%d, %d: %v, %+v", how, what, err, report)
			}
			if n := one[int](t, direct, "select count(*) from verified"); n != 1 {
				t.Errorf("%d, %d: %d rows", how, what, n)
			}
		}
	}
	if n, err := dbcore.DropTokens(t.Context(), direct, "", -time.Hour); err != nil || n == 0 {
		t.Errorf("%d tokens dropped, %v", n, err)
	}
}

// TestVerify_StillUnderWay: a transaction that the server has not ended is neither taken for rolled back nor for
// committed.
func TestVerify_StillUnderWay(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists underway; create table underway (a int)")
	if err := dbcore.CreateTokenTable(t.Context(), direct, ""); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, "commit\x00")
	db := openDB(t, p.config())
	open := func() int {
		return one[int](t, direct, "select count(*) from pg_stat_activity where state like 'idle in transaction%'")
	}
	for _, how := range []dbcore.Verify{dbcore.VerifyXID, dbcore.VerifyToken} {
		mustExec(t, direct, "truncate underway")
		p.set(loseClient)
		opts := dbcore.TxOptions{Verify: how, CommitTimeout: 300 * time.Millisecond, VerifyTimeout: 300 * time.Millisecond}
		if err := db.RunTx(t.Context(), opts, insert("underway", 1)); !errors.Is(err, dbcore.ErrCommitAmbiguous) || open() != 1 {
			t.Errorf("%d: %v, %d open", how, err, open())
		}
		p.closeAll(false)
		eventually(t, "the server has rolled back", func() bool { return open() == 0 })

		p.set(loseClient)
		result := make(chan error, 1)
		opts.VerifyTimeout = time.Minute
		go func() { result <- db.RunTx(context.Background(), opts, insert("underway", 2)) }()
		eventually(t, "COMMIT is lost", func() bool { return p.hit() == 1 })
		holds(t, "undecided while it is open", 200*time.Millisecond, func() bool { return len(result) == 0 })
		p.closeAll(false)
		if err := <-result; err != nil {
			t.Errorf("%d: decided wrongly: %v", how, err)
		}
		if n := one[int](t, direct, "select count(*) from underway"); n != 1 {
			t.Errorf("%d: %d rows", how, n)
		}
	}
}

// TestVerify_OtherRun: after a crash the same transaction id may be another's.
func TestVerify_OtherRun(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists otherrun; create table otherrun (a int)")
	p := newProxy(t, "commit\x00")
	db := openDB(t, p.config())
	p.set(cutReply)
	opts := dbcore.TxOptions{Verify: dbcore.VerifyXID}
	err := db.RunTx(t.Context(), opts, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := insert("otherrun", 1)(ctx, tx); err != nil {
			return err
		}
		// What crash recovery does to the statistics, which is how it is noticed. The transaction takes note at its end.
		p.onCut(func() { mustExec(t, direct, "select pg_stat_reset_shared('wal')") })
		return nil
	})
	if !errors.Is(err, dbcore.ErrCommitAmbiguous) {
		t.Errorf("got %v", err)
	}
}

func TestSavepoint(t *testing.T) {
	db := openDB(t, socketConfig())
	mustExec(t, db, "drop table if exists saved; create table saved (a int unique)")
	failed := errors.New("failed")
	err := db.RunTx(t.Context(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := insert("saved", 1)(ctx, tx); err != nil {
			return err
		}
		err := tx.Savepoint(ctx, func(ctx context.Context, inner *dbcore.Tx) error {
			if err := insert("saved", 2)(ctx, inner); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "select 1"); !errors.Is(err, dbcore.ErrTxDone) {
				t.Errorf("outer transaction used inside: %v", err)
			}
			return inner.Savepoint(ctx, insert("saved", 1)) // a unique violation
		})
		if dbcore.SQLState(err) != "23505" {
			t.Errorf("got %v", err)
		}
		if err := tx.Savepoint(ctx, insert("saved", 3)); err != nil {
			return err
		}
		if err := tx.Savepoint(ctx, func(ctx context.Context, inner *dbcore.Tx) error {
			return errors.Join(insert("saved", 4)(ctx, inner), failed)
		}); !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = tx.Savepoint(ctx, func(ctx context.Context, inner *dbcore.Tx) error {
				_ = insert("saved", 5)(ctx, inner)
				panic("x")
			})
		}()
		for range 40 { // released each time, else the server would keep more than 64
			if err := tx.Savepoint(ctx, func(context.Context, *dbcore.Tx) error { return nil }); err != nil {
				return err
			}
		}
		return insert("saved", 6)(ctx, tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := dbcore.Collect[int](t.Context(), db, "select a from saved order by a")
	if err != nil || len(got) != 3 || got[0] != 1 || got[1] != 3 || got[2] != 6 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestVerify_Privileges: it needs none.
func TestVerify_Privileges(t *testing.T) {
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists modest; create table modest (a int); grant insert, select on modest to public")
	mustExec(t, direct, "do $$ begin create role modest login; exception when duplicate_object then null; end $$")
	p := newProxy(t, "commit\x00")
	cfg := p.config()
	cfg.DSN = dbcore.NewSecret("options='-c role=modest'") // pg_hba.conf knows one user
	db := openDB(t, cfg)
	if who := one[string](t, db, "select current_user::text"); who != "modest" {
		t.Fatalf("the user is %s", who)
	}
	p.set(cutReply)
	var report dbcore.TxReport
	err := db.RunTx(t.Context(), dbcore.TxOptions{Verify: dbcore.VerifyXID, Report: &report}, insert("modest", 1))
	if err != nil || !report.Verified {
		t.Errorf("%v, %+v", err, report)
	}
}
