package pg

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseLSN(t *testing.T) {
	good := map[string]LSN{
		"0/0": 0, "0/3000028": 0x3000028, "16/B374D848": 0x16_B374D848, "ffffffff/FFFFFFFF": math.MaxUint64,
		"00000001/00000000": 1 << 32, "0/000000a": 10,
	}
	for s, want := range good {
		if got, err := ParseLSN(s); err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", s, got, err, want)
		}
		if got, err := ParseLSN(want.String()); err != nil || got != want {
			t.Errorf("%q came back as %v, %v", want.String(), got, err)
		}
	}
	if got := LSN(0).String(); got != "0/0" {
		t.Errorf("LSN 0 prints %q", got)
	}
	for _, s := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "g/0", "0/+1", "-1/0", "0/0x1", "0/1_0", " 0/0", "0/0 ",
		"000000001/0", "0/000000001", "0/٣",
	} {
		if got, err := ParseLSN(s); err == nil {
			t.Errorf("ParseLSN(%q) = %v, want an error", s, got)
		}
	}
}

func TestJSONForms(t *testing.T) {
	type doc struct {
		LSN      LSN       `json:"lsn"`
		None     LSN       `json:"none,omitempty"`
		Timeline Timeline  `json:"timeline"`
		System   SystemID  `json:"system"`
		Time     Timestamp `json:"time"`
	}
	in := doc{LSN: 0x16_B374D848, Timeline: 10, System: math.MaxUint64, Time: TimestampOf(time.Date(2026, 11, 22, 21, 0, 46, 610469999, time.UTC))}
	const want = `{"lsn":"16/B374D848","timeline":10,"system":"18446744073709551615","time":"2026-11-22T21:00:46.610469Z"}`
	b, err := json.Marshal(in)
	if err != nil || string(b) != want {
		t.Fatalf("got %s, %v; want %s", b, err, want)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("read back %+v, %v; want %+v", out, err, in)
	}
	for _, bad := range []string{`{"lsn":"3000028"}`, `{"lsn":1}`, `{"system":1}`, `{"system":"-1"}`, `{"time":"2026-11-22"}`, `{"time":"us:x"}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestTimeline_Names(t *testing.T) {
	if got := Timeline(0x1A2B).Hex(); got != "00001A2B" {
		t.Errorf("Hex = %s", got)
	}
	if got := Timeline(10).HistoryName(); got != "0000000A.history" {
		t.Errorf("HistoryName = %s", got)
	}
	if got := Timeline(10).String(); got != "10" {
		t.Errorf("String = %s", got)
	}
}

func TestVersion(t *testing.T) {
	v := Version(150018)
	if v.Major() != 15 || v.Minor() != 18 || v.String() != "15.18" {
		t.Errorf("%d: major %d, minor %d, %s", v, v.Major(), v.Minor(), v)
	}
	for major := 9; major < 25; major++ {
		err := CheckMajor(major)
		var unsupported *UnsupportedVersionError
		switch want := major >= 15 && major <= 18; {
		case want != (err == nil), want != SupportedMajor(major):
			t.Errorf("CheckMajor(%d) = %v", major, err)
		case err != nil && (!errors.As(err, &unsupported) || unsupported.Major != major):
			t.Errorf("CheckMajor(%d) = %#v, want an UnsupportedVersionError", major, err)
		case major > 18 && !strings.Contains(err.Error(), "newer"), major < 15 && !strings.Contains(err.Error(), "old"):
			t.Errorf("CheckMajor(%d) does not say why: %v", major, err)
		}
	}
}

func TestSegmentSize(t *testing.T) {
	for s := uint64(0); s < 1<<32; s = s*2 + 1 {
		for _, v := range []uint64{s, s + 1, s + 2} {
			size := SegmentSize(v)
			want := v >= 1<<20 && v <= 1<<30 && v&(v-1) == 0
			if uint64(size) != v {
				continue
			}
			if got := size.Valid(); got != want || (size.Validate() == nil) != want {
				t.Errorf("size %d: valid %v, want %v", v, got, want)
			}
		}
	}
	if err := SegmentSize(3 << 20).Validate(); !errors.Is(err, ErrSegmentSize) {
		t.Errorf("3 MiB: %v", err)
	}
}

func TestSegment_NamesAndPositions(t *testing.T) {
	tests := []struct {
		lsn  LSN
		tli  Timeline
		size SegmentSize
		name string
	}{
		{0x1000000, 1, 16 << 20, "000000010000000000000001"},
		{0x1_FF000028, 1, 16 << 20, "0000000100000001000000FF"},
		{0x2_00000000, 0xAB, 16 << 20, "000000AB0000000200000000"},
		{0x0_000FFFFF, 1, 1 << 20, "000000010000000000000000"},
		{0x7_FFFFFFFF, 1, 1 << 20, "000000010000000700000FFF"},
		{0x7_FFFFFFFF, 1, 1 << 30, "000000010000000700000003"},
		{math.MaxUint64, 0xFFFFFFFF, 64 << 20, "FFFFFFFFFFFFFFFF0000003F"},
	}
	for _, test := range tests {
		seg := SegmentOf(test.tli, test.lsn, test.size)
		if got := seg.Name(test.size); got != test.name {
			t.Errorf("segment of %s: %s, want %s", test.lsn, got, test.name)
		}
		back, err := ParseSegment(test.name, test.size)
		if err != nil || back != seg {
			t.Errorf("ParseSegment(%s) = %+v, %v; want %+v", test.name, back, err, seg)
		}
		if seg.Start(test.size) > test.lsn || test.lsn-seg.Start(test.size) >= LSN(test.size) {
			t.Errorf("%s does not hold %s", test.name, test.lsn)
		}
		if got := seg.Start(test.size) + LSN(test.size.Offset(test.lsn)); got != test.lsn {
			t.Errorf("start and offset of %s give %s", test.lsn, got)
		}
		if seg.End(test.size) != seg.Next().Start(test.size) || seg.Next().Timeline != seg.Timeline {
			t.Errorf("%s: end %s, next starts at %s", test.name, seg.End(test.size), seg.Next().Start(test.size))
		}
	}
}

func TestParseSegment_Refuses(t *testing.T) {
	for _, name := range []string{
		"000000010000000000000100", // only 256 to a file of 4 GiB
		"000000010000000000000001.partial", "00000001.history", "000000010000000000000001.00000028.backup",
		"00000001000000000000000g", "00000000000000000000000F", "00000001000000000000000", "0000000100000000000000010",
	} {
		if seg, err := ParseSegment(name, DefaultSegmentSize); err == nil {
			t.Errorf("ParseSegment(%q) = %+v, want an error", name, seg)
		}
	}
	if _, err := ParseSegment("000000010000000000000001", 0); !errors.Is(err, ErrSegmentSize) {
		t.Errorf("size 0: %v", err)
	}
	if _, err := ParseSegment("000000010000000000000100", 1<<20); err != nil {
		t.Errorf("100 is right for 1 MiB: %v", err)
	}
}

func TestParseWALFileName(t *testing.T) {
	const size = DefaultSegmentSize
	tests := []struct {
		name string
		kind WALFileKind
		seg  Segment
		off  uint32
	}{
		{"0000000A000000010000000F", WALSegment, Segment{10, 256 + 15}, 0},
		{"0000000A000000010000000F.partial", WALPartial, Segment{10, 256 + 15}, 0},
		{"0000000A000000010000000F.00ABCDEF.backup", WALBackupHistory, Segment{10, 256 + 15}, 0xABCDEF},
		{"0000000A.history", WALHistory, Segment{Timeline: 10}, 0},
	}
	for _, test := range tests {
		f, err := ParseWALFileName(test.name)
		if err != nil || f.Kind != test.kind || f.Timeline != 10 || f.Offset != test.off || f.Name != test.name {
			t.Errorf("%s: %+v, %v", test.name, f, err)
			continue
		}
		seg, err := f.Segment(size)
		if test.kind == WALHistory {
			if err == nil {
				t.Errorf("%s: segment %+v of a history file", test.name, seg)
			}
		} else if err != nil || seg != test.seg {
			t.Errorf("%s: segment %+v, %v; want %+v", test.name, seg, err, test.seg)
		}
	}
	for _, name := range []string{
		"", ".", "..", "x", "0000000a000000010000000F", "0000000A000000010000000f", "0000000A000000010000000F.PARTIAL",
		"0000000A000000010000000F.partial.gz", "0000000A000000010000000F.", "0000000A.history.gz", "0000000a.history",
		"00000000.history", "000000000000000100000001", "0000000A000000010000000F.backup", "0000000A000000010000000F.00abcdef.backup",
		"0000000A000000010000000F.00000028.backup.partial", "0000000A000000010000000F.0000028.backup", "0000000A000000010000000F.000000280.backup",
		"0000000A000000010000000F/../../etc/passwd", "../0000000A000000010000000F", "/0000000A000000010000000F",
		"0000000A000000010000000F\x00", "0000000A000000010000000F\n", "+000000A000000010000000F", "0000000A/history", "0000000A\\history",
		"archive_status", "xlogtemp.123", "RECOVERYXLOG", "00000001000000000000000", "0000000", "0000000A",
	} {
		if f, err := ParseWALFileName(name); err == nil {
			t.Errorf("ParseWALFileName(%q) = %+v, want an error", name, f)
		}
	}
}

func TestTimestamp_Converts(t *testing.T) {
	tests := []struct {
		t    time.Time
		ts   Timestamp
		text string
	}{
		{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), 0, "2000-01-01T00:00:00.000000Z"},
		{time.Date(2000, 1, 1, 1, 0, 0, 1999, time.FixedZone("", 3600)), 1, "2000-01-01T00:00:00.000001Z"},
		{time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC), -1, "1999-12-31T23:59:59.999999Z"},
		{time.Date(2026, 11, 22, 21, 0, 46, 610469000, time.UTC), 848696446610469, "2026-11-22T21:00:46.610469Z"},
		{time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC), 252455615999999999, "9999-12-31T23:59:59.999999Z"},
	}
	for _, test := range tests {
		if got := TimestampOf(test.t); got != test.ts {
			t.Errorf("TimestampOf(%s) = %d, want %d", test.t, got, test.ts)
		}
		if got := test.ts.Time(); !got.Equal(test.t.Truncate(time.Microsecond)) {
			t.Errorf("%d: %s, want %s", test.ts, got, test.t)
		}
		if got := test.ts.String(); got != test.text {
			t.Errorf("%d: %s, want %s", test.ts, got, test.text)
		}
	}
	for _, ts := range []Timestamp{0, -1, 1, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, math.MinInt64 + 1, 252455616000000000, -63082281600000001} {
		b, err := json.Marshal(ts)
		if err != nil {
			t.Errorf("%d: %v", int64(ts), err)
		}
		var back Timestamp
		if err := json.Unmarshal(b, &back); err != nil || back != ts {
			t.Errorf("%d: JSON %s came back as %d, %v", int64(ts), b, int64(back), err)
		}
	}
	if got := TimestampOf(time.Unix(1<<60, 0)); got != TimestampInfinity {
		t.Errorf("far future: %d", got)
	}
	if got := TimestampOf(time.Unix(-(1 << 60), 0)); got != TimestampNegInfinity {
		t.Errorf("far past: %d", got)
	}
}

func TestFormatRecoveryTime(t *testing.T) {
	in := time.Date(2026, 11, 22, 23, 0, 46, 610469999, time.FixedZone("CET", 2*3600))
	if got, want := FormatRecoveryTime(in), "2026-11-22 21:00:46.610469+00"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := FormatRecoveryTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), "2026-01-02 03:04:05.000000+00"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The server itself says which forms it takes, and what time it understood.
func TestServerUnderstandsOurForms(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major)
		c.start()
		when := time.Date(2026, 11, 22, 21, 0, 46, 610469000, time.UTC)
		// As the postmaster reads it: a session would know the abbreviation Z, it does not.
		c.run("postgres", "-D", c.data, "-C", "recovery_target_time", "-c", "recovery_target_time="+FormatRecoveryTime(when))
		const z = "recovery_target_time=2026-11-22T21:00:46.610469Z"
		if _, err := c.try("postgres", "-D", c.data, "-C", "recovery_target_time", "-c", z); err == nil {
			t.Error("the server accepts a Z in recovery_target_time: the reason for FormatRecoveryTime is gone")
		}
		micros := c.sql("select (extract(epoch from timestamptz '" + FormatRecoveryTime(when) + "') * 1000000)::bigint - 946684800000000")
		if want := TimestampOf(when); micros != strconv.FormatInt(int64(want), 10) {
			t.Errorf("the server reads %s microseconds, want %d", micros, int64(want))
		}
		for _, lsn := range []LSN{0x3000028, 0x16_B374D848} {
			if got := c.sql("select '" + lsn.String() + "'::pg_lsn"); got != lsn.String() {
				t.Errorf("server prints %s for %s", got, lsn)
			}
			if got, want := c.sql("select pg_walfile_name('"+lsn.String()+"')"), SegmentOf(1, lsn, DefaultSegmentSize).Name(DefaultSegmentSize); got != want {
				t.Errorf("server's file name of %s is %s, ours %s", lsn, got, want)
			}
		}
		if got := c.sql("show server_version_num"); Version(mustInt(t, got)).Major() != major {
			t.Errorf("server_version_num %s", got)
		}
	})
}

func mustInt(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
