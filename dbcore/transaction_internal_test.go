package dbcore

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestOutcomeUnknown: after COMMIT was sent, only an ERROR that knows what it says is a definite no.
func TestOutcomeUnknown(t *testing.T) {
	for _, c := range []struct {
		severity, code string
		want           bool
	}{
		{"ERROR", "40001", false}, // serialization_failure
		{"ERROR", "40P01", false}, // deadlock_detected
		{"ERROR", "23505", false}, // a deferred constraint
		{"ERROR", "57014", false}, // query_canceled
		{"ERROR", "53100", false}, // disk_full
		{"ERROR", "XX000", false},
		{"ERROR", "40003", true}, // statement_completion_unknown
		{"ERROR", "08007", true}, // transaction_resolution_unknown
		{"ERROR", "08006", true},
		{"FATAL", "57P01", true}, // admin_shutdown
		{"FATAL", "57P02", true}, // crash_shutdown
		{"FATAL", "25P04", true}, // transaction_timeout
		{"FATAL", "08P01", true}, // a pooler's own error
		{"FATAL", "XX000", true},
		{"PANIC", "53100", true}, // could not write WAL: the record may be there after recovery
	} {
		// SeverityUnlocalized is what counts: Severity may be in any language.
		for _, err := range []error{
			&pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: c.severity, Code: c.code},
			fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: c.severity, Code: c.code}),
		} {
			if got := outcomeUnknown(err); got != c.want {
				t.Errorf("%s %s: unknown %t, want %t", c.severity, c.code, got, c.want)
			}
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, pgconn.ErrConnClosed, errors.New("anything")} {
		if !outcomeUnknown(err) {
			t.Errorf("%v counts as an answer", err)
		}
	}
}
