package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// bouncerSessions is how many sessions PgBouncer has on the server, for all its clients.
const bouncerSessions = 3

// server_round_robin gives each transaction another session, where the default prefers the last: what a busy pooler does
// by chance becomes certain.
const bouncerConf = `
[databases]
postgres = host=%s port=%d dbname=postgres

[pgbouncer]
unix_socket_dir = %s
listen_port = 6432
auth_type = trust
auth_file = %s/users
pool_mode = transaction
default_pool_size = %d
server_round_robin = 1
`

// startBouncer puts a PgBouncer in transaction mode in front of the server.
func startBouncer(t *testing.T) dbcore.Config {
	t.Helper()
	program, err := exec.Command("../deploy/dev/pgbouncer.sh").Output()
	if err != nil {
		var exit *exec.ExitError
		_ = errors.As(err, &exit)
		t.Skipf("no PgBouncer: %v: %s", err, exit.Stderr)
	}
	dir, err := os.MkdirTemp("/tmp", "dbb") // short, for the socket's name; t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := fmt.Sprintf(bouncerConf, srv.socket, srv.port, dir, dir, bouncerSessions)
	for name, text := range map[string]string{"ini": conf, "users": "\"postgres\" \"\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), srv.own(dir)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strings.TrimSpace(string(program)), filepath.Join(dir, "ini"))
	runtime.LockOSThread() // until the test ends: the signal comes when the thread dies that has made the process
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: srv.cred, Pdeathsig: syscall.SIGQUIT}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // at once
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	cfg := socketConfig()
	cfg.Host, cfg.Port, cfg.Pooler = dir, 6432, true
	eventually(t, "PgBouncer listens", func() bool {
		_, err := os.Stat(filepath.Join(dir, ".s.PGSQL.6432"))
		return err == nil
	})
	return cfg
}

// openSessions has PgBouncer open all its sessions: by as many transactions at once.
func openSessions(t *testing.T, db *dbcore.DB) {
	t.Helper()
	var inside, done sync.WaitGroup
	inside.Add(bouncerSessions)
	for range bouncerSessions {
		done.Go(func() {
			entered := false
			err := db.RunTx(context.Background(), dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
				if _, err := tx.Exec(ctx, "select 1"); err != nil {
					return err
				}
				if !entered {
					entered = true
					inside.Done()
				}
				inside.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if !entered {
				inside.Done()
			}
		})
	}
	done.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func TestPooler(t *testing.T) {
	ctx := context.Background()
	cfg := startBouncer(t)
	openSessions(t, openDB(t, cfg))
	cfg.MaxOpenConns = 1 // one client's session, so that what rotates is the server's
	db := openDB(t, cfg)
	mustExec(t, db, "drop table if exists pooled; create table pooled (n int primary key)")
	defer mustExec(t, db, "drop table pooled")

	sessions := map[int]bool{}
	for n := range 50 {
		if got := mustExec(t, db, "insert into pooled values ($1)", n); got != 1 {
			t.Fatal(got)
		}
		sessions[one[int](t, db, "select pg_backend_pid() where $1 >= 0", n)] = true
		if got, err := dbcore.Collect[int](ctx, db, "select n from pooled where n = $1", n); err != nil || !slices.Equal(got, []int{n}) {
			t.Fatal(got, err)
		}
		var in []int
		err := db.RunTx(ctx, dbcore.TxOptions{Isolation: dbcore.Serializable}, func(ctx context.Context, tx *dbcore.Tx) error {
			in = nil
			if _, err := tx.Exec(ctx, "insert into pooled values ($1)", n+1000); err != nil {
				return err
			}
			for range 3 {
				pid, err := dbcore.One[int](ctx, tx, "select pg_backend_pid() where $1 >= 0", n)
				if err != nil {
					return err
				}
				in = append(in, pid)
			}
			return nil
		})
		if err != nil || in[0] != in[1] || in[1] != in[2] {
			t.Fatalf("a transaction in the sessions %v: %v", in, err)
		}
		if prepared, err := dbcore.Collect[string](ctx, db, "select statement from pg_prepared_statements"); err != nil || len(prepared) > 0 {
			t.Fatalf("left in a session that others will have: %q, %v", prepared, err)
		}
	}
	if len(sessions) != bouncerSessions {
		t.Errorf("requests ran in the sessions %v, want %d of them: nothing was rotated, so nothing was tested", sessions, bouncerSessions)
	}
	if n := one[int](t, db, "select count(*)::int from pooled"); n != 100 {
		t.Errorf("%d rows, want 100", n)
	}
}

// What needs a session of its own refuses, instead of working until there is load.
func TestPoolerRefuses(t *testing.T) {
	cfg := startBouncer(t)
	db := openDB(t, cfg)
	conn, err := db.Acquire(context.Background())
	if !errors.Is(err, dbcore.ErrPooler) {
		t.Errorf("Acquire: %v", err)
	}
	if err == nil {
		conn.Close()
	}
	withTimeout := cfg
	withTimeout.StatementTimeout = time.Second
	if _, err := dbcore.Open(context.Background(), withTimeout); !errors.Is(err, dbcore.ErrPooler) || !errors.Is(err, dbcore.ErrInvalidConfig) {
		t.Errorf("StatementTimeout: %v", err)
	}
	// And rightly so: PgBouncer knows no such startup parameter.
	withTimeout.Pooler = false
	if _, err := dbcore.Open(context.Background(), withTimeout); err == nil || !strings.Contains(err.Error(), "statement_timeout") {
		t.Errorf("StatementTimeout without Pooler: %v", err)
	}
}

// retryCounter counts repetitions by class.
type retryCounter struct {
	dbcore.NoMetrics
	mu      sync.Mutex
	classes []dbcore.Class
}

func (c *retryCounter) Retry(_ string, class dbcore.Class, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.classes = append(c.classes, class)
}

// A configuration that does not say that there is a pooler meets prepared statements that another session has, or that
// this one has already. Nothing was run then, so a request is repeated, and only once, as it would go on for ever.
func TestPoolerNotConfigured(t *testing.T) {
	ctx := context.Background()
	cfg := startBouncer(t)
	openSessions(t, openDB(t, cfg))
	cfg.Pooler, cfg.MaxOpenConns = false, 1
	var retries retryCounter
	var met []string
	classify := func(err error, phase dbcore.Phase) dbcore.Verdict {
		v := dbcore.Classify(err, phase)
		if state := dbcore.SQLState(err); state == "26000" || state == "42P05" {
			met = append(met, state)
			if v.Action != dbcore.Retry || !v.Once || v.Health == dbcore.HealthFailure {
				t.Errorf("%s at %s: %+v", state, phase, v)
			}
		} else {
			t.Errorf("%s: %v", phase, err)
		}
		return v
	}
	db := openDB(t, cfg, dbcore.WithClassifier(classify), dbcore.WithMetrics(&retries), dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 10, TransientBase: 1}))
	direct := openDB(t, socketConfig())
	mustExec(t, direct, "drop table if exists pooled; create table pooled (n int)")
	defer mustExec(t, direct, "drop table pooled")

	requests := map[string]func(n int) error{
		"exec": func(n int) error {
			_, err := db.Exec(ctx, "insert into pooled values ($1)", n)
			return err
		},
		"transaction": func(n int) error {
			return db.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
				_, err := tx.Exec(ctx, "insert into pooled values ($1)", n)
				return err
			})
		},
	}
	const each = 30
	inserted, failed := map[int]bool{}, 0
	for n := range 2 * each {
		fn := requests[[]string{"exec", "transaction"}[n%2]]
		err := fn(n)
		var again *dbcore.RetryError
		switch {
		case err == nil:
			inserted[n] = true
		case !errors.As(err, &again) || again.Attempts != 2:
			t.Errorf("request %d: %v, want at most one repetition", n, err)
		default:
			failed++
		}
	}
	t.Logf("%d requests: %d failed, %d repetitions; 26000 was met %d times, 42P05 %d times", 2*each, failed, len(retries.classes),
		countOf(met, "26000"), countOf(met, "42P05"))
	if len(met) == 0 || len(retries.classes) == 0 {
		t.Error("no prepared statement was missed: nothing was tested")
	}
	// What was reported done is there once, and what failed is not.
	rows, err := dbcore.Collect[int](ctx, direct, "select n from pooled order by n")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range rows {
		if !inserted[n] || i > 0 && rows[i-1] == n {
			t.Errorf("row %d is there although its request failed, or twice", n)
		}
	}
	if len(rows) != len(inserted) {
		t.Errorf("%d rows, want %d", len(rows), len(inserted))
	}
}

func countOf(list []string, s string) (n int) {
	for _, e := range list {
		if e == s {
			n++
		}
	}
	return n
}
