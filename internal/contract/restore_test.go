package contract

import "testing"

func TestSplitTablespace(t *testing.T) {
	for _, tt := range []struct{ in, from, to string }{
		{"/a=/b", "/a", "/b"},
		{"16385=/b c", "16385", "/b c"},
		{`/a\=b=/c\=d`, "/a=b", "/c=d"},
		{`/a\b=/c\`, `/a\b`, `/c\`},
		{in: "/a"},
		{in: "/a="},
		{in: "=/b"},
		{in: "/a=b"},
		{in: "/a=/b=/c"},
		{in: `/a\=/b`},
		{in: ""},
	} {
		from, to, err := SplitTablespace(tt.in)
		if from != tt.from || to != tt.to || (err == nil) != (tt.to != "") {
			t.Errorf("%q: %q to %q, %v, want %q to %q", tt.in, from, to, err, tt.from, tt.to)
		}
	}
}
