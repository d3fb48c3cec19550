package recovery_test

import (
	"cmp"
	"crypto/md5"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
)

// dumped is one WAL record, as pg_waldump of the server's own major tells it. Nothing here uses our own reader of WAL.
type dumped struct {
	lsn   pg.LSN
	xid   uint32
	ends  bool // the end of a transaction
	abort bool
	// twoPhase: COMMIT PREPARED or ROLLBACK PREPARED; xid is that of the prepared transaction.
	twoPhase bool
	at       time.Time
	point    string // of a restore point
	server   int    // that wrote it
}

var (
	dumpLine = regexp.MustCompile(`^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*\d+, tx:\s*(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev [^,]+, desc: (.*)$`)
	dumpEnd  = regexp.MustCompile(`^(COMMIT|ABORT)(_PREPARED)?(?: (\d+):)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC`)
)

// waldump reads the records of one timeline from a server's pg_wal, from a position on until valid WAL ends.
func (l *life) waldump(t *testing.T, dir string, tli pg.Timeline, from pg.LSN, server int) []dumped {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), l.Bin.Path("pg_waldump"), "-p", filepath.Join(dir, "pg_wal"), "-t", fmt.Sprint(tli), "-s", from.String())
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8"}
	out, err := cmd.Output()
	var records []dumped
	for line := range strings.Lines(string(out)) {
		m := dumpLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue // "first record is after ..."
		}
		lsn, lsnErr := pg.ParseLSN(m[3])
		if lsnErr != nil {
			t.Fatalf("%v in %s", lsnErr, line)
		}
		r := dumped{lsn: lsn, xid: number(t, m[2]), server: server}
		switch {
		case m[1] == "Transaction":
			r.end(t, m[4])
		case strings.HasPrefix(m[4], "RESTORE_POINT "):
			r.point = strings.TrimPrefix(m[4], "RESTORE_POINT ")
		}
		records = append(records, r)
	}
	if len(records) < 1000 {
		t.Fatalf("pg_waldump gives %d records of timeline %d from %v on (%v)", len(records), tli, from, err)
	}
	return records
}

// end reads the description of a record of the resource manager Transaction.
func (r *dumped) end(t *testing.T, desc string) {
	m := dumpEnd.FindStringSubmatch(desc)
	if m == nil {
		if strings.HasPrefix(desc, "COMMIT") || strings.HasPrefix(desc, "ABORT") {
			t.Fatalf("pg_waldump: %q", desc)
		}
		return
	}
	r.ends, r.abort, r.twoPhase = true, m[1] == "ABORT", m[2] != ""
	if r.twoPhase {
		r.xid = number(t, m[3])
	}
	var err error
	if r.at, err = time.Parse("2006-01-02 15:04:05.000000", m[4]); err != nil {
		t.Fatal(err)
	}
}

// truth is what one timeline's history holds: the records that were archived, in the order of WAL.
type truth struct {
	life     *life
	timeline pg.Timeline
	records  []dumped
	frontier pg.LSN
}

const ledgerSegment = 4 << 20

func segmentStart(t *testing.T, path string) pg.LSN {
	t.Helper()
	f, err := pg.ParseWALFileName(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	seg, err := f.Segment(ledgerSegment)
	if err != nil {
		t.Fatal(err)
	}
	return seg.Start(ledgerSegment)
}

// truths are those of timelines 1 and 2.
func (l *life) truths(t *testing.T) truths {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(l.DataDir, "pg_wal", "00000001????????????????"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d segments, %v", len(names), err)
	}
	old := l.waldump(t, l.DataDir, 1, segmentStart(t, slices.Min(names)), 0)
	frontier := func(tli pg.Timeline) pg.LSN {
		last := ""
		for name, err := range l.repo.WALNames(t.Context(), "c1", tli, "") {
			if err != nil {
				t.Fatal(err)
			}
			if len(name) == 24 {
				last = name
			}
		}
		return segmentStart(t, last) + ledgerSegment
	}
	shared := slices.Clone(old)
	shared = slices.DeleteFunc(shared, func(r dumped) bool { return r.lsn >= l.fork })
	all := truths{
		1: {l, 1, old, frontier(1)},
		2: {l, 2, append(shared, l.waldump(t, l.heirDir, 2, l.fork, 1)...), frontier(2)},
	}
	for _, tr := range all {
		tr.records = slices.DeleteFunc(tr.records, func(r dumped) bool { return r.lsn >= tr.frontier })
		if !slices.IsSortedFunc(tr.records, func(a, b dumped) int { return cmp.Compare(a.lsn, b.lsn) }) {
			t.Fatal("pg_waldump's records are not in order")
		}
	}
	l.checkCommitTimes(t, old)
	return all
}

// checkCommitTimes compares pg_waldump with what the old primary itself says of its commits.
func (l *life) checkCommitTimes(t *testing.T, records []dumped) {
	t.Helper()
	at := map[uint32]time.Time{}
	for _, r := range records {
		if r.ends && !r.abort {
			at[r.xid] = r.at
		}
	}
	rows := pgtest.Collect[struct {
		XID string
		At  time.Time
	}](t, l.Server, "select xmin::text as xid, pg_xact_commit_timestamp(xmin) as at from ledger where pg_xact_commit_timestamp(xmin) is not null")
	known := 0
	for _, r := range rows {
		if have, ok := at[number(t, r.XID)]; ok { // rows of subtransactions have their own xid
			known++
			if !have.Equal(r.At) {
				t.Fatalf("xid %s: pg_waldump says %v, the server %v", r.XID, have, r.At)
			}
		}
	}
	if known < 100 {
		t.Fatalf("only %d of %d rows could be compared", known, len(rows))
	}
}

// stop finds by PostgreSQL's rules where replay from a position ends (xlogrecovery.c, recoveryStopsBefore and
// recoveryStopsAfter): the index of the first record that is not replayed. at is the record that decides. False if it
// would not end before WAL does.
func (tr *truth) stop(target recovery.Target, from, consistent pg.LSN) (end int, at dumped, ok bool) {
	lsn, _ := pg.ParseLSN(target.Value)
	when, _ := time.Parse(time.RFC3339Nano, target.Value)
	for i, r := range tr.records {
		before, after := false, false
		switch target.Kind {
		case recovery.Time:
			before = r.ends && (r.at.After(when) || target.Exclusive && r.at.Equal(when))
		case recovery.LSN:
			before, after = r.lsn >= lsn && target.Exclusive, r.lsn >= lsn
		case recovery.Name:
			after = r.point == target.Value
		case recovery.Immediate:
			before = r.lsn >= consistent
		default:
			after = i == len(tr.records)-1
		}
		switch {
		case r.lsn < from:
		case before:
			return i, r, true
		case after:
			return i + 1, r, true
		}
	}
	return 0, dumped{}, false
}

// content is what the ledger holds when the first n records were replayed.
func (tr *truth) content(n int) string {
	rows, tables, databases := map[string]string{}, map[string]string{}, map[string]string{}
	for _, r := range tr.records[:n] {
		if !r.ends || r.abort {
			continue
		}
		for _, e := range tr.effects(r) {
			m := map[string]map[string]string{"row": rows, "table": tables, "database": databases}[e.kind]
			if e.value == nil {
				delete(m, e.key)
			} else {
				m[e.key] = *e.value
			}
		}
	}
	ids := slices.SortedFunc(maps.Keys(rows), func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
	var lines []string
	for _, id := range ids {
		lines = append(lines, id+"="+rows[id])
	}
	return fmt.Sprintf("rows %d %x tables %s databases %s", len(rows), md5.Sum([]byte(strings.Join(lines, ","))),
		strings.Join(slices.Sorted(maps.Keys(tables)), ","), strings.Join(slices.Sorted(maps.Keys(databases)), ","))
}

// effects are those of a commit. The two servers give the same numbers to different transactions after they parted; a
// prepared one may have been prepared before that.
func (tr *truth) effects(r dumped) []effect {
	if e, ok := tr.life.did[r.server].by[r.xid]; ok || !r.twoPhase {
		return e
	}
	return tr.life.did[0].by[r.xid]
}

// reaches tells whether replay from a backup comes to a target: the backup is on this history, does not contain what
// the target excludes, and is consistent there.
func (tr *truth) reaches(backup int, target recovery.Target) (end int, at dumped, ok bool) {
	m := tr.life.backups[backup]
	if m.Timeline > tr.timeline || m.Timeline == 1 && tr.timeline == 2 && m.StopLSN > tr.life.fork {
		return 0, dumped{}, false
	}
	end, at, ok = tr.stop(target, m.StartLSN, m.StopLSN)
	if !ok || end < len(tr.records) && tr.records[end].lsn < m.StopLSN {
		return 0, dumped{}, false
	}
	if target.Kind == recovery.Time {
		// By R19's rule replay would have stopped earlier, had it begun earlier.
		if all, _, _ := tr.stop(target, 0, 0); all != end {
			return 0, dumped{}, false
		}
	}
	return end, at, true
}

// neighbours are the last commit of a transaction with an xid among the first n records, and the first one behind.
func (tr *truth) neighbours(n int) (kept, lost *dumped) {
	for i := range tr.records {
		r := &tr.records[i]
		switch {
		case !r.ends || r.abort || r.xid == 0:
		case i < n:
			kept = r
		default:
			return kept, r
		}
	}
	return kept, nil
}
