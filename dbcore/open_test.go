package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

func TestOpenAppliesSettings(t *testing.T) {
	cfg := tcpConfig()
	cfg.ApplicationName = "boat"
	cfg.StatementTimeout = 1500 * time.Millisecond
	db := openDB(t, cfg)
	got := one[struct {
		Name    string
		Timeout string
		Ssl     bool
	}](t, db, `select current_setting('application_name') name, current_setting('statement_timeout') timeout,
		(select ssl from pg_stat_ssl where pid = pg_backend_pid())`)
	if got.Name != "boat" || got.Timeout != "1500ms" || !got.Ssl {
		t.Errorf("session has %+v", got)
	}
	p := db.Pool().Config()
	if p.MaxConns != 25 || p.MaxConnLifetime != 5*time.Minute || p.MaxConnIdleTime != 10*time.Minute || p.PingTimeout != 10*time.Second {
		t.Errorf("pool has %d conns, lifetime %s, idle time %s, ping timeout %s", p.MaxConns, p.MaxConnLifetime, p.MaxConnIdleTime, p.PingTimeout)
	}
	if _, err := db.Exec(t.Context(), "select pg_sleep(5)"); dbcore.SQLState(err) != "57014" {
		t.Errorf("statement timeout: got %v", err)
	}
}

// TestIdleConnections: a burst opens many connections, and few of them stay.
func TestIdleConnections(t *testing.T) {
	for _, c := range []struct{ max, want int }{{0, 5}, {2, 2}, {-1, 0}} {
		cfg := socketConfig()
		cfg.MaxIdleConns = c.max
		db := openDB(t, cfg)
		var conns []*dbcore.Conn
		for range 8 {
			conn, err := db.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		if total := db.Pool().Stat().TotalConns(); total != 8 {
			t.Fatalf("%d connections in a burst of 8", total)
		}
		for _, conn := range conns {
			if err := errors.Join(conn.Close(), conn.Close()); err != nil {
				t.Error(err)
			}
		}
		eventually(t, fmt.Sprintf("MaxIdleConns %d keeps %d", c.max, c.want), func() bool { return int(db.Pool().Stat().TotalConns()) == c.want })
		if n := one[int](t, db, "select 1"); n != 1 {
			t.Error("pool does not work any more")
		}
	}
}

func TestMaxOpenConns(t *testing.T) {
	cfg := socketConfig()
	cfg.MaxOpenConns = 1
	db := openDB(t, cfg)
	rows, err := db.Query(t.Context(), "select generate_series(1, 3)")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = db.Exec(ctx, "select 1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "at most 1") {
		t.Errorf("while the only connection is in use: got %v", err)
	}
	for rows.Next() {
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
	mustExec(t, db, "select 1") // rows read to their end hold nothing
}

func TestClosed(t *testing.T) {
	db, err := dbcore.Open(t.Context(), socketConfig())
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := db.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("closed DB: got %v", err)
	}
	conn := connect(t, socketConfig())
	if conn.Closed() || conn.PID() == 0 || conn.Parameter("in_hot_standby") != "off" {
		t.Error("a new connection is closed or knows nothing of its server")
	}
	if err := errors.Join(conn.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
	if _, err := conn.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrClosed) || !conn.Closed() {
		t.Errorf("closed Conn: got %v", err)
	}
}

// TestPinnedConn: a session that was lost stays lost.
func TestPinnedConn(t *testing.T) {
	conn := connect(t, socketConfig())
	mustExec(t, conn, "create temporary table mine (a int)")
	if n := one[int](t, conn, "select count(*) from mine"); n != 0 {
		t.Error("not the same session")
	}
	db := openDB(t, socketConfig())
	mustExec(t, db, "select pg_terminate_backend($1, 5000)", conn.PID())
	if _, err := conn.Exec(t.Context(), "select 1"); err == nil {
		t.Error("a terminated session answered")
	}
	if !conn.Closed() {
		t.Error("a terminated session is not closed")
	}
	if _, err := conn.Exec(t.Context(), "select 1"); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func listenTest(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port
}

// TestConnectErrors: each class names the place, a remedy, and never the password.
func TestConnectErrors(t *testing.T) {
	const pw = "wr0ng-s3cr3t"
	freePort := listenTest(t, func(c net.Conn) { c.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusedPort := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	noTLS := listenTest(t, func(c net.Conn) {
		buf := make([]byte, 8)
		_, _ = c.Read(buf)
		_, _ = c.Write([]byte("N"))
		c.Close()
	})
	silentPort := listenTest(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
	for _, c := range []struct {
		name   string
		change func(*dbcore.Config)
		code   dbcore.ConnectCode
		state  string
		hint   string
	}{
		{"refused", func(c *dbcore.Config) { c.Port = refusedPort }, dbcore.CodeRefused, "", "start the server"},
		{"socket missing", func(c *dbcore.Config) { c.Host = "/tmp/no-such-dir" }, dbcore.CodeRefused, "", "unix_socket_directories"},
		{"wrong password", func(c *dbcore.Config) { c.User = "pw_user" }, dbcore.CodeAuth, "28P01", "PGPASSWORD"},
		{"no role", func(c *dbcore.Config) { c.User = "no_role" }, dbcore.CodeAuth, "28000", `role "no_role" exists`},
		{"no hba entry", func(c *dbcore.Config) { c.User = "stranger" }, dbcore.CodeNoHBAEntry, "28000", "pg_hba.conf"},
		{"no hba entry without TLS", func(c *dbcore.Config) { c.SSLMode = "disable" }, dbcore.CodeNoHBAEntry, "28000", "pg_hba.conf"},
		{"no database", func(c *dbcore.Config) { c.DBName = "nowhere" }, dbcore.CodeNoDatabase, "3D000", `create database "nowhere"`},
		{"not allowed", func(c *dbcore.Config) {
			c.DBName, c.User, c.Password = "closed", "pw_user", dbcore.NewSecret("right-Pa55word")
		}, dbcore.CodePermission, "42501", "GRANT CONNECT"},
		{"TLS refused", func(c *dbcore.Config) { c.Port = noTLS }, dbcore.CodeTLS, "", "ssl=on"},
		{"unknown authority", func(c *dbcore.Config) { c.SSLMode = "verify-full" }, dbcore.CodeTLS, "", "sslrootcert"},
		{"wrong host in certificate", func(c *dbcore.Config) {
			c.SSLMode, c.DSN = "verify-full", dbcore.NewSecret("sslrootcert="+srv.dir+"/server.crt")
		}, dbcore.CodeTLS, "", "verify-full"},
		{"unknown host", func(c *dbcore.Config) { c.Host = "no-such-host.invalid" }, dbcore.CodeDNS, "", "resolver"},
		{"silent", func(c *dbcore.Config) { c.Port, c.ConnectTimeout = silentPort, 200*time.Millisecond }, dbcore.CodeTimeout, "", "ConnectTimeout"},
		{"hangs up", func(c *dbcore.Config) { c.Port = freePort }, dbcore.CodeTLS, "", "TLS settings"},
		{"no primary", func(c *dbcore.Config) { c.DSN = dbcore.NewSecret("target_session_attrs=standby") }, dbcore.CodeWrongServerRole, "", "target_session_attrs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tcpConfig()
			cfg.Password = dbcore.NewSecret(pw)
			cfg.ConnectTimeout = 3 * time.Second
			c.change(&cfg)
			_, openErr := dbcore.Open(t.Context(), cfg)
			_, connErr := dbcore.Connect(t.Context(), cfg)
			for _, err := range []error{openErr, connErr} {
				var e *dbcore.ConnectError
				if !errors.As(err, &e) {
					t.Fatalf("got %v, want a ConnectError", err)
				}
				if e.Code != c.code || e.SQLState != c.state || !strings.Contains(e.Hint, c.hint) {
					t.Errorf("got %s %s (hint %s), want %s %s (hint %s)", e.Code, e.SQLState, e.Hint, c.code, c.state, c.hint)
				}
				for _, want := range []string{cfg.Host, fmt.Sprint(cfg.Port), cfg.DBName, cfg.User, e.Hint} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v: does not say %s", err, want)
					}
				}
				noPassword(t, err, pw)
				noPassword(t, err, "right-Pa55word")
			}
		})
	}
}

// noPassword looks into each error of the chain, also by printing its fields.
func noPassword(t *testing.T, err error, pw string) {
	t.Helper()
	var pgxErr *pgconn.ConnectError
	if errors.As(err, &pgxErr) {
		t.Errorf("pgx's error is reachable, and with it the password %s", pgxErr.Config.Password)
	}
	if text := fmt.Sprintf("%v %+v %#v %q", err, err, err, err); strings.Contains(text, pw) || strings.Contains(text, "\n") {
		t.Errorf("error shows the password, or has more than one line: %s", text)
	}
	switch e := any(err).(type) { // this very link of the chain, not one that errors.As would find behind it
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", inner, inner, inner), pw) {
				t.Errorf("%T shows the password", inner)
			}
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", inner, inner, inner), pw) {
				t.Errorf("%T shows the password", inner)
			}
		}
	}
}

func TestConnectCanceled(t *testing.T) {
	silentPort := listenTest(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
	cfg := tcpConfig()
	cfg.Port = silentPort
	for name, connect := range map[string]func(context.Context) error{
		"Open":               func(ctx context.Context) error { _, err := dbcore.Open(ctx, cfg); return err },
		"Connect":            func(ctx context.Context) error { _, err := dbcore.Connect(ctx, cfg); return err },
		"ConnectReplication": func(ctx context.Context) error { _, err := dbcore.ConnectReplication(ctx, cfg); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, cancel)
		defer timer.Stop()
		began := time.Now()
		err := connect(ctx)
		var e *dbcore.ConnectError
		if !errors.As(err, &e) || e.Code != dbcore.CodeCanceled || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("%s: took %s to notice", name, d)
		}
	}
}

func TestSeveralHosts(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cfg, err := dbcore.ParseDSN(fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres", closed.Addr().(*net.TCPAddr).Port, srv.port))
	if err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, openDB(t, cfg), "select 1"); n != 1 {
		t.Error("second host was not reached")
	}
}
