package walrecord

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/pg"
)

var update = flag.Bool("update", false, "write testdata anew from the installed servers")

// The first pages of segments that real servers wrote, which need no server to be
// read. With -update the test writes them, and what was found in them.
func TestScanFacts_OfRecordedSegments(t *testing.T) {
	if *update {
		eachMajor(t, recordSegment)
	}
	for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
		t.Run(fmt.Sprintf("PostgreSQL%d", major), func(t *testing.T) {
			name := fmt.Sprintf("testdata/pg%d", major)
			seg, err := os.ReadFile(name + ".wal")
			if errors.Is(err, os.ErrNotExist) {
				t.Skipf("no WAL of PostgreSQL %d was recorded", major)
			}
			if err != nil {
				t.Fatal(err)
			}
			f, err := ScanFacts(t.Context(), bytes.NewReader(seg), int64(len(seg)))
			if err != nil || f.Major() != major {
				t.Fatalf("%+v, %v", f, err)
			}
			got, err := json.MarshalIndent(f, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name+".json", got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".json")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
			}
		})
	}
}

// recordSegment writes a segment with something of most kinds, and keeps it up to its
// switch.
func recordSegment(t *testing.T, major int) {
	c := newCluster(t, major, "--wal-segsize=1")
	c.start("wal_level=logical", "max_prepared_transactions=5", "full_page_writes=off", "wal_keep_size=1GB")
	c.sql("create table t(i int)")
	c.sql("select pg_switch_wal()")
	c.script("insert into t values (1); begin; insert into t values (2); rollback;" +
		"begin; insert into t values (3); savepoint s; insert into t values (4); prepare transaction 'p'; commit prepared 'p';" +
		"select pg_logical_emit_message(false, 'x', repeat('x', 10000));" +
		"select pg_create_restore_point('recorded'); checkpoint; insert into t values (5); select pg_switch_wal();")
	c.stop(syscall.SIGINT)
	w := &wholeCluster{cluster: c, major: major, segSize: pg.MinSegmentSize}
	for _, s := range w.segments(1) {
		f := w.scan(t, s)
		if f == nil || len(f.RestorePoints) == 0 {
			continue
		}
		seg, err := os.ReadFile(filepath.Join(c.data, "pg_wal", s.Name(w.segSize)))
		if err != nil {
			t.Fatal(err)
		}
		end := w.segSize.Offset(f.SwitchLSN) + recordHeader
		if err := os.WriteFile(fmt.Sprintf("testdata/pg%d.wal", major), seg[:end], 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no segment has the restore point")
}

func TestScanFacts_RefusesWhatIsNoSegment(t *testing.T) {
	b, _ := twoSegments(t)
	le := binary.LittleEndian
	for name, damage := range map[string]func(p []byte) []byte{
		"empty":            func(p []byte) []byte { return nil },
		"short":            func(p []byte) []byte { return p[:39] },
		"magic":            func(p []byte) []byte { p[0]++; return p },
		"zeroes":           func(p []byte) []byte { clear(p); return p },
		"PostgreSQL 14":    func(p []byte) []byte { le.PutUint16(p, 0xD10D); return p },
		"flags":            func(p []byte) []byte { p[2] |= 0x80; return p },
		"no long header":   func(p []byte) []byte { p[2] = 0; return p },
		"segment size":     func(p []byte) []byte { le.PutUint32(p[32:], 3<<20); return p },
		"segment size 0":   func(p []byte) []byte { le.PutUint32(p[32:], 0); return p },
		"address":          func(p []byte) []byte { le.PutUint64(p[8:], uint64(3*mib)+PageSize); return p },
		"block size":       func(p []byte) []byte { le.PutUint32(p[36:], 16384); return p },
		"longer than that": func(p []byte) []byte { return append(p, 0) },
		"a text file":      func(p []byte) []byte { return bytes.Repeat([]byte("1\t0/3000098\tno recovery target\n"), 10) },
	} {
		p := damage(bytes.Clone(b.segments[3]))
		if f, err := ScanFacts(t.Context(), bytes.NewReader(p), int64(len(p))); !errors.Is(err, ErrNotSegment) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

// A partial segment gives the facts of what is there.
func TestScanFacts_OfShortFile(t *testing.T) {
	b, starts := twoSegments(t)
	seg := b.segments[3]
	for size := 40; size < len(seg); size += 7919 {
		f, err := ScanFacts(t.Context(), bytes.NewReader(seg[:size]), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for i := range starts {
			end := b.at
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			if end <= 3*mib+pg.LSN(size) {
				want++
			}
		}
		// The last record may be there in full although the next one's start is not.
		if got := int(f.Records); got != want && got != want+1 {
			t.Fatalf("%d bytes: %d records, want %d", size, got, want)
		}
		if f.Stop == nil || f.Complete() || f.Tail != nil || f.Stop.LSN > 3*mib+pg.LSN(size)+PageSize {
			t.Fatalf("%d bytes: stop %v, tail %v", size, f.Stop, f.Tail)
		}
	}
	// What lies behind a switch is void, and need not be there.
	b.record(RmgrXLOG, xlogSwitch, 0, nil)
	seg = b.segments[4][:b.at%mib]
	if f, err := ScanFacts(t.Context(), bytes.NewReader(seg), int64(len(seg))); err != nil || !f.Complete() || f.SwitchLSN != b.prev || f.LastRecordEnd != 5*mib {
		t.Errorf("cut behind the switch: %+v, %v", f, err)
	}
	if f := b.facts(t, 3); !f.Complete() {
		t.Errorf("the whole segment stops: %v", f.Stop)
	}
}

func TestFacts_ListsAreCut(t *testing.T) {
	for _, n := range []int{MaxListed, MaxListed + 1} {
		b := newBuilder(pg.MinSegmentSize, 3*mib)
		for i := range n {
			b.record(RmgrXLOG, xlogRestorePoint, 0, body(nil, nil, restorePointMain(1, fmt.Sprint("point ", i))))
		}
		f := b.facts(t, 3)
		if len(f.RestorePoints) != MaxListed || f.Cut != (n > MaxListed) || f.Records != uint64(n) {
			t.Errorf("%d restore points: %d listed, cut %v", n, len(f.RestorePoints), f.Cut)
		}
	}
}

// A record that has the kind but not the length of one that carries a fact.
func TestFacts_SayWhenARecordIsNotUnderstood(t *testing.T) {
	for name, rec := range map[string]struct {
		rmgr Rmgr
		info uint8
		main []byte
	}{
		"commit":            {RmgrXact, xactCommit, make([]byte, 7)},
		"checkpoint":        {RmgrXLOG, xlogCheckpointOnline, make([]byte, 71)},
		"restore point":     {RmgrXLOG, xlogRestorePoint, make([]byte, 8)},
		"backup end":        {RmgrXLOG, xlogBackupEnd, make([]byte, 7)},
		"parameters":        {RmgrXLOG, xlogParameterChange, make([]byte, 25)},
		"end of recovery":   {RmgrXLOG, xlogEndOfRecovery, make([]byte, 15)},
		"tablespace":        {RmgrTablespace, tablespaceCreate, []byte{1, 2, 3, 4, 'x'}},
		"endless path":      {RmgrTablespace, tablespaceCreate, bytes.Repeat([]byte{'x'}, 2000)},
		"tablespace, empty": {RmgrTablespace, tablespaceCreate, nil},
	} {
		b := newBuilder(pg.MinSegmentSize, 3*mib)
		lsn := b.record(rec.rmgr, rec.info, 0, body(nil, nil, rec.main))
		b.record(RmgrXact, xactCommit, 7, body(nil, nil, commitMain(1)))
		if f := b.facts(t, 3); !f.Cut || f.Records != 2 || f.Commits != 1 {
			t.Errorf("%s: cut %v, %d records, %d commits", name, f.Cut, f.Records, f.Commits)
		}
		r, err := b.reader(t, lsn).Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := Decode(&r); err == nil || describe(&ev) != "" || !strings.Contains(err.Error(), lsn.String()) {
			t.Errorf("%s: %q, %v", name, describe(&ev), err)
		}
	}
}

// Names that are not UTF-8 come back byte for byte.
func TestFacts_KeepNamesOfOtherEncodings(t *testing.T) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	const name, path = "\xfcber", "/srv/\xe4/\"x\""
	b.record(RmgrXLOG, xlogRestorePoint, 0, body(nil, nil, restorePointMain(1, name)))
	b.record(RmgrXLOG, xlogRestorePoint, 0, body(nil, nil, restorePointMain(1, strings.Repeat("x", 64)))) // no NUL
	b.record(RmgrTablespace, tablespaceCreate, 0, body(nil, nil, append([]byte{1, 0, 0, 0}, path+"\x00"...)))
	f := b.facts(t, 3)
	if got := f.RestorePoints[0]; string(got.NameRaw) != name || got.Name != "\uFFFDber" {
		t.Errorf("name %q, raw %q", got.Name, got.NameRaw)
	}
	if got := f.RestorePoints[1]; got.NameRaw != nil || len(got.Name) != 64 {
		t.Errorf("name %q, raw %q", got.Name, got.NameRaw)
	}
	if got := f.Tablespaces[0]; string(got.PathRaw) != path || got.OID != 1 {
		t.Errorf("path %q, raw %q", got.Path, got.PathRaw)
	}
}

// Times that no calendar has must not spoil the document.
func TestFacts_OfAbsurdTimes(t *testing.T) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	times := []pg.Timestamp{5, pg.TimestampInfinity - 1, pg.TimestampNegInfinity, pg.TimestampInfinity, -5}
	for i, ts := range times {
		b.record(RmgrXact, xactCommit, uint32(i), body(nil, nil, commitMain(ts)))
	}
	checkpoint := make([]byte, 88)
	binary.LittleEndian.PutUint64(checkpoint[64:], 1<<63)
	b.record(RmgrXLOG, xlogCheckpointOnline, 0, body(nil, nil, checkpoint))
	f := b.facts(t, 3)
	if f.First.Time != 5 || f.Last.Time != -5 || f.Earliest.Time != pg.TimestampNegInfinity || f.Latest.Time != pg.TimestampInfinity {
		t.Errorf("first %s, last %s, earliest %s, latest %s", f.First.Time, f.Last.Time, f.Earliest.Time, f.Latest.Time)
	}
	if len(f.Checkpoints) != 1 {
		t.Errorf("%d checkpoints", len(f.Checkpoints))
	}
}

// What stands before the xid of a prepared transaction, in every combination, in both
// layouts of dropped statistics.
func TestDecode_PreparedTransactions(t *testing.T) {
	for magic, major := range map[uint16]int{0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18} {
		for mask := range 16 {
			n := func(bit, count int) int {
				if mask&bit != 0 {
					return count
				}
				return 0
			}
			b := newBuilder(pg.MinSegmentSize, 3*mib)
			b.magic = magic
			main := xactMain(4711, 99, n(1, 3), n(2, 2), n(4, 5), n(8, 7), major)
			for i, info := range []uint8{xactCommitPrepared, xactAbortPrepared} {
				lsn := b.record(RmgrXact, info|xactHasInfo, 3, body(nil, nil, main))
				rec, err := b.reader(t, lsn).Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				ev, err := Decode(&rec)
				if want := (Transaction{Time: 4711, LSN: lsn, XID: 99, Abort: i == 1}); err != nil || *ev.Transaction != want {
					t.Errorf("PostgreSQL %d, lists %b: %+v, %v; want %+v", major, mask, *ev.Transaction, err, want)
				}
				// Cut anywhere it never gives another xid.
				for cut := range main {
					part := rec
					part.Main = main[:cut]
					ev, err := Decode(&part)
					if cut < 8 != (err != nil) || err == nil && (!ev.Transaction.XIDUnknown || ev.Transaction.XID != 0) {
						t.Fatalf("cut at %d of %d: %+v, %v", cut, len(main), ev.Transaction, err)
					}
				}
			}
		}
	}
}

func TestFacts_JSONNames(t *testing.T) {
	b := newBuilder(pg.MinSegmentSize, 3*mib)
	b.record(RmgrXact, xactAbort, 7, body(nil, nil, commitMain(pg.Timestamp(848696446610469))))
	b.record(RmgrXLOG, xlogSwitch, 0, nil)
	got, err := json.Marshal(b.facts(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	const tx = `{"time":"2026-11-22T21:00:46.610469Z","lsn":"0/300028","xid":7,"abort":true}`
	const want = `{"systemId":"7000000000000000042","timeline":1,"segmentSize":1048576,"pageMagic":53520,"startLsn":"0/300000",` +
		`"records":2,"firstRecordLsn":"0/300028","lastRecordLsn":"0/300050","lastRecordEnd":"0/400000","switchLsn":"0/300050",` +
		`"aborts":1,"first":` + tx + `,"last":` + tx + `,"earliest":` + tx + `,"latest":` + tx + `}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
