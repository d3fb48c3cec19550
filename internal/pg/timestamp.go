package pg

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Timestamp is PostgreSQL's TimestampTz: microseconds since 2000-01-01 00:00:00 UTC
// (datatype/timestamp.h). Zero is that moment, a real time, and not "none".
type Timestamp int64

// The infinities of timestamptz (DT_NOBEGIN and DT_NOEND).
const (
	TimestampNegInfinity Timestamp = math.MinInt64
	TimestampInfinity    Timestamp = math.MaxInt64
)

// epoch is 2000-01-01 00:00:00 UTC in seconds since 1970.
const epoch = 946684800

const (
	textLayout = "2006-01-02T15:04:05.000000Z"
	rawPrefix  = "us:" // text form of what RFC 3339 cannot say
)

// TimestampOf converts a time, rounding down to the microsecond. A time beyond the
// range of the type gives the infinity on its side.
func TimestampOf(t time.Time) Timestamp {
	sec := t.Unix() - epoch
	const limit = math.MaxInt64/1_000_000 - 1
	if sec > limit {
		return TimestampInfinity
	}
	if sec < -limit {
		return TimestampNegInfinity
	}
	return Timestamp(sec*1_000_000 + int64(t.Nanosecond())/1000)
}

// Time converts to UTC. It is exact for every value; the infinities become the times
// that their number stands for, about 292 thousand years off.
func (t Timestamp) Time() time.Time {
	sec, us := int64(t)/1_000_000, int64(t)%1_000_000
	if us < 0 {
		sec, us = sec-1, us+1_000_000
	}
	return time.Unix(epoch+sec, us*1000).UTC()
}

// String is the text form.
func (t Timestamp) String() string {
	b, _ := t.MarshalText()
	return string(b)
}

// MarshalText gives RFC 3339 in UTC with microseconds, "2026-11-22T21:00:46.610469Z",
// "infinity" and "-infinity", and for times outside the years 0 to 9999, which only
// damaged or hostile data holds, "us:" and the number itself. It never fails, so that
// one odd record cannot spoil a document.
func (t Timestamp) MarshalText() ([]byte, error) {
	switch t {
	case TimestampInfinity:
		return []byte("infinity"), nil
	case TimestampNegInfinity:
		return []byte("-infinity"), nil
	}
	u := t.Time()
	if u.Year() < 0 || u.Year() > 9999 {
		return strconv.AppendInt([]byte(rawPrefix), int64(t), 10), nil
	}
	return u.AppendFormat(nil, textLayout), nil
}

// UnmarshalText reads what [Timestamp.MarshalText] wrote, and any RFC 3339 time with
// a zone.
func (t *Timestamp) UnmarshalText(text []byte) error {
	s := string(text)
	switch {
	case s == "infinity":
		*t = TimestampInfinity
	case s == "-infinity":
		*t = TimestampNegInfinity
	case strings.HasPrefix(s, rawPrefix):
		v, err := strconv.ParseInt(s[len(rawPrefix):], 10, 64)
		if err != nil {
			return fmt.Errorf("parse time stamp %q: not a number of microseconds", s)
		}
		*t = Timestamp(v)
	default:
		u, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return fmt.Errorf("parse time stamp %q: not an RFC 3339 time with a zone", s)
		}
		*t = TimestampOf(u)
	}
	return nil
}

// FormatRecoveryTime prints a time for recovery_target_time: in UTC, with
// microseconds and a numeric offset, "2026-11-22 21:00:46.610469+00". That setting
// refuses a trailing Z and zone abbreviations, and without a zone the server would
// read its own (R4). Fractions of a microsecond are cut off, which changes nothing:
// commit times have none, and the target is inclusive.
func FormatRecoveryTime(t time.Time) string {
	return t.UTC().Format("2006-01-02 15:04:05.000000-07")
}
