package config

import (
	"errors"
	"fmt"
	"strings"
)

// lookup is os.LookupEnv, or a test's own environment. Nil is an environment without variables.
type lookup func(name string) (value string, found bool)

// expand replaces ${NAME} by the variable's value and $${ by the literal ${. It looks at s once: what a variable holds
// is never expanded again. used tells whether there was a reference. The error names a variable that is not set, and
// quotes nothing else: what stands in a malformed reference may be part of a password.
func expand(s string, env lookup) (expanded string, used bool, err error) {
	var b strings.Builder
	for s != "" {
		switch {
		case strings.HasPrefix(s, "$${"):
			b.WriteString("${")
			s = s[3:]
		case strings.HasPrefix(s, "${"):
			name, rest, closed := strings.Cut(s[2:], "}")
			if !closed || !envName(name) {
				return "", true, errors.New("malformed reference: write ${NAME}, or $${ for a literal ${")
			}
			value, found := "", false
			if env != nil {
				value, found = env(name)
			}
			if !found {
				return "", true, fmt.Errorf("environment variable %s is not set: set it, or write $${%s} for the literal text", name, name)
			}
			b.WriteString(value)
			s, used = rest, true
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String(), used, nil
}

// unexpand writes a value so that expand returns it.
func unexpand(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// envName follows POSIX: letters, digits and underscores, not beginning with a digit.
func envName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c == '_', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
