package dbcore

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The grammar of connection strings is libpq's ("Connection Strings" in chapter 34.1.1 of the PostgreSQL manual), and
// pgx parses it. This file only does what pgx has no door for: see which settings a string names, add settings to it,
// and turn its parse errors into texts that cannot contain a password.

// setting is one key and value that is added to a connection string.
type setting struct{ key, value string }

// parseConnString lets pgx parse s. The error never quotes s.
func parseConnString(s string) (*pgxpool.Config, error) {
	if err := checkStrayAt(s); err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(s)
	if err != nil {
		return nil, sanitizeParseError(err)
	}
	hosts := []string{cfg.ConnConfig.Host}
	for _, f := range cfg.ConnConfig.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, h := range hosts {
		// postgres://user:pa@ss@host/ parses as password "pa" and host "ss@host": the rest of the password would
		// reach the resolver, its logs and our errors.
		if strings.Contains(h, "@") {
			return nil, fmt.Errorf("%w: the host contains '@'; write '@' in a password as %%40", ErrInvalidConfig)
		}
	}
	return cfg, nil
}

// checkStrayAt refuses a URL such as postgres://user:12/34@host/db, where the unencoded '/' of the password makes
// "user" the host and leaves the rest of the password in the database's name, from where it would be printed.
func checkStrayAt(s string) error {
	rest, ok := cutScheme(s)
	if !ok {
		return nil
	}
	i := strings.IndexAny(rest, "@/")
	if i >= 0 && rest[i] == '/' && strings.Contains(rest[i:], "@") {
		return fmt.Errorf("%w: '@' after the first '/' of the URL; in a user, password or setting write '/' as %%2F and '@' as %%40", ErrInvalidConfig)
	}
	return nil
}

// parseProblems maps the static part of pgx's messages to ours. The dynamic parts may quote pieces of the string.
var parseProblems = []struct{ contains, say string }{
	{"failed to parse as URL", "it is not a valid postgres:// URL (percent-encode special characters in user and password)"},
	{"failed to parse as keyword/value", "it is not a valid list of key=value settings (quote values that contain spaces)"},
	{"invalid port", "the port is not a number from 1 to 65535 (percent-encode special characters in the password)"},
	{"port numbers to", "the number of ports does not match the number of hosts"},
	{"failed to read service", "the service is not in the service file, or that file cannot be read"},
	{"unknown target_session_attrs", "target_session_attrs is not one of any, read-write, read-only, primary, standby, prefer-standby"},
	{"invalid connect_timeout", "connect_timeout is not a number of seconds"},
	{"unknown channel_binding", "channel_binding is not one of disable, prefer, require"},
	{"invalid require_auth", "require_auth is not a list of authentication methods"},
	{"invalid sslcertmode", "sslcertmode is not one of disable, allow, require"},
	{"protocol_version", "min_protocol_version or max_protocol_version is not valid"},
	{"pool_", "a pool_ setting is not valid"},
	{"statement_cache_capacity", "statement_cache_capacity is not a number"},
	{"default_query_exec_mode", "default_query_exec_mode is not one that pgx knows"},
}

// sanitizeParseError keeps what is wrong and drops where: pgx masks passwords in its message on a best-effort basis
// only, and its error value carries the whole string.
func sanitizeParseError(err error) error {
	text := err.Error()
	if strings.Contains(text, "failed to configure TLS") {
		if inner := errors.Unwrap(err); inner != nil {
			return tlsConfigError(inner)
		}
	}
	for _, p := range parseProblems {
		if strings.Contains(text, p.contains) {
			return fmt.Errorf("%w: %s", ErrInvalidConfig, p.say)
		}
	}
	return fmt.Errorf("%w: the connection string cannot be parsed", ErrInvalidConfig)
}

func tlsConfigError(inner error) error {
	var pathErr *fs.PathError
	if errors.As(inner, &pathErr) {
		return fmt.Errorf("%w: TLS file: %w", ErrInvalidConfig, pathErr)
	}
	// pgx's other messages here are constants, none quotes a value.
	return fmt.Errorf("%w: TLS: %s", ErrInvalidConfig, inner.Error())
}

func cutScheme(s string) (rest string, isURL bool) {
	if rest, ok := strings.CutPrefix(s, "postgres://"); ok {
		return rest, true
	}
	return strings.CutPrefix(s, "postgresql://")
}

// connStringKeys returns the settings that s names beside host, port, user, password and database, which the fixed
// parts of a URL can name too. It must only be used on a string that pgx accepts, so it need not report errors. Of a
// repeated key the last value counts, and a URL's ssl=true is sslmode=require, both as in libpq.
func connStringKeys(s string) map[string]string {
	if rest, ok := cutScheme(s); ok {
		return urlKeys(rest)
	}
	keys := make(map[string]string)
	for {
		var key, value string
		var ok bool
		if key, value, s, ok = nextKeyValue(s); !ok {
			return keys
		}
		keys[key] = value
	}
}

const connStringSpace = " \t\n\r\v\f"

func nextKeyValue(s string) (key, value, rest string, ok bool) {
	key, s, ok = strings.Cut(s, "=")
	if !ok {
		return "", "", "", false
	}
	key, s = strings.Trim(key, connStringSpace), strings.TrimLeft(s, connStringSpace)
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\'', !quoted && strings.IndexByte(connStringSpace, c) >= 0:
			return key, b.String(), s[i+1:], true
		case c == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return key, b.String(), "", true
}

func urlKeys(rest string) map[string]string {
	keys := make(map[string]string)
	q := queryStart(rest)
	if q < 0 {
		return keys
	}
	for pair := range strings.SplitSeq(rest[q+1:], "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, errKey := url.PathUnescape(strings.Trim(rawKey, " "))
		value, errValue := url.PathUnescape(strings.Trim(rawValue, " "))
		if errKey != nil || errValue != nil {
			continue
		}
		if key == "ssl" && value == "true" {
			key, value = "sslmode", "require"
		}
		keys[key] = value
	}
	return keys
}

// queryStart finds the '?' that begins the settings of a URL without its scheme, or returns -1. A '?' inside the user
// information or inside the brackets of an IPv6 address does not count, as in pgx's parser.
func queryStart(rest string) int {
	start := 0
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		start = i + 1
	}
	for {
		if strings.HasPrefix(rest[start:], "[") {
			end := strings.IndexByte(rest[start:], ']')
			if end < 0 {
				return -1
			}
			start += end
		}
		i := strings.IndexAny(rest[start:], "/?,")
		if i < 0 {
			return -1
		}
		start += i
		if rest[start] != ',' {
			break
		}
		start++
	}
	if i := strings.IndexByte(rest[start:], '?'); i >= 0 {
		return start + i
	}
	return -1
}

// addSettings appends settings to a connection string of either form. The last value of a key counts, so what is
// added replaces what s said.
func addSettings(s string, add []setting) string {
	if len(add) == 0 {
		return s
	}
	rest, isURL := cutScheme(s)
	var b strings.Builder
	if !isURL {
		// A lone backslash at the very end is dropped by the grammar; left in, it would escape our separator.
		if n := len(s) - len(strings.TrimRight(s, `\`)); n%2 == 1 {
			s = s[:len(s)-1]
		}
		b.WriteString(s)
		if endsInEmptyValue(s) {
			b.WriteString("''") // or the grammar would take what follows for the value
		}
		for _, a := range add {
			fmt.Fprintf(&b, " %s='%s'", a.key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(a.value))
		}
		return b.String()
	}
	b.WriteString(s)
	separator := "?"
	if queryStart(rest) >= 0 {
		separator = "&"
	}
	if strings.HasSuffix(s, "&") || separator == "&" && strings.HasSuffix(s, "?") {
		separator = ""
	}
	for _, a := range add {
		b.WriteString(separator + a.key + "=" + percentEncode(a.value))
		separator = "&"
	}
	return b.String()
}

// endsInEmptyValue says whether a key=value string ends in a key without a value, as in "host=h password=".
func endsInEmptyValue(s string) bool {
	if !strings.HasSuffix(strings.TrimRight(s, connStringSpace), "=") {
		return false
	}
	last := ""
	for {
		_, value, rest, ok := nextKeyValue(s)
		if !ok {
			return last == ""
		}
		last, s = value, rest
	}
}

// percentEncode encodes everything but RFC 3986's unreserved characters; libpq knows no '+' for a space.
func percentEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// saidSSLMode returns the sslmode that a connection string or the environment names, or "".
func saidSSLMode(keys map[string]string) string {
	if mode, ok := keys["sslmode"]; ok {
		return mode // even if empty: it hides the environment's
	}
	return os.Getenv("PGSSLMODE")
}

// usesService says whether settings come from a service file as well.
func usesService(keys map[string]string) bool {
	return keys["service"] != "" || os.Getenv("PGSERVICE") != ""
}

// prefersTLS says whether cfg has the shape that pgx gives to sslmode=prefer: TLS first, then the same host without.
// pgx also gives it to a string that names no sslmode.
func prefersTLS(cfg *pgconn.Config) bool {
	previous := pgconn.FallbackConfig{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}
	for _, f := range cfg.Fallbacks {
		if f.Host == previous.Host && f.Port == previous.Port && previous.TLSConfig != nil && f.TLSConfig == nil {
			return true
		}
		previous = *f
	}
	return false
}
