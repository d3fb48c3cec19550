package dbcore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// redacted is what every printed form of a Secret says.
const redacted = "[redacted]"

// Secret holds a password, or a connection string that may contain one. No way of printing it shows its content:
// fmt with any verb, JSON, text encodings and slog all give "[redacted]". The content sits behind a handle, so that
// even fmt's reflection over an unexported field of a caller's struct finds an address and not the text.
//
// The zero value is the empty secret. Secrets compare with == by content.
type Secret struct {
	handle unique.Handle[string]
}

// NewSecret wraps s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{handle: unique.Make(s)}
}

// Reveal returns the content. Pass it on at the last moment and never into an error, a log or a process argument.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.handle.Value()
}

// IsZero says whether the secret is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (s Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb, also for those that would print the bytes (%x, %q).
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns the JSON string "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "[redacted]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText takes text as the content. It refuses "[redacted]": that is a secret which was printed somewhere and
// read back, and using it as a password would only hide the mistake.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == redacted {
		return errors.New("the secret was redacted when it was written, give the real one")
	}
	*s = NewSecret(string(text))
	return nil
}
