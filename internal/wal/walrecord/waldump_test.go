package walrecord

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pg"
)

// dumped is a line of pg_waldump, with the facts in its description.
type dumped struct {
	rmgr     string
	total    uint32
	xid      uint32
	lsn      pg.LSN
	prev     pg.LSN
	identify string // COMMIT, RESTORE_POINT, ...
	desc     string // the rest
}

// parseDumpLine reads a line such as
//
//	rmgr: Heap        len (rec/tot):     54/    54, tx:        740, lsn: 0/01523E58, prev 0/01523E20, desc: INSERT off 1
func parseDumpLine(t testing.TB, line string) dumped {
	var parts [6]string
	rest := strings.TrimPrefix(line, "rmgr: ")
	for i, sep := range []string{" len (rec/tot):", "/", ", tx:", ", lsn: ", ", prev ", ", desc: "} {
		var ok bool
		if parts[i], rest, ok = strings.Cut(rest, sep); !ok {
			t.Fatalf("cannot read pg_waldump's line %q", line)
		}
	}
	total, err1 := strconv.ParseUint(strings.TrimSpace(parts[2]), 10, 32)
	xid, err2 := strconv.ParseUint(strings.TrimSpace(parts[3]), 10, 32)
	lsn, err3 := pg.ParseLSN(parts[4])
	prev, err4 := pg.ParseLSN(parts[5])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatalf("cannot read pg_waldump's line %q: %v", line, err)
	}
	d := dumped{rmgr: strings.TrimSpace(parts[0]), total: uint32(total), xid: uint32(xid), lsn: lsn, prev: prev}
	d.identify, d.desc, _ = strings.Cut(rest, " ")
	return d
}

// waldump is what pg_waldump prints of a timeline from start on, and where it ended.
func (w *wholeCluster) waldump(tli pg.Timeline, start pg.LSN) (records []dumped, end pg.LSN) {
	w.t.Helper()
	cmd := exec.Command(filepath.Join(w.bin, "pg_waldump"), "-p", filepath.Join(w.data, "pg_wal"), "-t", tli.String(), "-s", start.String())
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewReaderSize(out, 64<<10)
	for whole := true; ; {
		line, rest, err := lines.ReadLine() // a message's line may be longer than the buffer: its beginning will do
		if err == io.EOF {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if whole && bytes.HasPrefix(line, []byte("rmgr: ")) {
			records = append(records, parseDumpLine(w.t, string(line)))
		}
		whole = !rest
	}
	_ = cmd.Wait() // it fails at the end of WAL, and says where
	m := regexp.MustCompile(`(?:at|LSN) ([0-9A-F]+/[0-9A-F]+)(?::|,)`).FindAllStringSubmatch(complaint.String(), -1)
	if m == nil {
		w.t.Fatalf("pg_waldump does not say where WAL ends: %s", complaint.String())
	}
	if end, err = pg.ParseLSN(m[len(m)-1][1]); err != nil {
		w.t.Fatal(err)
	}
	return records, end
}

// open gives the segments of one timeline in pg_wal.
func (w *wholeCluster) open(tli pg.Timeline) OpenFunc {
	return func(_ context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
		f, err := os.Open(filepath.Join(w.data, "pg_wal", pg.Segment{Timeline: tli, Number: n}.Name(w.segSize)))
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNoSegment
		}
		return tli, f, err
	}
}

func (w *wholeCluster) segments(tli pg.Timeline) []pg.Segment {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.data, "pg_wal"))
	if err != nil {
		w.t.Fatal(err)
	}
	var list []pg.Segment
	for _, e := range entries {
		if s, err := pg.ParseSegment(e.Name(), w.segSize); err == nil && s.Timeline == tli {
			list = append(list, s)
		}
	}
	return list
}

// The required proof: every record of every kind of WAL, as the server's own tool
// reads it.
func TestReader_AgreesWithPgWaldump(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		for _, segMiB := range []int{1, 16, 64} {
			t.Run(fmt.Sprintf("%dMB", segMiB), func(t *testing.T) {
				if testing.Short() && segMiB > 1 {
					t.Skip("short: WAL in segments of 1 MB is compared, of other sizes not")
				}
				w := writeWAL(t, major, segMiB)
				kinds, ends := w.compareTimeline(t, 1)
				requireKinds(t, kinds)
				if aimed := crossings[w.segSize]; ends < (aimed+1)/2 { // other processes may write in between
					t.Errorf("only %d of %d transaction ends cross segments", ends, aimed)
				}
				if kinds, _ := w.compareTimeline(t, 2); kinds["XLOG/END_OF_RECOVERY"] != 1 {
					t.Error("timeline 2 has no end-of-recovery record")
				}
			})
		}
	})
}

// A server that lost the rest of its last record in a crash writes over it.
func TestReader_AgreesWithPgWaldump_OnOverwrittenRecords(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		for name, lose := range map[string]int{"all that follows": 1, "only the last segment": 3} {
			t.Run(name, func(t *testing.T) {
				c := newCluster(t, major, "--wal-segsize=1")
				w := &wholeCluster{cluster: c, major: major, segSize: 1 << 20, overwritten: 1}
				c.start("wal_keep_size=1GB")
				c.sql("create table t(i int)")
				begin := c.sql("select pg_walfile_name(pg_current_wal_insert_lsn())")
				c.sql("select pg_logical_emit_message(true, 'x', repeat('x', 3200000))")
				c.stop(syscall.SIGQUIT)
				first, err := pg.ParseSegment(begin, w.segSize)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range w.segments(1) {
					if s.Number >= first.Number+uint64(lose) {
						if err := os.Remove(filepath.Join(c.data, "pg_wal", s.Name(w.segSize))); err != nil {
							t.Fatal(err)
						}
					}
				}
				c.start("wal_keep_size=1GB")
				c.sql("insert into t values (1)")
				c.stop(syscall.SIGINT)
				if kinds, _ := w.compareTimeline(t, 1); kinds["XLOG/OVERWRITE_CONTRECORD"] != 1 {
					t.Error("the server did not write over its record")
				}
			})
		}
	})
}

// compareTimeline returns how many records there are of each kind, and how many ends
// of transactions that cross segments.
func (w *wholeCluster) compareTimeline(t *testing.T, tli pg.Timeline) (kinds map[string]int, crossingEnds int) {
	t.Helper()
	segments := w.segments(tli)
	if len(segments) == 0 {
		t.Fatalf("no segments of timeline %d", tli)
	}
	// initdb writes segment 1 directly; what was switched away before is not in it.
	start := segments[0].Start(w.segSize)
	want, wantEnd := w.waldump(tli, start)
	r, err := NewReader(Options{Open: w.open(tli), SegmentSize: w.segSize, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	kinds = map[string]int{}
	var spanning, crossing int
	var events []Event
	for i, d := range want {
		rec, err := r.Next(t.Context())
		if err != nil {
			t.Fatalf("timeline %d: record %d of %d, which pg_waldump has at %s: %v", tli, i, len(want), d.lsn, err)
		}
		ev := compareRecord(t, &rec, d, w.major)
		if i+1 < len(want) {
			w.checkEnd(t, &rec, ev.Switch, want[i+1].lsn)
		}
		kinds[d.rmgr+"/"+d.identify]++
		events = append(events, ev)
		if uint64(rec.LSN)/PageSize != uint64(rec.End-1)/PageSize && !ev.Switch {
			spanning++
			if uint64(rec.LSN)/uint64(w.segSize) != uint64(rec.End-1)/uint64(w.segSize) {
				crossing++
				if ev.Transaction != nil {
					crossingEnds++
				}
			}
		}
		if t.Failed() {
			t.Fatalf("stopped at record %d of %d", i, len(want))
		}
	}
	_, err = r.Next(t.Context())
	var end *EndOfWAL
	if !errors.As(err, &end) || end.LSN != wantEnd {
		t.Errorf("end of WAL: %v; pg_waldump says %s", err, wantEnd)
	}
	t.Logf("PostgreSQL %d, %d MB segments, timeline %d: %d records of %d kinds compared with pg_waldump, "+
		"%d of them cross pages, %d segments; end at %s: %s",
		w.major, w.segSize>>20, tli, len(want), len(kinds), spanning, crossing, end.LSN, end.Reason)
	w.compareFacts(t, tli, segments, events)
	w.checkPromotion(t, tli, events)
	return kinds, crossingEnds
}

// checkPromotion: the new timeline begins where replay of the old one ended, in a
// segment that begins with pages of the old one.
func (w *wholeCluster) checkPromotion(t *testing.T, tli pg.Timeline, events []Event) {
	t.Helper()
	if tli == 1 {
		return
	}
	i := slices.IndexFunc(events, func(ev Event) bool { return ev.EndOfRecovery != nil })
	if i < 0 {
		t.Fatal("no end of recovery")
	}
	if at := events[i].LSN; at < w.promoted || at-w.promoted > longPageHeader {
		t.Errorf("end of recovery at %s, replay had ended at %s", at, w.promoted)
	}
	f := w.scan(t, pg.SegmentOf(tli, w.promoted, w.segSize))
	if f.Timeline != 1 || f.LastTimeline != tli {
		t.Errorf("segment of the switch: timelines %d to %d", f.Timeline, f.LastTimeline)
	}
}

// checkEnd: the next record begins where this one ends, or behind a page header there.
func (w *wholeCluster) checkEnd(t *testing.T, rec *Record, isSwitch bool, next pg.LSN) {
	t.Helper()
	ok := next == rec.End
	switch {
	case w.overwritten > 0 && w.segSize.Offset(next) == longPageHeader:
		ok = true
	case w.segSize.Offset(rec.End) == 0:
		ok = next == rec.End+longPageHeader
	case rec.End%PageSize == 0:
		ok = next == rec.End+shortPageHeader
	}
	if !ok || isSwitch && w.segSize.Offset(rec.End) != 0 {
		t.Fatalf("record at %s ends at %s, next is at %s", rec.LSN, rec.End, next)
	}
}

// requireKinds makes sure that the workload wrote what the comparison is for.
func requireKinds(t *testing.T, kinds map[string]int) {
	t.Helper()
	for _, k := range []string{
		"Transaction/COMMIT", "Transaction/ABORT", "Transaction/PREPARE", "Transaction/COMMIT_PREPARED", "Transaction/ABORT_PREPARED",
		"XLOG/CHECKPOINT_SHUTDOWN", "XLOG/CHECKPOINT_ONLINE", "XLOG/SWITCH", "XLOG/BACKUP_END", "XLOG/PARAMETER_CHANGE",
		"XLOG/RESTORE_POINT", "XLOG/FPI", "Tablespace/CREATE", "Tablespace/DROP", "LogicalMessage/MESSAGE",
		"Heap/INSERT", "Btree/INSERT_LEAF", "Sequence/LOG", "Database/DROP",
	} {
		if kinds[k] == 0 {
			t.Errorf("the workload wrote no %s record", k)
		}
	}
	if kinds["XLOG/END_OF_RECOVERY"] != 0 {
		t.Error("timeline 1 has an end-of-recovery record")
	}
}

var descTime = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? UTC`)

// compareRecord compares a record with a line, and its event with the description.
func compareRecord(t *testing.T, rec *Record, d dumped, major int) Event {
	t.Helper()
	if rec.LSN != d.lsn || rec.Prev != d.prev || rec.XID != d.xid || rec.Rmgr.String() != d.rmgr || rec.Length != d.total || rec.Major != major {
		t.Errorf("read %s prev %s xid %d %s length %d major %d\npg_waldump %+v", rec.LSN, rec.Prev, rec.XID, rec.Rmgr, rec.Length, rec.Major, d)
	}
	ev, err := Decode(rec)
	if err != nil {
		t.Error(err)
	}
	if got, want := describe(&ev), expected(d); got != want {
		t.Errorf("at %s: event %q\npg_waldump says %q (%s %s)", d.lsn, got, want, d.identify, d.desc)
	}
	return ev
}

func stamp(ts pg.Timestamp) string { return ts.Time().Format("2006-01-02 15:04:05.000000 UTC") }

// describe renders an event; expected renders the same from pg_waldump's words.
func describe(ev *Event) string {
	switch {
	case ev.Transaction != nil:
		tx := ev.Transaction
		return fmt.Sprintf("transaction abort=%v xid=%d at %s unknown=%v", tx.Abort, tx.XID, stamp(tx.Time), tx.XIDUnknown)
	case ev.RestorePoint != nil:
		return "restore point " + ev.RestorePoint.Name
	case ev.Checkpoint != nil:
		c := ev.Checkpoint
		prev := c.PrevTimeline
		if prev == 0 {
			prev = c.Timeline
		}
		return fmt.Sprintf("checkpoint redo %s; tli %d; prev tli %d; xid %d:%d; shutdown=%v", c.Redo, c.Timeline, prev, c.NextXID>>32, uint32(c.NextXID), c.Shutdown)
	case ev.EndOfRecovery != nil:
		return fmt.Sprintf("end of recovery tli %d; prev tli %d; time %s", ev.EndOfRecovery.Timeline, ev.EndOfRecovery.PrevTimeline, stamp(ev.EndOfRecovery.Time))
	case ev.BackupEnd != nil:
		return "backup end " + ev.BackupEnd.StartLSN.String()
	case ev.Tablespace != nil:
		return fmt.Sprintf("tablespace %d %q", ev.Tablespace.OID, ev.Tablespace.Path)
	case ev.ParameterChange != nil:
		p := ev.ParameterChange
		on := map[bool]string{true: "on", false: "off"}
		return fmt.Sprintf("max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_xacts=%d max_locks_per_xact=%d wal_level=%s wal_log_hints=%s track_commit_timestamp=%s",
			p.MaxConnections, p.MaxWorkerProcesses, p.MaxWALSenders, p.MaxPreparedXacts, p.MaxLocksPerXact, p.WALLevel, on[p.WALLogHints], on[p.TrackCommitTimestamp])
	case ev.Switch:
		return "switch"
	}
	return ""
}

var checkpointDesc = regexp.MustCompile(`^redo ([0-9A-F/]+); tli (\d+); prev tli (\d+); .*?xid (\d+):(\d+);`)

func expected(d dumped) string {
	at := func() string {
		s := descTime.FindString(d.desc)
		if ts, err := time.Parse("2006-01-02 15:04:05.999999 MST", s); err == nil {
			return ts.Format("2006-01-02 15:04:05.000000 UTC")
		}
		return "no time in " + d.desc
	}
	xid := strconv.Itoa(int(d.xid))
	if strings.HasSuffix(d.identify, "_PREPARED") {
		xid, _, _ = strings.Cut(d.desc, ":")
	}
	switch d.rmgr + "/" + d.identify {
	case "Transaction/COMMIT", "Transaction/COMMIT_PREPARED", "Transaction/ABORT", "Transaction/ABORT_PREPARED":
		return fmt.Sprintf("transaction abort=%v xid=%s at %s unknown=false", strings.HasPrefix(d.identify, "ABORT"), xid, at())
	case "XLOG/RESTORE_POINT":
		return "restore point " + d.desc
	case "XLOG/CHECKPOINT_SHUTDOWN", "XLOG/CHECKPOINT_ONLINE":
		m := checkpointDesc.FindStringSubmatch(d.desc)
		if m == nil {
			return "no checkpoint in " + d.desc
		}
		return fmt.Sprintf("checkpoint redo %s; tli %s; prev tli %s; xid %s:%s; shutdown=%v", m[1], m[2], m[3], m[4], m[5], d.identify == "CHECKPOINT_SHUTDOWN")
	case "XLOG/END_OF_RECOVERY":
		return "end of recovery " + regexp.MustCompile(`tli \d+; prev tli \d+; time `).FindString(d.desc) + at()
	case "XLOG/BACKUP_END":
		return "backup end " + d.desc
	case "XLOG/PARAMETER_CHANGE":
		return d.desc
	case "XLOG/SWITCH":
		return "switch"
	case "Tablespace/CREATE":
		return "tablespace " + d.desc
	}
	return ""
}

// compareFacts scans every segment by itself, joins neighbours, and must find exactly
// the events of the whole.
func (w *wholeCluster) compareFacts(t *testing.T, tli pg.Timeline, segments []pg.Segment, events []Event) {
	t.Helper()
	var all []*Facts
	for _, s := range segments {
		f := w.scan(t, s)
		if f == nil {
			break // a recycled file behind the end
		}
		all = append(all, f)
	}
	bySegment := map[uint64][]Event{}
	var crossing []Event
	for _, ev := range events {
		first, last := uint64(ev.LSN)/uint64(w.segSize), uint64(ev.End-1)/uint64(w.segSize)
		if first == last {
			bySegment[first] = append(bySegment[first], ev)
		} else {
			crossing = append(crossing, ev)
		}
	}
	joined, overwritten := 0, 0
	for i, f := range all {
		n := uint64(f.StartLSN) / uint64(w.segSize)
		compareSegmentFacts(t, f, bySegment[n])
		if f.Tail == nil {
			continue
		}
		var heads []*Head
		for _, g := range all[i+1:] {
			heads = append(heads, g.Head)
			if !g.Covers() {
				break
			}
		}
		ev, err := Join(viaJSON(t, f.Tail), heads...)
		if errors.Is(err, ErrOverwritten) {
			overwritten++
			continue
		}
		if joined >= len(crossing) {
			t.Fatalf("segment %s has a tail, but no further record crosses", f.StartLSN)
		}
		want := crossing[joined]
		if f.Tail.Total > MaxPiece && ev.Transaction != nil && ev.Transaction.XIDUnknown && want.Transaction != nil {
			tx := *want.Transaction // too long a record to keep all that stands before the xid
			tx.XID, tx.XIDUnknown = 0, true
			want.Transaction = &tx
		}
		if err != nil || !reflect.DeepEqual(ev, want) {
			t.Errorf("joined at %s: %s %+v, %v; want %s %+v", f.Tail.LSN, describe(&ev), ev, err, describe(&want), want)
		}
		joined++
	}
	if joined != len(crossing) {
		t.Errorf("%d crossing records joined, %d there", joined, len(crossing))
	}
	if overwritten != w.overwritten {
		t.Errorf("%d crossing records were written over, want %d", overwritten, w.overwritten)
	}
	t.Logf("timeline %d: facts of %d segments agree; %d crossing records joined, %d of them with a fact", tli, len(all), joined,
		len(slices.DeleteFunc(crossing, func(ev Event) bool { return describe(&ev) == "" })))
}

func (w *wholeCluster) scan(t *testing.T, s pg.Segment) *Facts {
	t.Helper()
	path := filepath.Join(w.data, "pg_wal", s.Name(w.segSize))
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f, err := ScanFacts(t.Context(), file, int64(w.segSize))
	if errors.Is(err, ErrNotSegment) || err == nil && f.StartLSN != s.Start(w.segSize) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return viaJSON(t, f)
}
