package dbcore

import (
	"reflect"
	"testing"
)

// TestConnStringKeys: our reading of a string's keys agrees with pgx's, which is asked through RuntimeParams: a
// setting that pgx does not know becomes one.
func TestConnStringKeys(t *testing.T) {
	for _, s := range []string{
		`host=h a.b=1 c.d='x y' e.f=`,
		`a.b = 1  c.d= 'it\'s' e.f=x\ y`,
		`a.b=1 a.b=2`,
		`  a.b=\\ c.d='\\'`,
		`a.b=x\`,
		`a.b=x=`,
		`a.b=1 c.d= `,
		`a.b='' c.d=1`,
		"a.b=1\tc.d=2\ne.f=3",
		`postgres://h/d?a.b=1&c.d=x%20y&a.b=3`,
		`postgres://u:p?a.b=9@h/d?a.b=1`,
		`postgres://u:p@[::1]:1,h2:2/d?a.b=1`,
		`postgres://h?a.b=%26&c.d=`,
		`postgresql://?a.b= 1 `,
		`postgres://h/d`,
		``,
	} {
		cfg, err := parseConnString(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		got := make(map[string]string)
		for key, value := range connStringKeys(s) {
			if len(key) == 3 && key[1] == '.' {
				got[key] = value
			}
		}
		if want := cfg.ConnConfig.RuntimeParams; !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %q\nwant %q", s, got, want)
		}
		// What is added replaces what was there, in either form.
		added, err := parseConnString(addSettings(s, []setting{{"a.b", `it's\ & 100%=+`}, {"z.z", ""}}))
		if err != nil {
			t.Errorf("%q with settings added: %v", s, err)
			continue
		}
		want := cfg.ConnConfig.RuntimeParams
		want["a.b"], want["z.z"] = `it's\ & 100%=+`, ""
		if got := added.ConnConfig.RuntimeParams; !reflect.DeepEqual(got, want) {
			t.Errorf("%q with settings added:\n got %q\nwant %q", s, got, want)
		}
	}
}
