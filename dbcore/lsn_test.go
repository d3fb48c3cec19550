package dbcore_test

import (
	"encoding/json"
	"errors"
	"testing"

	"lifeboat/dbcore"
)

func TestLSN(t *testing.T) {
	for _, c := range []struct {
		text string
		want dbcore.LSN
		back string
	}{
		{"0/0", 0, "0/0"},
		{"0/1000028", 0x1000028, "0/1000028"},
		{"16/B374D848", 0x16B374D848, "16/B374D848"},
		{"16/b374d848", 0x16B374D848, "16/B374D848"},
		{"ffffffff/FFFFFFFF", 0xFFFFFFFFFFFFFFFF, "FFFFFFFF/FFFFFFFF"},
		{"1/00000002", 0x100000002, "1/2"},
	} {
		got, err := dbcore.ParseLSN(c.text)
		if err != nil || got != c.want || got.String() != c.back {
			t.Errorf("ParseLSN(%q) = %d (%s), %v; want %d (%s)", c.text, got, got, err, c.want, c.back)
		}
	}
	for _, text := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0/123456789", "0/000000001", "+1/0", "0/-1", "0x1/0", " 0/0", "0/0 ", "g/0", "1_0/0"} {
		if got, err := dbcore.ParseLSN(text); !errors.Is(err, dbcore.ErrInvalidLSN) {
			t.Errorf("ParseLSN(%q) = %s, %v; want ErrInvalidLSN", text, got, err)
		}
	}
}

func TestLSNAgainstServer(t *testing.T) {
	db := openDB(t, socketConfig())
	want := dbcore.LSN(0xAB_0000CDEF)
	if got := one[dbcore.LSN](t, db, "select $1::pg_lsn", want); got != want {
		t.Errorf("round trip gave %s, want %s", got, want)
	}
	if got := one[string](t, db, "select $1::pg_lsn::text", want); got != want.String() {
		t.Errorf("server writes %s, we write %s", got, want)
	}
	if got := one[*dbcore.LSN](t, db, "select null::pg_lsn"); got != nil {
		t.Errorf("NULL gave %s", got)
	}
	if now := one[dbcore.LSN](t, db, "select pg_current_wal_lsn()"); now < 0x1000000 {
		t.Errorf("current position is %s", now)
	}
	if _, err := dbcore.One[dbcore.LSN](t.Context(), db, "select 5"); err == nil {
		t.Error("an integer was taken for a position")
	}
}

func TestLSNText(t *testing.T) {
	type doc struct {
		At dbcore.LSN `json:"at"`
	}
	out, err := json.Marshal(doc{At: 0x200000001})
	if err != nil || string(out) != `{"at":"2/1"}` {
		t.Fatalf("%s, %v", out, err)
	}
	var back doc
	if err := json.Unmarshal(out, &back); err != nil || back.At != 0x200000001 {
		t.Fatalf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"at":"2"}`), &back); !errors.Is(err, dbcore.ErrInvalidLSN) {
		t.Fatalf("got %v", err)
	}
}
