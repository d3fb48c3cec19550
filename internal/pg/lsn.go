package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log: the number of bytes of WAL before it
// (XLogRecPtr, access/xlogdefs.h). Zero is no position (InvalidXLogRecPtr).
type LSN uint64

// ParseLSN reads the form that PostgreSQL prints, two hexadecimal halves of at most
// eight digits: "0/3000028". Lower case is accepted, as the server accepts it in
// recovery_target_lsn (pg_lsn_in_internal, utils/adt/pg_lsn.c).
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want two hexadecimal numbers with a slash between, such as 0/3000028", s)
	}
	h, err := parseHex32(hi)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: left half: %w", s, err)
	}
	l, err := parseHex32(lo)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: right half: %w", s, err)
	}
	return LSN(uint64(h)<<32 | uint64(l)), nil
}

// parseHex32 reads 1 to 8 hexadecimal digits and nothing else: no sign, no prefix,
// no underscore.
func parseHex32(s string) (uint32, error) {
	if len(s) < 1 || len(s) > 8 {
		return 0, fmt.Errorf("%q is not 1 to 8 hexadecimal digits", s)
	}
	var v uint32
	for i := range len(s) {
		d, ok := hexDigit(s[i])
		if !ok {
			return 0, fmt.Errorf("%q is not 1 to 8 hexadecimal digits", s)
		}
		v = v<<4 | uint32(d)
	}
	return v, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// String prints the form of PostgreSQL: "0/3000028", upper case, halves not padded.
func (l LSN) String() string {
	b := make([]byte, 0, 17)
	b = appendUpperHex(b, uint32(l>>32))
	b = append(b, '/')
	b = appendUpperHex(b, uint32(l))
	return string(b)
}

func appendUpperHex(b []byte, v uint32) []byte {
	const digits = "0123456789ABCDEF"
	started := false
	for shift := 28; shift >= 0; shift -= 4 {
		d := v >> shift & 0xF
		if d == 0 && !started && shift > 0 {
			continue
		}
		started = true
		b = append(b, digits[d])
	}
	return b
}

// MarshalText gives the form of [LSN.String]; encoding/json uses it, so an LSN is
// the JSON string "0/3000028".
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the form of [ParseLSN].
func (l *LSN) UnmarshalText(text []byte) error {
	v, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// Timeline numbers a history of the cluster; each promotion and each point-in-time
// recovery begins a new one (TimeLineID, access/xlogdefs.h). Zero is no timeline.
type Timeline uint32

// String prints the decimal form, as recovery_target_timeline takes it.
func (t Timeline) String() string { return strconv.FormatUint(uint64(t), 10) }

// Hex prints the eight digits that begin the names of WAL files: "0000000A".
func (t Timeline) Hex() string { return fmt.Sprintf("%08X", uint32(t)) }

// HistoryName is the name of the timeline's history file: "0000000A.history".
// Timeline 1 never has one.
func (t Timeline) HistoryName() string { return t.Hex() + ".history" }

// SystemID identifies a cluster from initdb on; all its copies share it. Zero is
// none. JSON carries it as a decimal string, since it does not fit the 53 bits that
// other languages read from a JSON number.
type SystemID uint64

// ParseSystemID reads a decimal number as pg_controldata and IDENTIFY_SYSTEM print it.
func ParseSystemID(s string) (SystemID, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse system identifier %q: not a decimal number of 64 bits", s)
	}
	return SystemID(v), nil
}

// String prints the decimal form.
func (s SystemID) String() string { return strconv.FormatUint(uint64(s), 10) }

// MarshalText gives the decimal form.
func (s SystemID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the form of [ParseSystemID].
func (s *SystemID) UnmarshalText(text []byte) error {
	v, err := ParseSystemID(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}
