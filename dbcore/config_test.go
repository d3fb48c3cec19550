package dbcore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

func TestDefaultConfig(t *testing.T) {
	c := dbcore.DefaultConfig()
	if c.MaxOpenConns != 25 || c.MaxIdleConns != 5 || c.ConnMaxLifetime != 5*time.Minute || c.ConnMaxIdleTime != 10*time.Minute || c.SSLMode != "require" {
		t.Errorf("got %#v", c)
	}
}

func TestParseDSN(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, c := range []struct {
		dsn                          string
		host, user, db, pw, mode, an string
		port                         int
		timeout                      time.Duration
		redacted                     string
	}{
		{
			dsn: "postgres://u:p%40ss@db1:5433/app?application_name=x&connect_timeout=3", host: "db1", port: 5433, user: "u", db: "app", pw: "p@ss", mode: "require", an: "x",
			timeout: 3 * time.Second, redacted: "postgres://u@db1:5433/app?application_name=x&sslmode=require",
		},
		{dsn: "host=db1 user=u password='it''s' dbname=app", host: "db1"}, // '' is no escape: refused below
		{
			dsn: `host=db1 user=u password='it\'s a secret' dbname=app sslmode=verify-full`, host: "db1", port: 5432, user: "u", db: "app", pw: "it's a secret", mode: "verify-full",
			timeout: 10 * time.Second, redacted: "postgres://u@db1:5432/app?sslmode=verify-full",
		},
		{
			dsn: "postgres://u@db1/app?sslmode=prefer", host: "db1", port: 5432, user: "u", db: "app", mode: "prefer", timeout: 10 * time.Second,
			redacted: "postgres://u@db1:5432/app?sslmode=prefer",
		},
		{
			dsn: "postgres://u@db1/app?ssl=true", host: "db1", port: 5432, user: "u", db: "app", mode: "require", timeout: 10 * time.Second,
			redacted: "postgres://u@db1:5432/app?sslmode=require",
		},
		{
			dsn: "postgres://u@[::1]:5433/app?sslmode=disable", host: "::1", port: 5433, user: "u", db: "app", mode: "disable", timeout: 10 * time.Second,
			redacted: "postgres://u@[::1]:5433/app?sslmode=disable",
		},
		{
			dsn: "postgres://u:x@a:1,b:2/app?target_session_attrs=primary", host: "a", port: 1, user: "u", db: "app", pw: "x", mode: "require", timeout: 10 * time.Second,
			redacted: "postgres://u@a:1,b:2/app?sslmode=require",
		},
		{
			dsn: "postgres://u@/app?host=/tmp/sock&port=5434", host: "/tmp/sock", port: 5434, user: "u", db: "app", timeout: 10 * time.Second,
			redacted: "postgres://u@/app?host=%2Ftmp%2Fsock&port=5434",
		},
		{
			dsn: "host=/tmp/sock user=u dbname=app", host: "/tmp/sock", port: 5432, user: "u", db: "app", timeout: 10 * time.Second,
			redacted: "postgres://u@/app?host=%2Ftmp%2Fsock&port=5432",
		},
	} {
		got, err := dbcore.ParseDSN(c.dsn)
		if c.port == 0 {
			if !errors.Is(err, dbcore.ErrInvalidConfig) {
				t.Errorf("%s: got %v, want ErrInvalidConfig", c.dsn, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.dsn, err)
			continue
		}
		have := fmt.Sprint(got.Host, got.Port, got.User, got.DBName, got.Password.Reveal(), got.SSLMode, got.ApplicationName, got.ConnectTimeout)
		want := fmt.Sprint(c.host, c.port, c.user, c.db, c.pw, c.mode, c.an, c.timeout)
		if have != want {
			t.Errorf("%s:\n got %s\nwant %s", c.dsn, have, want)
		}
		if got.Redacted() != c.redacted {
			t.Errorf("%s:\n  redacted %s\n      want %s", c.dsn, got.Redacted(), c.redacted)
		}
	}
}

func TestParseDSNPool(t *testing.T) {
	c, err := dbcore.ParseDSN("postgres://u@h/d?pool_max_conns=3&pool_max_conn_lifetime=7m&pool_max_conn_idle_time=8m")
	if err != nil || c.MaxOpenConns != 3 || c.ConnMaxLifetime != 7*time.Minute || c.ConnMaxIdleTime != 8*time.Minute || c.MaxIdleConns != 5 {
		t.Errorf("got %d %s %s %d, %v", c.MaxOpenConns, c.ConnMaxLifetime, c.ConnMaxIdleTime, c.MaxIdleConns, err)
	}
}

// TestSSLModePrecedence: encryption is never given up unless somebody said so.
func TestSSLModePrecedence(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	service := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(service, []byte("[plain]\nhost=h\nsslmode=disable\n[silent]\nhost=h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dsn, env, field string
		fromDefault           bool
		want                  string // of Redacted; "" is "as the service says"
	}{
		{name: "nothing said", dsn: "host=h", want: "require"},
		{name: "nothing said, URL", dsn: "postgres://h/d", want: "require"},
		{name: "nothing said, URL with settings", dsn: "postgres://h/d?application_name=a", want: "require"},
		{name: "environment", dsn: "host=h", env: "verify-ca", want: "verify-ca"},
		{name: "string over environment", dsn: "host=h sslmode=disable", env: "verify-full", want: "disable"},
		{name: "empty string value hides the environment", dsn: "host=h sslmode=''", env: "disable", want: "require"},
		{name: "field over string", dsn: "host=h sslmode=disable", field: "verify-full", want: "verify-full"},
		{name: "field over string, URL", dsn: "postgres://h/d?sslmode=disable", field: "verify-full", want: "verify-full"},
		{name: "default yields to string", dsn: "host=h sslmode=verify-full", fromDefault: true, want: "verify-full"},
		{name: "default yields to environment", dsn: "host=h", env: "disable", fromDefault: true, want: "disable"},
		{name: "default without string", dsn: "host=h", fromDefault: true, want: "require"},
		{name: "service says", dsn: "service=plain servicefile=" + service, want: ""},
		{name: "service says nothing", dsn: "service=silent servicefile=" + service, want: "require"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PGSSLMODE", c.env)
			var cfg dbcore.Config
			if c.fromDefault {
				cfg = dbcore.DefaultConfig()
			} else {
				cfg.SSLMode = c.field
			}
			cfg.DSN = dbcore.NewSecret(c.dsn)
			if got := cfg.Redacted(); !strings.Contains(got, "sslmode="+c.want) || c.want == "" && strings.Contains(got, "require") {
				t.Errorf("got %s, want sslmode=%s", got, c.want)
			}
			if c.field != "" || c.fromDefault {
				return
			}
			if cfg, err := dbcore.ParseDSN(c.dsn); err != nil || cfg.SSLMode != c.want {
				t.Errorf("ParseDSN: got %q, %v, want %q", cfg.SSLMode, err, c.want)
			}
		})
	}
}

// TestFieldsWinOverDSN: a DSN with one part changed, which is how one reaches another database of the same server.
func TestFieldsWinOverDSN(t *testing.T) {
	cfg, err := dbcore.ParseDSN("postgres://u:p@a:1,b:2/app?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.DBName = "it's \\db2%"
	if got, want := cfg.Redacted(), "postgres://u@a:1,b:2/it%27s%20%5Cdb2%25?sslmode=disable"; got != want {
		t.Errorf("database: got %s, want %s", got, want)
	}
	cfg.Host = "c"
	if got, want := cfg.Redacted(), "postgres://u@c:1/it%27s%20%5Cdb2%25?sslmode=disable"; got != want {
		t.Errorf("host: got %s, want %s", got, want)
	}
	cfg.DSN = dbcore.NewSecret(`host=x dbname=y options=-ca=\`)
	cfg.Port = 7
	if got, want := cfg.Redacted(), "postgres://u@c:7/it%27s%20%5Cdb2%25?sslmode=disable"; got != want {
		t.Errorf("key=value: got %s, want %s", got, want)
	}
}

func TestPasswordSources(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	passFile := filepath.Join(dir, "pass")
	line := fmt.Sprintf("127.0.0.1:%d:postgres:pw_user:right-Pa55word\n", srv.port)
	if err := os.WriteFile(passFile, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("host=127.0.0.1 port=%d user=pw_user dbname=postgres", srv.port)
	for _, c := range []struct {
		name, dsn, env, file, field string
		filled                      string // what ParseDSN puts into Password
	}{
		{name: "string", dsn: base + " password=right-Pa55word", filled: "right-Pa55word"},
		{name: "environment", dsn: base, env: "right-Pa55word", filled: "right-Pa55word"},
		{name: "string over environment", dsn: base + " password=right-Pa55word", env: "wrong", filled: "right-Pa55word"},
		{name: "file by environment", dsn: base, file: passFile},
		{name: "file by string", dsn: base + " passfile=" + passFile},
		{name: "field over string", dsn: base + " password=wrong", field: "right-Pa55word", filled: "wrong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PGPASSWORD", c.env)
			t.Setenv("PGPASSFILE", c.file)
			cfg, err := dbcore.ParseDSN(c.dsn)
			if err != nil || cfg.Password.Reveal() != c.filled {
				t.Fatalf("password %q, %v, want %q", cfg.Password.Reveal(), err, c.filled)
			}
			if c.field != "" {
				cfg.Password = dbcore.NewSecret(c.field)
			}
			conn := connect(t, cfg)
			if got := one[string](t, conn, "select current_user"); got != "pw_user" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestMalformedDSN: whatever is wrong with a connection string, the error does not show the password.
func TestMalformedDSN(t *testing.T) {
	const pw = "s3cr3tPW"
	for _, dsn := range []string{
		"postgres://u:" + pw + "@h:notaport/d",
		"postgres://u:" + pw + "@h:99999/d",
		"postgres://u:" + pw + "%zz@h/d",
		"postgres://u:" + pw + "@[::1/d",
		"postgres://u:x@" + pw + "@h/d",  // unencoded @
		"postgres://u:x/" + pw + "@h/d",  // unencoded /
		"postgres://u:12/" + pw + "@h/d", // the same, and "12" is a valid port
		"postgres://u:12/x?" + pw + "=1@h/d",
		"postgres://u:x?" + pw + "@h/d?sslmode=nonsense",
		"postgres://u:" + pw + "@h/d?sslmode=nonsense",
		"postgres://u:" + pw + "@h/d?sslrootcert=/does/not/exist&sslmode=verify-ca",
		"postgres://u:" + pw + "@h/d?connect_timeout=x",
		"postgres://u:" + pw + "@h/d?pool_max_conns=x",
		"postgres://u:" + pw + "@h/d?target_session_attrs=x",
		"postgres://u:" + pw + "@h/d?nonsense",
		"postgres://u:" + pw + "@h,g:1,f:2:3/d",
		"postgres://u:" + pw + " x@h/d",
		"host=h password='" + pw,
		"host=h password=x " + pw,
		"host=h password=x " + pw + " y=z",
		"host=h port=x password=" + pw,
		"host=h service=none servicefile=/does/not/exist password=" + pw,
		"password = " + pw + " host",
		pw,
		"host=h password=" + pw + "\x00",
		"user:" + pw + "@tcp(h)/d",
	} {
		_, err := dbcore.ParseDSN(dsn)
		if !errors.Is(err, dbcore.ErrInvalidConfig) {
			t.Errorf("%q: got %v, want ErrInvalidConfig", dsn, err)
			continue
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, pw) {
				t.Errorf("%q: error shows the password: %s", dsn, text)
			}
		}
		cfg := dbcore.DefaultConfig()
		cfg.DSN = dbcore.NewSecret(dsn)
		if text := fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.Redacted()); strings.Contains(text, pw) {
			t.Errorf("%q: Config shows the password: %s", dsn, text)
		}
	}
}

func TestInvalidConfig(t *testing.T) {
	for name, change := range map[string]func(*dbcore.Config){
		"port":      func(c *dbcore.Config) { c.Port = 70000 },
		"conns":     func(c *dbcore.Config) { c.MaxOpenConns = -1 },
		"timeout":   func(c *dbcore.Config) { c.ConnectTimeout = -1 },
		"statement": func(c *dbcore.Config) { c.StatementTimeout = -1 },
		"sslmode":   func(c *dbcore.Config) { c.SSLMode = "sometimes" },
		"host":      func(c *dbcore.Config) { c.Host = "pw@host" },
	} {
		cfg := tcpConfig()
		change(&cfg)
		if _, err := dbcore.Open(t.Context(), cfg); !errors.Is(err, dbcore.ErrInvalidConfig) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := dbcore.Connect(t.Context(), cfg); !errors.Is(err, dbcore.ErrInvalidConfig) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := dbcore.ConnectReplication(t.Context(), cfg); !errors.Is(err, dbcore.ErrInvalidConfig) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
