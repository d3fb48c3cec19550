package config

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// DSN is a PostgreSQL connection string that keeps its password to itself. fmt (every verb), encoding/json, log/slog
// and String show it redacted; only Reveal gives it away. The zero value is the empty string.
//
// Both forms of libpq are known: URLs (postgres://, postgresql://) and key=value pairs. See "Connection Strings" in
// the chapter on libpq of PostgreSQL's documentation.
type DSN struct {
	secret string
}

// NewDSN wraps a connection string.
func NewDSN(s string) DSN { return DSN{secret: s} }

// Reveal returns the whole connection string, password included. It is for the code that connects, and nothing else.
func (d DSN) Reveal() string { return d.secret }

// IsZero tells whether there is no connection string.
func (d DSN) IsZero() bool { return d.secret == "" }

// String returns the connection string with its passwords replaced by [redacted]; one that is not understood is
// replaced as a whole, since nobody knows where its password is.
func (d DSN) String() string {
	s, problem := d.rewrite(redacted)
	if problem != "" {
		return redacted
	}
	return s
}

// WithoutPassword returns the connection string without its passwords: still usable where they come from PGPASSFILE or
// PGPASSWORD. One that is not understood becomes the zero DSN.
func (d DSN) WithoutPassword() DSN {
	s, problem := d.rewrite("")
	if problem != "" {
		return DSN{}
	}
	return DSN{secret: s}
}

// Format writes String whatever the verb, so that %#v and %x show no more than %s does.
func (d DSN) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprint(f, d.String()) // fmt itself keeps the errors of a State
}

// MarshalText returns String: encoding/json and log/slog use it.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// check returns what is wrong with the connection string, "" if nothing is. It never quotes it.
func (d DSN) check() string {
	_, problem := d.rewrite("")
	return problem
}

// rewrite replaces every password by substitute, or drops it if that is empty. It returns what is wrong instead if the
// connection string is empty or not understood.
func (d DSN) rewrite(substitute string) (dsn, problem string) {
	if d.secret == "" {
		return "", "is empty: write postgres://USER@HOST/DATABASE or key=value pairs"
	}
	if !utf8.ValidString(d.secret) {
		return "", "is not UTF-8 text"
	}
	if strings.ContainsFunc(d.secret, unicode.IsControl) {
		return "", "contains a control character (perhaps the newline at the end of a secret's file)"
	}
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(d.secret, scheme); ok {
			s, problem := rewriteURL(rest, substitute)
			return scheme + s, problem
		}
	}
	pairs, ok := parsePairs(d.secret)
	if !ok {
		return "", "is no connection string: write postgres://USER@HOST/DATABASE or key=value pairs"
	}
	return rewritePairs(pairs, substitute), ""
}

// secretParameter tells whether a connection parameter holds a secret: password, sslpassword, oauth_client_secret.
func secretParameter(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "password") || strings.Contains(name, "secret")
}

// rewriteURL does it for what follows "postgres://". net/url is not used: it knows only one host, and quotes its input
// in errors.
func rewriteURL(rest, substitute string) (rewritten, problem string) {
	authority, tail := rest, ""
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, tail = rest[:end], rest[end:]
	}
	if strings.Contains(tail, "@") {
		// Either a password with a raw / ? or #, or an @ in a parameter: nobody can tell where the password ends.
		return "", "has an @ behind the host: write @ : / ? # % in user, password and parameters percent-encoded (%40 ...), " +
			"or give the password by PGPASSFILE or PGPASSWORD"
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, _, has := strings.Cut(authority[:at], ":")
		if has && substitute != "" {
			user += ":" + substitute
		}
		authority = user + authority[at:]
	}
	path, query, has := strings.Cut(tail, "?")
	if !has {
		return authority + path, ""
	}
	var kept []string
	for parameter := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil {
			return "", "has a parameter whose percent-encoding is broken"
		}
		switch {
		case !secretParameter(plain):
			kept = append(kept, parameter)
		case substitute != "":
			kept = append(kept, name+"="+substitute)
		}
	}
	if len(kept) == 0 {
		return authority + path, ""
	}
	return authority + path + "?" + strings.Join(kept, "&"), ""
}

type pair struct{ name, value string }

// parsePairs reads key=value pairs as conninfo_parse of libpq's fe-connect.c does: spaces around "=" are allowed, a value
// may be quoted by ', and \ makes the next character literal in both.
func parsePairs(s string) ([]pair, bool) {
	const space = " \t\n\r\f\v"
	var pairs []pair
	for s = strings.TrimLeft(s, space); s != ""; s = strings.TrimLeft(s, space) {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.TrimRight(name, space)
		if !ok || name == "" || strings.ContainsAny(name, space) {
			return nil, false
		}
		rest = strings.TrimLeft(rest, space)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		value, tail, ok := parseValue(rest, quoted)
		if !ok {
			return nil, false
		}
		pairs, s = append(pairs, pair{name, value}), tail
	}
	return pairs, len(pairs) > 0
}

func parseValue(s string, quoted bool) (value, tail string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\n\r\f\v", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

func rewritePairs(pairs []pair, substitute string) string {
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var out []string
	for _, p := range pairs {
		value := p.value
		if secretParameter(p.name) {
			if substitute == "" {
				continue
			}
			value = substitute
		}
		if value == "" || strings.ContainsAny(value, ` '\`) {
			value = "'" + escape.Replace(value) + "'"
		}
		out = append(out, p.name+"="+value)
	}
	return strings.Join(out, " ")
}
