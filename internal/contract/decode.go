package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Decode reads one JSON object strictly: unknown fields, wrong types, several values and anything but an object are
// errors that name the field. Empty data is an empty object.
func Decode[T any](data []byte) (T, error) {
	var v T
	if len(bytes.TrimSpace(data)) == 0 || string(bytes.TrimSpace(data)) == "null" {
		return v, nil
	}
	if bytes.TrimSpace(data)[0] != '{' {
		return v, fmt.Errorf("input must be one JSON object such as {\"cluster\": \"orders\"}, not %.40s", data)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return v, fmt.Errorf("input field %q must be %s, not a JSON %s", wrong.Field, wrong.Type, wrong.Value)
		}
		return v, fmt.Errorf("input: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("input must be a single JSON object: there is more after it")
	}
	return v, nil
}

// ParseTime reads RFC 3339 with a zone, or "5 minutes ago" (seconds, minutes, hours, days) before now. A time without a
// zone is refused: it would mean another second on another machine.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.Parse("2006-01-02 15:04:05.999999999Z07:00", s); err == nil {
		return t.UTC(), nil
	}
	var n int
	var unit string
	if _, err := fmt.Sscanf(s, "%d %s ago", &n, &unit); err == nil && n >= 0 && strings.HasSuffix(s, " ago") {
		units := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
		if d, ok := units[strings.TrimSuffix(unit, "s")]; ok {
			return now.Add(-time.Duration(n) * d).UTC(), nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, fmt.Errorf("time %q has no zone: write it as 2026-11-23T07:45:00Z or 2026-11-23T08:45:00+01:00", s)
		}
	}
	return time.Time{}, fmt.Errorf(`time %q: write it as 2026-11-23T07:45:00.123456Z, with a zone, or as "5 minutes ago"`, s)
}
