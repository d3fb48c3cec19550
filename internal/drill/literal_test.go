package drill

import "testing"

func TestLiteral_LetsNothingThrough(t *testing.T) {
	for in, want := range map[string]string{"20261123T084738Z-70c6fd": "'20261123T084738Z-70c6fd'", "": "''", "x' or true --": "null", "ä": "null"} {
		if got := literal(in); got != want {
			t.Errorf("%q becomes %s, want %s", in, got, want)
		}
	}
}
