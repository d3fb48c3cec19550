package migrate

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func sourceOf(names ...string) fs.FS {
	fsys := fstest.MapFS{}
	for _, n := range names {
		fsys[n] = &fstest.MapFile{Data: []byte("select 1;")}
	}
	return fsys
}

// TestSource_Refuses what golang-migrate passes over in silence.
func TestSource_Refuses(t *testing.T) {
	for want, names := range map[string][]string{
		"the name is not NUMBER_title.up.sql": {"1_a.up.sql", "2-b.up.sql"},
		"have the same version":               {"1_a.up.sql", "01_b.up.sql"},
		"has no up file beside it":            {"1_a.down.sql"},
		"does not fit the bigint":             {"18446744073709551615_a.up.sql"},
	} {
		if _, err := readSource(sourceOf(names...)); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", names, err)
		}
	}
	files, err := readSource(sourceOf("2_b.up.sql", "1_a.up.sql", "1_a.down.sql", "readme.md", "20240101120000_c.up.sql"))
	if err != nil || len(files) != 3 || files[0].down == nil || files[0].version != 1 || files[2].title != "c" {
		t.Errorf("%+v, %v", files, err)
	}
}

func TestGaps(t *testing.T) {
	for _, c := range []struct {
		versions, want []int64
	}{
		{nil, nil},
		{[]int64{1, 2, 3}, nil},
		{[]int64{1, 2, 4}, []int64{4}},
		{[]int64{1, 3}, []int64{3}},
		{[]int64{10, 20, 30}, nil},
		{[]int64{10, 20, 40}, []int64{40}},
		{[]int64{7, 8, 9}, nil}, // the older ones were squashed
		{[]int64{0, 1, 2}, nil},
		{[]int64{20240101120000, 20240305090000}, nil},
		{[]int64{1, 2, 20240101120000}, nil},
	} {
		var files []*file
		for _, v := range c.versions {
			files = append(files, &file{version: v})
		}
		if got := gaps(files); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.versions, got, c.want)
		}
	}
}

// TestChecksum: a checkout on another system is the same file.
func TestChecksum(t *testing.T) {
	unix := newScript("1_a.up.sql", []byte("select 1;\nselect 2;\n"))
	dos := newScript("1_a.up.sql", []byte("\xef\xbb\xbfselect 1;\r\nselect 2;\r\n"))
	if unix.checksum != dos.checksum {
		t.Error("line ends count")
	}
	if other := newScript("1_a.up.sql", []byte("select 1;\nselect  2;\n")); other.checksum == unix.checksum {
		t.Error("an edit does not count")
	}
}

// TestPlanHash: it names what would be run, and nothing else.
func TestPlanHash(t *testing.T) {
	m := &Migrator{files: []*file{{version: 1, title: "a", up: newScript("1_a.up.sql", []byte("create table a (); create index i on b (c);"))}}}
	empty := func() *state { return &state{version: noVersion, applied: map[int64]record{}} }
	first, err := m.plan(empty(), PlanOptions{}, 15)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := m.plan(empty(), PlanOptions{}, 17)
	if first.Hash != again.Hash || len(first.Hash) != 64 {
		t.Errorf("%s, then %s", first.Hash, again.Hash)
	}
	m.files[0].up = newScript("1_a.up.sql", []byte("create table a (); create index i on b (d);"))
	if other, _ := m.plan(empty(), PlanOptions{}, 15); other.Hash == first.Hash {
		t.Error("another statement has the same hash")
	}
}

// TestScanner_SplitsUnknownGrammar: a statement that this grammar does not know leaves the others alone.
func TestScanner_SplitsUnknownGrammar(t *testing.T) {
	s := newScript("1_a.up.sql", []byte(`create function f() returns int language sql begin atomic select 1; select case when true then 2 end; end;
alter table t add constraint c not null a not valid; -- PostgreSQL 18
do $$ begin perform 1; end $$; create rule r as on insert to t do also (select 1; select 2);
create index concurrently i on t (a)`))
	var kinds []string
	for _, st := range s.stmts {
		kinds = append(kinds, st.kind.name)
	}
	if want := []string{"CREATE FUNCTION", "unknown statement", "DO", "RULE", "CREATE INDEX CONCURRENTLY"}; s.parseErr == nil || !slices.Equal(kinds, want) {
		t.Errorf("%v, want %v", kinds, want)
	}
}

// TestRetryDelay grows, and stays bounded.
func TestRetryDelay(t *testing.T) {
	last := retryDelay(1)
	if last != retryMin {
		t.Errorf("first %v", last)
	}
	for attempt := 2; attempt < 100; attempt++ {
		d := retryDelay(attempt)
		if d < last || d > retryMax {
			t.Fatalf("attempt %d: %v after %v", attempt, d, last)
		}
		if j := jitter(d); j < d/2 || j > d {
			t.Fatalf("jitter(%v) = %v", d, j)
		}
		last = d
	}
}
