package pgtest

import (
	"context"
	"database/sql/driver"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// sqlTimeout bounds every statement of a test.
const sqlTimeout = 2 * time.Minute

// session runs f in a session of its own, so that restarts between two calls do not matter. It works in t.Cleanup, too,
// when the test's own context has ended.
func (s *Server) session(t testing.TB, f func(context.Context, *dbcore.Conn) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), sqlTimeout)
	defer cancel()
	cfg, err := dbcore.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = conn.Close() }()
	if err := f(ctx, conn); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Exec runs a statement in the database postgres, outside a transaction, and returns the number of rows it touched.
func (s *Server) Exec(t testing.TB, sql string, args ...any) (n int64) {
	t.Helper()
	s.session(t, func(ctx context.Context, conn *dbcore.Conn) (err error) {
		if n, err = conn.Exec(ctx, sql, args...); err != nil {
			err = fmt.Errorf("%s: %w", sql, err)
		}
		return err
	})
	return n
}

// SQL runs a query in the database postgres and returns its result as "psql -At" prints it: columns parted by "|", rows
// by newlines, NULL empty. For typed results use One and Collect.
func (s *Server) SQL(t testing.TB, sql string, args ...any) (result string) {
	t.Helper()
	s.session(t, func(ctx context.Context, conn *dbcore.Conn) (err error) {
		if result, err = queryText(ctx, conn, sql, args); err != nil {
			err = fmt.Errorf("%s: %w", sql, err)
		}
		return err
	})
	return result
}

func queryText(ctx context.Context, conn *dbcore.Conn, sql string, args []any) (string, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return "", err
		}
		columns := make([]string, len(values))
		for i, v := range values {
			columns[i] = text(v)
		}
		lines = append(lines, strings.Join(columns, "|"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}

// text prints a value that pgx has decoded.
func text(v any) string {
	if valuer, ok := v.(driver.Valuer); ok { // numeric and others that have no Go type
		if plain, err := valuer.Value(); err == nil {
			v = plain
		}
	}
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return fmt.Sprint(v)[:1] // t, f
	case []byte:
		return fmt.Sprintf(`\x%x`, v)
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.999999-07")
	}
	return fmt.Sprint(v)
}

// One runs a query that returns one row, in the database postgres (see dbcore.One).
func One[T any](t testing.TB, s *Server, sql string, args ...any) (v T) {
	t.Helper()
	s.session(t, func(ctx context.Context, conn *dbcore.Conn) (err error) {
		if v, err = dbcore.One[T](ctx, conn, sql, args...); err != nil {
			err = fmt.Errorf("%s: %w", sql, err)
		}
		return err
	})
	return v
}

// Collect runs a query in the database postgres and returns all rows (see dbcore.Collect).
func Collect[T any](t testing.TB, s *Server, sql string, args ...any) (v []T) {
	t.Helper()
	s.session(t, func(ctx context.Context, conn *dbcore.Conn) (err error) {
		if v, err = dbcore.Collect[T](ctx, conn, sql, args...); err != nil {
			err = fmt.Errorf("%s: %w", sql, err)
		}
		return err
	})
	return v
}

// DB opens a pool on a database ("" means postgres), which is closed when the test ends.
func (s *Server) DB(t testing.TB, database string) *dbcore.DB {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.DSN(database))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	db, err := dbcore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(db.Close)
	return db
}

// Set changes settings (ALTER SYSTEM), reloads the configuration and waits until new sessions have it. Settings that
// need a restart take effect with Restart.
func (s *Server) Set(t testing.TB, settings map[string]string) {
	t.Helper()
	for name, value := range settings {
		s.Exec(t, fmt.Sprintf(`ALTER SYSTEM SET %s = '%s'`, name, strings.ReplaceAll(value, "'", "''")))
	}
	before := One[time.Time](t, s, "SELECT pg_conf_load_time()")
	s.Exec(t, "SELECT pg_reload_conf()")
	Eventually(t, "the server reloads its configuration", func() bool {
		return One[time.Time](t, s, "SELECT pg_conf_load_time()").After(before)
	})
}

// Run runs a program of the server's version, such as pg_basebackup, as the server's user, and returns its output. The
// test fails if the program does. The environment is empty but for PATH and the locale.
func (s *Server) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.Bin.Path(program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + s.Bin.Dir + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = Owner(t).SysProcAttr()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pgtest: %s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}
