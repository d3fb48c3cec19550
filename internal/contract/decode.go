package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Decode reads one JSON object strictly: unknown fields, fields that are given twice (names of another case count as
// the same, as encoding/json reads them), wrong types, several values and anything but an object are errors that name
// the field. Empty data and null are an empty object.
func Decode[T any](data []byte) (T, error) {
	var v, none T
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "null" {
		return v, nil
	}
	if data[0] != '{' {
		return v, fmt.Errorf("input must be one JSON object such as {\"cluster\": \"orders\"}, not %.40s", data)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return none, fmt.Errorf("input field %q must be %s, not a JSON %s", wrong.Field, jsonWord(wrong.Type), wrong.Value)
		}
		return none, fmt.Errorf("input: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("input must be a single JSON object: there is more after it")
	}
	if err := unique(json.NewDecoder(bytes.NewReader(data)), nil); err != nil {
		return none, err
	}
	return v, nil
}

// jsonWord says what a person must write for a value of a Go type.
func jsonWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "an object"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	}
	return "a number"
}

// unique reads one value, which is known to be valid JSON, and refuses objects that name a field twice: of two targets
// the person may have meant either. path is made text only for an error: names may be nested as deep as they are long.
func unique(dec *json.Decoder, path []string) error {
	token, err := dec.Token()
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		at := path
		if open == '{' {
			token, err := dec.Token()
			if err != nil {
				return fmt.Errorf("input: %w", err)
			}
			name := fmt.Sprint(token)
			at = append(path, name)
			if seen[folded(name)] {
				return fmt.Errorf("input field %q is given twice", strings.Join(at, "."))
			}
			seen[folded(name)] = true
		}
		if err := unique(dec, at); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing one
	return err
}

// folded is equal for names that encoding/json takes for one: not only "A" is "a" there, but also "ſ" is "s".
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		for { // the least of the runes that fold to each other: only from it does SimpleFold go up, or stay
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}

// ParseTime reads RFC 3339 with a zone (a blank may stand for the T), or "5 minutes ago" (seconds, minutes, hours, days)
// before now. A time without a zone is refused: it would mean another second on another machine. The result is in UTC.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if t, ok := parseRFC3339(s); ok {
		return t, nil
	}
	if ago, ok := parseAgo(s); ok {
		return now.Add(-ago).UTC(), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, fmt.Errorf("time %q has no zone: write it as 2026-11-23T07:45:00Z or 2026-11-23T08:45:00+01:00", s)
		}
	}
	return time.Time{}, fmt.Errorf(`time %q: write it as 2026-11-23T07:45:00.123456Z, with a zone, or as "5 minutes ago"`, s)
}

// rfc3339 is stricter than time.Parse, which takes single-digit hours and commas (golang.org/issue/54580).
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$`)

func parseRFC3339(s string) (time.Time, bool) {
	if !rfc3339.MatchString(s) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, strings.Replace(s, " ", "T", 1))
	t = t.UTC() // which may be of a year that RFC 3339 cannot write, and of year 0, which PostgreSQL does not have
	return t, err == nil && t.Year() >= 1 && t.Year() <= 9999
}

// longestAgo keeps "ago" within what a duration can hold, and is more than any archive.
const longestAgo = 100 * 365 * 24 * time.Hour

// parseAgo reads "5 minutes ago" and nothing around it.
func parseAgo(s string) (time.Duration, bool) {
	words := strings.Fields(s)
	if len(words) != 3 || words[2] != "ago" {
		return 0, false
	}
	n, err := strconv.ParseUint(words[0], 10, 32)
	unit, ok := map[string]time.Duration{
		"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
	}[strings.TrimSuffix(words[1], "s")]
	if err != nil || !ok || n > uint64(longestAgo/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
