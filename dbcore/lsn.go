package dbcore

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log: a byte offset from the log's beginning. The zero value is the invalid
// position 0/0 (InvalidXLogRecPtr in PostgreSQL's src/include/access/xlogdefs.h); no record ever starts there.
//
// LSN works as an argument for pg_lsn parameters and as a destination for pg_lsn columns.
type LSN uint64

// ErrInvalidLSN says that a text is not a log position. Test with errors.Is.
var ErrInvalidLSN = errors.New("invalid log position")

// String gives PostgreSQL's notation, two hexadecimal halves as in "16/B374D848" (pg_lsn_out).
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads PostgreSQL's notation. Like pg_lsn_in (src/backend/utils/adt/pg_lsn.c) it takes one to eight
// hexadecimal digits on each side of the slash, in either case, and nothing else.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%w %q: want two hexadecimal numbers as in 16/B374D848", ErrInvalidLSN, s)
	}
	h, okHigh := parseHex32(high)
	l, okLow := parseHex32(low)
	if !okHigh || !okLow {
		return 0, fmt.Errorf("%w %q: want two hexadecimal numbers as in 16/B374D848", ErrInvalidLSN, s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// parseHex32 is strict where strconv.ParseUint is not: leading zeros count as digits.
func parseHex32(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 16, 32)
	return uint32(v), err == nil && len(s) <= 8
}

// MarshalText implements encoding.TextMarshaler in PostgreSQL's notation.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LSN) UnmarshalText(text []byte) error {
	v, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// Scan implements sql.Scanner. NULL is an error: use *LSN for a column that may be NULL.
func (l *LSN) Scan(src any) error {
	switch v := src.(type) {
	case string:
		return l.UnmarshalText([]byte(v))
	case []byte:
		return l.UnmarshalText(v)
	default:
		return fmt.Errorf("%w: cannot read it from %T", ErrInvalidLSN, src)
	}
}

// Value implements driver.Valuer.
func (l LSN) Value() (driver.Value, error) { return l.String(), nil }
