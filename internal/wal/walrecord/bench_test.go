package walrecord

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"lifeboat/internal/pg"
)

// BenchmarkScanFacts measures what archiving a segment costs: pgbench's WAL, mostly
// small records, and that of a bulk load, with and without full page images.
func BenchmarkScanFacts(b *testing.B) {
	for _, load := range []struct{ name, sql string }{
		{"pgbench", ""},
		{"bulk", "create table bulk as select i, md5(i::text) v from generate_series(1, 700000) i; create index on bulk(v)"},
		{"messages", "select pg_logical_emit_message(false, 'x', repeat('x', 500000)) from generate_series(1, 100)"},
	} {
		b.Run(load.name, func(b *testing.B) {
			seg, records := loadedSegment(b, load.sql)
			b.ReportMetric(float64(records), "records/segment")
			b.SetBytes(int64(len(seg)))
			b.ReportAllocs()
			before := cpuSeconds(b)
			for b.Loop() {
				if _, err := ScanFacts(b.Context(), bytes.NewReader(seg), int64(len(seg))); err != nil {
					b.Fatal(err)
				}
			}
			// On a shared machine the clock tells more of the others than of this.
			b.ReportMetric(float64(len(seg))*float64(b.N)/1e6/(cpuSeconds(b)-before), "MB/cpu-s")
		})
	}
}

// cpuSeconds is what this process has used so far.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// loadedSegment is a full segment of 16 MB, and how many records are in it.
func loadedSegment(b *testing.B, sql string) ([]byte, uint64) {
	b.Helper()
	c := newCluster(b, 15)
	c.start("wal_keep_size=1GB", "max_wal_size=4GB", "synchronous_commit=off", "full_page_writes=off")
	if sql == "" {
		c.run("pgbench", "-h", c.root, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
		c.pgbench("-c", "4", "-j", "2", "-t", "15000")
	} else {
		c.script(sql)
	}
	at, err := pg.ParseLSN(c.sql("select pg_current_wal_lsn()"))
	if err != nil {
		b.Fatal(err)
	}
	s := pg.SegmentOf(1, at, pg.DefaultSegmentSize)
	s.Number-- // the newest full one
	seg, err := os.ReadFile(filepath.Join(c.data, "pg_wal", s.Name(pg.DefaultSegmentSize)))
	if err != nil {
		b.Fatal(err)
	}
	f, err := ScanFacts(b.Context(), bytes.NewReader(seg), int64(len(seg)))
	if err != nil || f.Stop != nil {
		b.Fatalf("segment is not full: %+v, %v", f, err)
	}
	return seg, f.Records
}
