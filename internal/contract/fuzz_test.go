package contract

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzDecode reads hostile inputs of every workflow and of an activity that carries a plan.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", " null ", "{}", `[{"cluster":"a"}]`, `{"cluster":"a","Cluster":"b"}`, `{"cluster":"a","clu\u017fter":"b"}`,
		`{"cluster":"orders","targetDir":"/x","host":"h","target":{"kind":"time","value":"v","exclusive":true},"timeline":2,"start":true}`,
		`{"cluster":"orders","checks":[{"name":"a","sql":"b","expect":"c"}]}`, `{"type":"full"}`, `{"level":3,"backup":"all"}`,
		`{"plan":{"a":{"b":[1,2,{"c":null}]}},"cluster":"x"}`, `{"plan":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip[BackupInput](t, data)
		roundTrip[RestoreInput](t, data)
		roundTrip[VerifyInput](t, data)
		roundTrip[DrillInput](t, data)
		roundTrip[LayFilesInput](t, data)
	})
}

// roundTrip decodes: what is accepted names each field once, and comes out equal when it is written and read again.
func roundTrip[T any](t *testing.T, data []byte) {
	t.Helper()
	v, err := Decode[T](data)
	if err != nil {
		var none T
		if !reflect.DeepEqual(v, none) {
			t.Fatalf("%v and %+v", err, v)
		}
		return
	}
	if name := twice(t, data, reflect.TypeFor[T]()); name != "" {
		t.Fatalf("%T: field %q is given twice in %q", v, name, data)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%T: %v", v, err)
	}
	again, err := Decode[T](out)
	if err != nil {
		t.Fatalf("%T: %s: %v", v, out, err)
	}
	if second, err := json.Marshal(again); err != nil || !bytes.Equal(second, out) {
		t.Fatalf("%T: %s, then %s, %v", v, out, second, err)
	}
}

// twice names a field of the type that the object gives more than once, by the rule of encoding/json: each name is
// decoded alone, and what it sets tells which field it is.
func twice(t *testing.T, data []byte, typ reflect.Type) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return ""
	}
	given := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		name := token.(string)
		for i := range typ.NumField() {
			field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.EqualFold(field, name) {
				continue
			}
			if given[field] {
				return name
			}
			given[field] = true
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return ""
}

// FuzzParseTime reads hostile times: what is accepted is one moment, in UTC, that can be written and read again.
func FuzzParseTime(f *testing.F) {
	for _, s := range []string{
		"2026-11-23T07:45:00.123456Z", "2026-11-23 08:45:00+01:00", "5 minutes ago", "1 day ago", "4294967295 seconds ago", "2026-11-23",
		"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "2026-02-30T00:00:00Z", "2026-11-23T23:59:60Z", "2026-11-23T08:45:00+24:00",
	} {
		f.Add(s, int64(1_790_000_000))
	}
	f.Fuzz(func(t *testing.T, s string, sec int64) {
		now := time.Unix(sec%10_000_000_000, 0)
		at, err := ParseTime(s, now)
		if err != nil {
			return
		}
		if at.Location() != time.UTC {
			t.Fatalf("%q is %v", s, at)
		}
		if strings.HasSuffix(strings.TrimSpace(s), "ago") {
			if at.After(now) || now.Sub(at) > longestAgo {
				t.Fatalf("%q before %v is %v", s, now, at)
			}
			return
		}
		text := at.Format(time.RFC3339Nano)
		if again, err := ParseTime(text, now); err != nil || !again.Equal(at) {
			t.Fatalf("%q is %s, read again as %v, %v", s, text, again, err)
		}
	})
}
