package dbcore

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Defaults of Config.
const (
	DefaultMaxOpenConns    = 25
	DefaultMaxIdleConns    = 5
	DefaultConnMaxLifetime = 5 * time.Minute
	DefaultConnMaxIdleTime = 10 * time.Minute
	DefaultConnectTimeout  = 10 * time.Second
	DefaultAcquireTimeout  = 5 * time.Second
	DefaultSSLMode         = "require"
)

// Config says how to reach a server and how to pool connections to it. Start from DefaultConfig or ParseDSN.
//
// What a field does not say is taken from DSN, then from libpq's environment (PGHOST, PGPASSWORD, PGSSLMODE ...), a
// service file and a password file, then from the defaults; pgx does the reading. A field that is set wins over DSN.
//
// Printing a Config gives Redacted.
type Config struct {
	// Host is a name, an address, or the absolute path of a unix socket's directory.
	Host string
	// Port is the TCP port, or the number in a unix socket's name; 0 is 5432.
	Port int
	// User is the role; "" is the name of the operating system's user.
	User string
	// Password may be empty: then the DSN, PGPASSWORD or a password file (PGPASSFILE, ~/.pgpass) is asked.
	Password Secret
	// DBName is the database; "" is the one with the user's name.
	DBName string
	// SSLMode is libpq's sslmode. "" is what the DSN or PGSSLMODE says, else "require": never "prefer", which lets
	// anyone on the way switch encryption off. It is not applied over a unix socket.
	SSLMode string

	// MaxOpenConns bounds the pool; 0 is 25.
	MaxOpenConns int
	// MaxIdleConns bounds the connections that are kept open while unused; 0 is 5, negative keeps none.
	MaxIdleConns int
	// ConnMaxLifetime is the age at which a connection is replaced (up to a tenth later, so that they do not all go
	// at once); 0 is 5 minutes, negative is never.
	ConnMaxLifetime time.Duration
	// ConnMaxIdleTime is how long an unused connection is kept; 0 is 10 minutes, negative is for ever.
	ConnMaxIdleTime time.Duration

	// DSN is a connection string, as a URL or as key=value. It can say what has no field here: several hosts,
	// target_session_attrs, certificates, options. Secret, because it may contain a password.
	DSN Secret
	// ApplicationName is shown in pg_stat_activity.
	ApplicationName string
	// ConnectTimeout bounds one attempt to reach one host; 0 is what the DSN says, else 10 seconds.
	ConnectTimeout time.Duration
	// StatementTimeout is the server's statement_timeout for every session but replication; 0 leaves it as it is.
	// It is the right bound for statements: a context that ends in the middle of one costs the connection. A pooler
	// in between must allow it as a startup parameter.
	StatementTimeout time.Duration

	// AcquireTimeout bounds the wait for a connection when all of the pool are in use; 0 is 5 seconds, negative leaves
	// it to the caller's context. Then the error is ErrPoolSaturated.
	AcquireTimeout time.Duration
	// Pooler says that there is a pooler in transaction mode in between (PgBouncer, for instance), which gives each
	// transaction another session. Then no statement is prepared by name, and what needs a session of its own is
	// ErrPooler: DB.Acquire, StatementTimeout, backups. Set statement_timeout for the role instead.
	Pooler bool

	// sslModeDefaulted says that SSLMode came from DefaultConfig and not from a person. Such a mode yields to a DSN
	// that names its own.
	sslModeDefaulted bool
}

// DefaultConfig returns 25 open and 5 idle connections, 5 minutes of life, 10 minutes of idling, and sslmode
// "require" (which still yields to a DSN that names another mode).
func DefaultConfig() Config {
	return Config{
		MaxOpenConns:     DefaultMaxOpenConns,
		MaxIdleConns:     DefaultMaxIdleConns,
		ConnMaxLifetime:  DefaultConnMaxLifetime,
		ConnMaxIdleTime:  DefaultConnMaxIdleTime,
		SSLMode:          DefaultSSLMode,
		sslModeDefaulted: true,
	}
}

// ParseDSN reads a connection string (URL or key=value, as libpq takes it; "" uses the environment alone) into a
// Config with default pool settings. The fields are filled in, and changing one afterwards changes that part alone.
// pgx's pool_max_conns, pool_max_conn_lifetime and pool_max_conn_idle_time are understood. A password that sits in a
// password file is not filled in but looked up by Open.
//
// The error is ErrInvalidConfig, says what to mend, and contains no part of dsn.
func ParseDSN(dsn string) (Config, error) {
	c := DefaultConfig()
	c.SSLMode, c.sslModeDefaulted = "", false
	c.DSN = NewSecret(dsn)
	s, err := c.resolve()
	if err != nil {
		return Config{}, err
	}
	conn := s.pool.ConnConfig
	c.Host, c.Port, c.User, c.DBName = conn.Host, int(conn.Port), conn.User, conn.Database
	c.SSLMode = s.sslMode
	c.ApplicationName = conn.RuntimeParams["application_name"]
	c.ConnectTimeout = conn.ConnectTimeout
	if _, ok := s.keys["pool_max_conns"]; ok {
		c.MaxOpenConns = int(s.parsed.MaxConns)
	}
	if _, ok := s.keys["pool_max_conn_lifetime"]; ok {
		c.ConnMaxLifetime = s.parsed.MaxConnLifetime
	}
	if _, ok := s.keys["pool_max_conn_idle_time"]; ok {
		c.ConnMaxIdleTime = s.parsed.MaxConnIdleTime
	}
	// A password from a file belongs to one host, database and user; kept here it would go along when they change.
	withoutFile, err := parseConnString(addSettings(dsn, []setting{{"passfile", ""}}))
	if err != nil {
		return Config{}, err
	}
	c.Password = NewSecret(withoutFile.ConnConfig.Password)
	return c, nil
}

// Redacted returns a connection URL for logs, with everything that matters but the password.
func (c Config) Redacted() string {
	s, err := c.resolve()
	if err != nil {
		return "[invalid connection settings]"
	}
	conn := s.pool.ConnConfig
	u := url.URL{Scheme: "postgres", Path: "/" + conn.Database}
	if conn.User != "" {
		u.User = url.User(conn.User)
	}
	q := url.Values{}
	if strings.HasPrefix(conn.Host, "/") {
		q.Set("host", conn.Host)
		q.Set("port", strconv.Itoa(int(conn.Port)))
	} else {
		hosts := []string{net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port)))}
		for _, f := range conn.Fallbacks {
			if h := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); h != hosts[len(hosts)-1] {
				hosts = append(hosts, h)
			}
		}
		u.Host = strings.Join(hosts, ",")
		q.Set("sslmode", s.sslMode)
	}
	if name := conn.RuntimeParams["application_name"]; name != "" {
		q.Set("application_name", name)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// String is Redacted.
func (c Config) String() string { return c.Redacted() }

// LogValue implements slog.LogValuer by Redacted.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.Redacted()) }

// settings is a Config after everything was asked.
type settings struct {
	pool    *pgxpool.Config
	parsed  pgxpool.Config // the pool settings as pgx read them, before ours replaced them
	keys    map[string]string
	sslMode string // "" if a service file decides, or over a unix socket if nothing said one
	maxIdle int
}

// resolve asks the fields, the DSN, the environment and the files.
func (c Config) resolve() (*settings, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	dsn := c.DSN.Reveal()
	base, err := parseConnString(dsn)
	if err != nil {
		return nil, err
	}
	s := &settings{keys: connStringKeys(dsn)}
	add := c.replacements(base)
	var setMode bool
	if s.sslMode, setMode = c.chooseSSLMode(s.keys, base); setMode {
		add = append(add, setting{"sslmode", s.sslMode})
	}
	if s.pool = base; len(add) > 0 {
		if s.pool, err = parseConnString(addSettings(dsn, add)); err != nil {
			return nil, err
		}
	}
	s.parsed = *s.pool
	c.applySession(s.pool)
	c.applyPool(s)
	return s, nil
}

func (c Config) validate() error {
	switch {
	case c.Port < 0 || c.Port > math.MaxUint16:
		return fmt.Errorf("%w: port %d is not from 1 to 65535", ErrInvalidConfig, c.Port)
	case c.MaxOpenConns < 0 || c.MaxOpenConns > math.MaxInt32:
		return fmt.Errorf("%w: MaxOpenConns is %d", ErrInvalidConfig, c.MaxOpenConns)
	case c.ConnectTimeout < 0:
		return fmt.Errorf("%w: ConnectTimeout is %s", ErrInvalidConfig, c.ConnectTimeout)
	case c.StatementTimeout < 0:
		return fmt.Errorf("%w: StatementTimeout is %s", ErrInvalidConfig, c.StatementTimeout)
	case c.Pooler && c.StatementTimeout > 0:
		return fmt.Errorf("%w: StatementTimeout: %w: a pooler refuses it or mixes it up between sessions; run ALTER ROLE ... SET statement_timeout", ErrInvalidConfig, ErrPooler)
	}
	return nil
}

// replacements returns what the fields say otherwise than the DSN. It goes through the connection string rather than
// into pgx's struct because the TLS settings and the password file depend on it.
func (c Config) replacements(base *pgxpool.Config) []setting {
	var add []setting
	conn := base.ConnConfig
	host, port := conn.Host, int(conn.Port)
	if c.Host != "" {
		host = c.Host
	}
	if c.Port != 0 {
		port = c.Port
	}
	// Both or neither: a list of hosts and a single new port (or the reverse) would not match.
	if host != conn.Host || port != int(conn.Port) {
		add = append(add, setting{"host", host}, setting{"port", strconv.Itoa(port)})
	}
	if c.User != "" && c.User != conn.User {
		add = append(add, setting{"user", c.User})
	}
	if c.DBName != "" && c.DBName != conn.Database {
		add = append(add, setting{"dbname", c.DBName})
	}
	return add
}

// chooseSSLMode returns the mode to use and whether it must be added to the connection string.
func (c Config) chooseSSLMode(keys map[string]string, base *pgxpool.Config) (mode string, add bool) {
	said := saidSSLMode(keys)
	if c.SSLMode != "" && (said == "" || !c.sslModeDefaulted) {
		return c.SSLMode, c.SSLMode != said
	}
	if said != "" {
		return said, false
	}
	// Nothing named a mode, except perhaps a service file. If that file had, pgx's result would not look like
	// "prefer" (or it says "prefer" in so many words, and gets "require").
	if usesService(keys) && !prefersTLS(&base.ConnConfig.Config) || !c.overTCP(base) {
		return "", false
	}
	return DefaultSSLMode, true
}

// overTCP says whether any of the hosts is reached over TCP.
func (c Config) overTCP(base *pgxpool.Config) bool {
	if c.Host != "" && c.Host != base.ConnConfig.Host {
		return !strings.HasPrefix(c.Host, "/")
	}
	for _, f := range base.ConnConfig.Fallbacks {
		if !strings.HasPrefix(f.Host, "/") {
			return true
		}
	}
	return !strings.HasPrefix(base.ConnConfig.Host, "/")
}

// applySession sets what concerns each session.
func (c Config) applySession(cfg *pgxpool.Config) {
	conn := cfg.ConnConfig
	if !c.Password.IsZero() {
		conn.Password = c.Password.Reveal()
	}
	if c.ApplicationName != "" {
		conn.RuntimeParams["application_name"] = c.ApplicationName
	}
	if c.StatementTimeout > 0 {
		ms := max(1, c.StatementTimeout.Milliseconds()) // 0 would mean no limit
		conn.RuntimeParams["statement_timeout"] = strconv.FormatInt(ms, 10)
	}
	if c.ConnectTimeout > 0 {
		conn.ConnectTimeout = c.ConnectTimeout
	}
	if conn.ConnectTimeout <= 0 {
		conn.ConnectTimeout = DefaultConnectTimeout
	}
	if c.Pooler {
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec
		conn.StatementCacheCapacity, conn.DescriptionCacheCapacity = 0, 0
	}
	// pgx built its dialer from the DSN's connect_timeout; the context carries the right one.
	conn.DialFunc = new(net.Dialer).DialContext
}

// applyPool sets what concerns the pool.
func (c Config) applyPool(s *settings) {
	p := s.pool
	p.MaxConns = DefaultMaxOpenConns
	if c.MaxOpenConns > 0 {
		p.MaxConns = int32(c.MaxOpenConns)
	}
	s.maxIdle = DefaultMaxIdleConns
	if c.MaxIdleConns != 0 {
		s.maxIdle = max(0, c.MaxIdleConns)
	}
	p.MaxConnLifetime = DefaultConnMaxLifetime
	if c.ConnMaxLifetime != 0 {
		p.MaxConnLifetime = max(0, c.ConnMaxLifetime) // 0 is never, to pgxpool
	}
	p.MaxConnLifetimeJitter = p.MaxConnLifetime / 10
	p.MaxConnIdleTime = DefaultConnMaxIdleTime
	if c.ConnMaxIdleTime > 0 {
		p.MaxConnIdleTime = c.ConnMaxIdleTime
	} else if c.ConnMaxIdleTime < 0 {
		p.MaxConnIdleTime = math.MaxInt64
	}
	// Connections of the health check are not worth more patience than a new connection.
	p.PingTimeout = p.ConnConfig.ConnectTimeout
}
