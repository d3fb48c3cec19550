package telemetry

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"
)

const redacted = "[redacted]"

// sensitive are the words that make a key's value a secret.
var sensitive = []string{"password", "secret", "token", "dsn"}

// redactor returns the function that slog calls for each attribute, message included, but for groups themselves, whose
// keys it passes in groups. render turns a value as the handler would into text, so that what is looked at is what would
// be written.
func redactor(render func(any) string) func(groups []string, a slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		if sensitiveKey(a.Key) || slices.ContainsFunc(groups, sensitiveKey) {
			a.Value = slog.StringValue(redacted)
			return a
		}
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(redactURLs(a.Value.String()))
		case slog.KindAny:
			text := render(a.Value.Any())
			if clean := redactURLs(text); clean != text {
				a.Value = slog.StringValue(clean)
			}
		}
		return a
	}
}

// renderText follows slog.TextHandler.
func renderText(v any) string {
	if m, ok := v.(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprintf("%+v", v)
}

// renderJSON follows slog.JSONHandler, but looks at bytes before they become base64.
func renderJSON(v any) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	_, marshals := v.(json.Marshaler)
	if err, ok := v.(error); ok && !marshals {
		return err.Error()
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// sensitiveKey splits a key into words at punctuation and at capitals ("apiToken", "DBPassword").
func sensitiveKey(key string) bool {
	return slices.ContainsFunc(words(key), func(word string) bool {
		return slices.Contains(sensitive, word) || slices.Contains(sensitive, strings.TrimSuffix(word, "s"))
	})
}

func words(key string) []string {
	var out []string
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			out = append(out, strings.ToLower(word.String()))
			word.Reset()
		}
	}
	runes := []rune(key)
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
			continue
		}
		begins := unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if begins {
			flush()
		}
		word.WriteRune(r)
	}
	flush()
	return out
}

// redactURLs replaces the passwords of all URLs in s. It prefers hiding too much: a password with a raw @ or / in it is
// no valid URL, yet people write it, and then everything up to the last @ goes.
func redactURLs(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		from, to := password(rest)
		b.WriteString(rest[:from])
		if to > from {
			b.WriteString(redacted)
		}
		s = rest[to:]
	}
}

// password finds the password in what follows "://"; from == to if there is none. A URL ends at white space or at a
// character that no URL may have raw; ' it may.
func password(rest string) (from, to int) {
	end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("\"`<>", r) })
	if end < 0 {
		end = len(rest)
	}
	token := rest[:end]
	if strings.HasPrefix(token, "[") {
		return 0, 0 // an IPv6 address, so that there is no user
	}
	colon, at := strings.IndexByte(token, ':'), strings.LastIndexByte(token, '@')
	if colon < 0 || at < colon || isPort(token[colon+1:]) {
		return 0, 0
	}
	return colon + 1, at
}

// isPort tells whether what follows a colon is a port: digits, and then the end of the host.
func isPort(s string) bool {
	digits := strings.TrimLeft(s, "0123456789")
	return digits == "" || len(digits) < len(s) && strings.ContainsRune("/?#,", rune(digits[0]))
}
