package dbcore

import (
	"strings"
	"testing"
	"time"
)

func TestMissingIndexJudgement(t *testing.T) {
	big := tableRow{Schema: "s", Table: "t", Rows: 10_000, Bytes: 10 << 20, SeqScans: 100, SeqRows: 1_000_000}
	since := time.Now().Add(-time.Hour)
	stats := statsSince{Since: &since, Now: since.Add(time.Hour), Standbys: 2}
	for _, tc := range []struct {
		name   string
		edit   func(*tableRow)
		wanted bool
		reason string
	}{
		{"scanned again and again", func(*tableRow) {}, true, "100 sequential scans"},
		{"at the limit of scans", func(r *tableRow) { r.SeqScans, r.SeqRows = minSeqScans, minSeqScans*r.Rows }, true, "counted for 1h0m0s"},
		{"scanned seldom", func(r *tableRow) { r.SeqScans = minSeqScans - 1 }, false, ""},
		{"scans that end early (limit 1)", func(r *tableRow) { r.SeqRows = 100 }, false, ""},
		{"few of many scans", func(r *tableRow) { r.IndexScans = 1000 }, false, ""},
		{"a tenth of the scans, and more", func(r *tableRow) { r.IndexScans = 999 }, true, "beside 999 by index"},
		{"small", func(r *tableRow) { r.Bytes = minTableBytes - 1 }, false, ""},
		{"few rows", func(r *tableRow) { r.Rows = minTableRows - 1 }, false, ""},
		{"a foreign key", func(r *tableRow) { r.SeqScans, r.SeqRows, r.ForeignKeys = 0, 0, []string{"a, b"} }, true, "foreign key (a, b)"},
		{"a foreign key of a small table", func(r *tableRow) { r.Bytes, r.ForeignKeys = 8192, []string{"a"} }, false, ""},
	} {
		r := big
		tc.edit(&r)
		m, ok := r.judge(stats)
		if ok != tc.wanted || !strings.Contains(m.Reason, tc.reason) {
			t.Errorf("%s: %t (%s), want %t with %q", tc.name, ok, m.Reason, tc.wanted, tc.reason)
		}
		if ok && (!strings.Contains(m.Reason, "2 standbys") || m.StatsAge != time.Hour) {
			t.Errorf("%s: %q keeps to itself that the standbys' counters are missing", tc.name, m.Reason)
		}
	}
	written := big
	written.Writes = 50_000
	a, _ := big.judge(stats)
	b, _ := written.judge(stats)
	if a.Score <= b.Score {
		t.Errorf("a table that is written a lot scores %g, as high as one that is not, %g", b.Score, a.Score)
	}
}

func TestDuplicates(t *testing.T) {
	base := indexShape{Schema: "s", Table: "t", Method: "btree", Valid: true, Immediate: true}
	shape := func(id int64, name string, keys ...string) indexShape {
		s := base
		s.ID, s.Index, s.Keys = id, name, keys
		for range keys {
			s.Classes, s.Collations, s.Options = append(s.Classes, "1"), append(s.Collations, "0"), append(s.Options, "0")
		}
		return s
	}
	for _, tc := range []struct {
		name string
		edit func(a, b *indexShape) // a on (x), b on (x, y); or as changed
		want string                 // index>covered by
	}{
		{"prefix", func(_, _ *indexShape) {}, "a>b"},
		{"equal, the older stays", func(a, b *indexShape) { *b = shape(2, "b", "x") }, "b>a"},
		{"equal, the more used stays", func(a, b *indexShape) { *b = shape(2, "b", "x"); b.Scans = 7 }, "a>b"},
		{"equal, the constraint's stays", func(a, b *indexShape) { *b = shape(2, "b", "x"); b.Needed = true; a.Scans = 7 }, "a>b"},
		{"equal, the unique one stays", func(a, b *indexShape) { *b = shape(2, "b", "x"); b.Unique = true; a.Scans = 7 }, "a>b"},
		{"equal, both needed", func(a, b *indexShape) { *b = shape(2, "b", "x"); a.Needed, b.Needed = true, true }, ""},
		{"equal and unique, NULLs differ", func(a, b *indexShape) {
			*b = shape(2, "b", "x")
			a.Unique, b.Unique, b.NullsEqual = true, true, true
		}, ""},
		{"equal and unique", func(a, b *indexShape) { *b = shape(2, "b", "x"); a.Unique, b.Unique = true, true }, "b>a"},
		{"equal and unique, one deferrable", func(a, b *indexShape) {
			*b = shape(2, "b", "x")
			a.Unique, b.Unique, b.Immediate, b.Scans = true, true, false, 7
		}, "b>a"},
		{"unique prefix", func(a, _ *indexShape) { a.Unique = true }, ""},
		{"needed prefix", func(a, _ *indexShape) { a.Needed = true }, ""},
		{"prefix of an invalid one", func(_, b *indexShape) { b.Valid = false }, ""},
		{"second column", func(a, _ *indexShape) { a.Keys = []string{"y"} }, ""},
		{"other table", func(_, b *indexShape) { b.Table = "u" }, ""},
		{"same table of another schema", func(_, b *indexShape) { b.Schema = "v" }, ""},
		{"other operator class", func(_, b *indexShape) { b.Classes = []string{"2", "1"} }, ""},
		{"other collation", func(_, b *indexShape) { b.Collations = []string{"100", "0"} }, ""},
		{"descending", func(_, b *indexShape) { b.Options = []string{"3", "0"} }, ""},
		{"partial", func(_, b *indexShape) { b.Predicate = "(x > 0)" }, ""},
		{"both partial", func(a, b *indexShape) { a.Predicate, b.Predicate = "(x > 0)", "(x > 0)" }, "a>b"},
		{"prefix, not of a btree", func(a, b *indexShape) { a.Method, b.Method = "gist", "gist" }, ""},
		{"equal, not of a btree", func(a, b *indexShape) { *b = shape(2, "b", "x"); a.Method, b.Method = "gin", "gin" }, "b>a"},
		{"other method", func(a, b *indexShape) { *b = shape(2, "b", "x"); b.Method = "hash" }, ""},
		{"includes what the other lacks", func(a, _ *indexShape) { a.Included = []string{"z"} }, ""},
		{"includes what the other has as a key", func(a, _ *indexShape) { a.Included = []string{"y"} }, "a>b"},
		{"includes what the other includes", func(a, b *indexShape) { a.Included, b.Included = []string{"z"}, []string{"z", "w"} }, "a>b"},
	} {
		a, b := shape(1, "a", "x"), shape(2, "b", "x", "y")
		tc.edit(&a, &b)
		for _, shapes := range [][]indexShape{{a, b}, {b, a}} {
			var got []string
			for _, d := range duplicates(shapes) {
				got = append(got, d.Index+">"+d.CoveredBy)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
			}
		}
	}
}

func TestBloatJudgement(t *testing.T) {
	// 24 bytes of header and 16 of data and 4 of pointer: 185 rows on a page.
	r := bloatRow{BlockSize: 8192, FillFactor: 100, Columns: 2, Width: 12, Rows: 185 * 1000}
	if got := r.expected(); got != 1000*8192 {
		t.Errorf("%d bytes expected, want 1,000 pages", got)
	}
	r.FillFactor = 50
	if got := r.expected(); got < 1990*8192 || got > 2025*8192 {
		t.Errorf("half filled: %d bytes expected, want about 2,000 pages", got)
	}
	r.FillFactor = 100
	for _, tc := range []struct {
		name  string
		bytes int64
		bloat bool
	}{{"as expected", 1000 * 8192, false}, {"smaller", 500 * 8192, false}, {"a tenth more", 1100 * 8192, false}, {"twice", 2000 * 8192, true}} {
		r.Bytes = tc.bytes
		b, ok := r.judge()
		if ok != tc.bloat || ok && (b.Share != 0.5 || b.Bloat != 1000*8192) {
			t.Errorf("%s: %t, %+v", tc.name, ok, b)
		}
	}
	small := bloatRow{BlockSize: 8192, FillFactor: 100, Columns: 2, Width: 12, Rows: 185, Bytes: 100 * 8192}
	if _, ok := small.judge(); ok {
		t.Error("a small table is reported")
	}
}

func TestWraparoundJudgement(t *testing.T) {
	l := WraparoundLimits{FreezeMaxAge: 200e6, MultixactFreezeMaxAge: 400e6, FailsafeAge: 1600e6, MultixactFailsafeAge: 1600e6}
	for _, tc := range []struct {
		xid, multi int64
		want       WraparoundLevel
		reason     string
	}{
		{0, 0, WraparoundFine, "xid age 0 of 200000000"},
		{200e6, 400e6, WraparoundFine, ""},
		{200e6 + 1, 0, WraparoundForced, "autovacuum_freeze_max_age"},
		{0, 400e6 + 1, WraparoundForced, "autovacuum_multixact_freeze_max_age"},
		{1600e6 + 1, 0, WraparoundFailsafe, "vacuum_failsafe_age"},
		{0, 1600e6 + 1, WraparoundFailsafe, "vacuum_multixact_failsafe_age"},
		{wrapAfter - warnBefore, 0, WraparoundFailsafe, ""},
		{wrapAfter - warnBefore + 1, 0, WraparoundEmergency, "36999999 more transactions"},
		{wrapAfter - stopBefore + 5, 0, WraparoundEmergency, "0 more transactions"},
	} {
		a := l.judge(ageRow{Name: "d", XIDAge: tc.xid, MultixactAge: tc.multi})
		if a.Level != tc.want || !strings.Contains(a.Reason, tc.reason) {
			t.Errorf("%d, %d: %s (%s), want %s with %q", tc.xid, tc.multi, a.Level, a.Reason, tc.want, tc.reason)
		}
	}
}

// The columns differ by the extension's version.
func TestStatementsSQLByVersion(t *testing.T) {
	for version, tc := range map[string]struct{ columns, want string }{
		"1.9 (14)":  {"blk_read_time", "(0 + s.blk_read_time + s.blk_write_time)"},
		"1.10 (15)": {"blk_read_time temp_blk_read_time", "(0 + s.blk_read_time + s.blk_write_time + s.temp_blk_read_time + s.temp_blk_write_time)"},
		"1.11 (17)": {"shared_blk_read_time local_blk_read_time temp_blk_read_time", "(0 + s.shared_blk_read_time + s.shared_blk_write_time + s.local_blk_read_time + s.local_blk_write_time + s.temp_blk_read_time + s.temp_blk_write_time)"},
	} {
		if sql := statementsSQL("public", strings.Fields(tc.columns), TopByIO); !strings.Contains(sql, tc.want) {
			t.Errorf("%s: no %q in\n%s", version, tc.want, sql)
		}
	}
}
