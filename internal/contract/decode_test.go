package contract

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestDecode_IsStrict(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       string // part of the error; "" is success
	}{
		{"empty", "", ""},
		{"blank", " \n\t", ""},
		{"null", " null ", ""},
		{"empty object", "{}", ""},
		{"all of it", `{"cluster":"orders","targetDir":"/x","host":"h","target":{"kind":"time","value":"v"},"timeline":2,"start":true}`, ""},
		{"unknown field", `{"cluster":"orders","clutser":"x"}`, `unknown field "clutser"`},
		{"unknown field inside", `{"target":{"kind":"time","at":"x"}}`, `unknown field "at"`},
		{"snake case", `{"target_dir":"/x"}`, `unknown field "target_dir"`},
		{"string for a number", `{"timeline":"2"}`, `"timeline" must be a whole number, not negative, not a JSON string`},
		{"negative", `{"timeline":-1}`, `"timeline" must be a whole number, not negative`},
		{"too large", `{"timeline":4294967296}`, `"timeline" must be`},
		{"fraction", `{"port":1.5}`, `"port" must be a whole number`},
		{"number for a string", `{"cluster":7}`, `"cluster" must be a string, not a JSON number`},
		{"string for a bool", `{"start":"yes"}`, `"start" must be true or false`},
		{"string for an object", `{"target":"latest"}`, `"target" must be an object`},
		{"wrong type inside", `{"target":{"exclusive":1}}`, `"target.exclusive" must be true or false`},
		{"given twice", `{"cluster":"orders","host":"h","cluster":"customers"}`, `"cluster" is given twice`},
		{"given twice in two cases", `{"cluster":"orders","Cluster":"customers"}`, `"Cluster" is given twice`},
		{"given twice in the cases that Unicode knows", `{"cluster":"orders","clu\u017fter":"customers"}`, `"cluſter" is given twice`},
		{"given twice inside", `{"target":{"kind":"time","kind":"latest"}}`, `"target.kind" is given twice`},
		{"one name at two places", `{"host":"h","target":{"kind":"time","value":"host"}}`, ""},
		{"two values", `{"cluster":"a"} {"cluster":"b"}`, "more after it"},
		{"garbage behind", `{"cluster":"a"}x`, "more after it"},
		{"list", `[{"cluster":"a"}]`, "one JSON object"},
		{"string", `"orders"`, "one JSON object"},
		{"number", `7`, "one JSON object"},
		{"no JSON", `cluster=orders`, "one JSON object"},
		{"cut off", `{"cluster":"a"`, "input: "},
		{"single quotes", `{'cluster':'a'}`, "input: "},
		{"trailing comma", `{"cluster":"a",}`, "input: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode[RestoreInput]([]byte(c.data))
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Errorf("accepted as %+v, want an error with %q", got, c.want)
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("error is %q, want %q in it", err, c.want)
			case err != nil && !reflect.DeepEqual(got, RestoreInput{}):
				t.Errorf("an error and %+v", got)
			}
		})
	}
	in, err := Decode[RestoreInput]([]byte(`{"cluster":"orders","target":{"kind":"lsn","value":"0/1","exclusive":true},"timeline":2}`))
	want := RestoreInput{Cluster: "orders", Target: Target{Kind: "lsn", Value: "0/1", Exclusive: true}, Timeline: 2}
	if err != nil || !reflect.DeepEqual(in, want) {
		t.Errorf("got %+v, %v, want %+v", in, err, want)
	}
	drill, err := Decode[DrillInput]([]byte(`{"checks":[{"name":"a","sql":"b","expect":"c"},{"name":"a","sql":"b","expect":"c"}]}`))
	if err == nil {
		if len(drill.Checks) != 2 {
			t.Errorf("got %+v", drill)
		}
	} else {
		t.Errorf("objects of a list share their names: %v", err)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		in, want string // want is RFC 3339, or "!" and a part of the error
	}{
		{"2026-11-23T07:45:00Z", "2026-11-23T07:45:00Z"},
		{"2026-11-23T08:45:00+01:00", "2026-11-23T07:45:00Z"},
		{"2026-11-23T02:15:00-05:30", "2026-11-23T07:45:00Z"},
		{"2026-11-23 07:45:00Z", "2026-11-23T07:45:00Z"},
		{"2026-11-23 08:45:00.5+01:00", "2026-11-23T07:45:00.5Z"},
		{"2026-11-23T07:45:00.123456789Z", "2026-11-23T07:45:00.123456789Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"5 minutes ago", "2026-11-23T06:55:00Z"},
		{"1 minute ago", "2026-11-23T06:59:00Z"},
		{"0 seconds ago", "2026-11-23T07:00:00Z"},
		{"90 seconds ago", "2026-11-23T06:58:30Z"},
		{"2 hours ago", "2026-11-23T05:00:00Z"},
		{"3 days ago", "2026-11-20T07:00:00Z"},

		{"2026-11-23T07:45:00", "!has no zone"},
		{"2026-11-23 07:45:00.5", "!has no zone"},
		{"2026-11-23T07:45", "!has no zone"},
		{"2026-11-23", "!has no zone"},
		{"", "!write it as"},
		{"now", "!write it as"},
		{"yesterday", "!write it as"},
		{"1763884800", "!write it as"},
		{"2026-11-23T07:45:00 Europe/Berlin", "!write it as"},
		{"2026-11-23T07:45:00 CET", "!write it as"},
		{"2026-11-23T07:45:00+25:00", "!write it as"},
		{"9999-12-31T23:59:59-01:00", "!write it as"}, // 10000 in UTC
		{"0000-01-01T00:00:00Z", "!write it as"},      // PostgreSQL has no such year
		{"2026-11-23T7:45:00Z", "!write it as"},
		{"2026-11-23T07:45:00,5Z", "!write it as"},
		{"2026-11-23T24:00:00Z", "!write it as"},
		{"2026-02-30T00:00:00Z", "!write it as"},
		{"2026-11-23T07:45:00Z and more", "!write it as"},
		{" 2026-11-23T07:45:00Z", "!write it as"},
		{"5 minutes ago ago", "!write it as"},
		{"5 minutes ago, please", "!write it as"},
		{"about 5 minutes ago", "!write it as"},
		{"-5 minutes ago", "!write it as"},
		{"+5 minutes ago", "!write it as"},
		{"1.5 hours ago", "!write it as"},
		{"0x10 minutes ago", "!write it as"},
		{"5 minutess ago", "!write it as"},
		{"5 weeks ago", "!write it as"},
		{"5 s ago", "!write it as"},
		{"minutes ago", "!write it as"},
		{"5 minutes", "!write it as"},
		{"in 5 minutes", "!write it as"},
		{"300000 days ago", "!write it as"},                // beyond what a duration holds
		{"9223372036854775807 days ago", "!write it as"},   // its product overflows
		{"18446744073709551617 hours ago", "!write it as"}, // the number itself overflows
	} {
		got, err := ParseTime(c.in, now)
		part, refused := strings.CutPrefix(c.want, "!")
		switch {
		case refused && err == nil:
			t.Errorf("%q is read as %v", c.in, got)
		case refused && !strings.Contains(err.Error(), part):
			t.Errorf("%q: error is %q, want %q in it", c.in, err, part)
		case !refused && err != nil:
			t.Errorf("%q: %v", c.in, err)
		case !refused && (got.Format(time.RFC3339Nano) != c.want || got.Location() != time.UTC):
			t.Errorf("%q is read as %v, want %s", c.in, got, c.want)
		}
	}
}

// TestDecode_DeepNames: what is held while names are compared grows with the input, not with its square.
func TestDecode_DeepNames(t *testing.T) {
	const deep, long = 2000, 100
	name := `{"` + strings.Repeat("x", long) + `":`
	data := []byte(`{"plan":` + strings.Repeat(name, deep) + "0" + strings.Repeat("}", deep) + "}")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Decode[LayFilesInput](data); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(100*len(data)); got > limit {
		t.Errorf("%d bytes were allocated for %d", got, len(data))
	}
}
