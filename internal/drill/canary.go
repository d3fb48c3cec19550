package drill

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// Canary is a pair of rows in lifeboat.canary of the protected cluster, with the time between them.
type Canary struct {
	ID     string    // of the pair
	Target time.Time // after the commit of the first row, before that of the second; by the server's clock
}

// WriteCanary writes a pair of rows, with a moment between them, and waits until the repository has the WAL of both.
// Each call writes a pair of its own, so it may be repeated. Pairs older than 90 days are removed.
func WriteCanary(ctx context.Context, server dbcore.Config, r *repo.Repository, cluster, drillID string, patience time.Duration) (Canary, error) {
	var c Canary
	conn, err := dbcore.Connect(ctx, server)
	if err != nil {
		return c, fmt.Errorf("write canary rows: %w", err)
	}
	defer conn.Close()
	var random [4]byte
	_, _ = rand.Read(random[:])
	c.ID = drillID + "-" + hex.EncodeToString(random[:])
	if err := ensureTable(ctx, conn); err != nil {
		return c, err
	}
	row := func(kind string) error {
		_, err := conn.Exec(ctx, "insert into lifeboat.canary (id, kind) values ($1, $2)", c.ID, kind)
		return err
	}
	if err := row("before"); err != nil {
		return c, fmt.Errorf("write canary rows: %w", err)
	}
	// Statements of one session follow each other, so this moment lies between the two commits.
	if c.Target, err = dbcore.One[time.Time](ctx, conn, "select clock_timestamp() from pg_sleep(0.005)"); err != nil {
		return c, fmt.Errorf("write canary rows: %w", err)
	}
	if _, err := conn.Exec(ctx, "select pg_sleep(0.005)"); err != nil {
		return c, fmt.Errorf("write canary rows: %w", err)
	}
	if err := row("after"); err != nil {
		return c, fmt.Errorf("write canary rows: %w", err)
	}
	lsn, err := switchWAL(ctx, conn)
	if err != nil {
		return c, err
	}
	return c, recovery.WaitArchived(ctx, r, cluster, lsn, patience)
}

func ensureTable(ctx context.Context, conn *dbcore.Conn) error {
	exists, err := dbcore.One[bool](ctx, conn, "select to_regclass('lifeboat.canary') is not null")
	if err != nil {
		return fmt.Errorf("write canary rows: %w", err)
	}
	if exists {
		_, err = conn.Exec(ctx, "delete from lifeboat.canary where written_at < now() - interval '90 days'")
	} else {
		err = conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
			statements := []string{
				`create table if not exists lifeboat.canary (id text not null, kind text not null check (kind in ('before', 'after')),
					written_at timestamptz not null default clock_timestamp(), primary key (id, kind))`,
			}
			// "if not exists" asks for the right to make schemas also where there is nothing to make (CreateSchemaCommand).
			there, err := dbcore.One[bool](ctx, tx, "select exists (select from pg_namespace where nspname = 'lifeboat')")
			if err != nil {
				return err
			}
			if !there {
				statements = append([]string{"create schema if not exists lifeboat"}, statements...)
			}
			for _, stmt := range statements {
				if _, err := tx.Exec(ctx, stmt); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("write canary rows: %w (`lifeboat check --print-grants` prints what a superuser "+
			"has to run; or drill to a past time with --to, which writes nothing)", err)
	}
	return nil
}

// switchWAL ends the present segment so that it is archived now.
func switchWAL(ctx context.Context, conn *dbcore.Conn) (pg.LSN, error) {
	text, err := dbcore.One[string](ctx, conn, "select pg_switch_wal()::text")
	if err != nil {
		return 0, fmt.Errorf("switch WAL: %w (`lifeboat check --print-grants` prints what a superuser has to run)", err)
	}
	return pg.ParseLSN(text)
}

// checkCanary asks a restored server for the pair: the first row, and not the second.
func checkCanary(ctx context.Context, conn *dbcore.Conn, id string) []verify.Finding {
	var out []verify.Finding
	for _, c := range []struct{ kind, want string }{{"before", "1"}, {"after", "0"}} {
		f := verify.SQL(ctx, conn, verify.Check{
			Name:   "canary row " + c.kind,
			SQL:    "select count(*)::text from lifeboat.canary where id = " + literal(id) + " and kind = " + literal(c.kind),
			Expect: c.want,
		})
		f.Level = 5
		out = append(out, f)
	}
	return out
}

// literal quotes an id of our own making; anything else is refused by an impossible value.
func literal(s string) string {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return "null"
		}
	}
	return "'" + s + "'"
}
