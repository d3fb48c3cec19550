package pg

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Every page of a real table, its map forks and an index has the checksum that we
// compute for it, and no page has it as another block.
func TestPageChecksum_OfRealTable(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major, "--data-checksums")
		c.start()
		c.sql("create table t as select i, md5(i::text) as v from generate_series(1, 30000) i")
		c.sql("create index on t(v)")
		c.sql("update t set v = v || 'x' where i % 7 = 0")
		c.sql("vacuum t")
		paths := []string{
			c.sql("select pg_relation_filepath('t')"),
			c.sql("select pg_relation_filepath('t_v_idx')"),
			c.sql("select pg_relation_filepath('t')") + "_fsm",
			c.sql("select pg_relation_filepath('t')") + "_vm",
		}
		c.sql("checkpoint")
		end, err := ParseLSN(c.sql("select pg_current_wal_lsn()"))
		if err != nil {
			t.Fatal(err)
		}
		c.stop(syscall.SIGINT)
		pages := 0
		for _, path := range paths {
			pages += checkRelation(t, filepath.Join(c.data, path), end)
		}
		if pages < 400 {
			t.Errorf("only %d pages were checked", pages)
		}
		t.Logf("%d pages agree", pages)
	})
}

func checkRelation(t *testing.T, path string, end LSN) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, BlockSize)
	pages := 0
	for block := uint32(0); ; block++ {
		if _, err := io.ReadFull(f, page); err == io.EOF {
			return pages
		} else if err != nil {
			t.Fatal(err)
		}
		if PageIsNew(page) {
			if !PageIsZero(page) {
				t.Errorf("%s: block %d is new but not zero", path, block)
			}
			continue
		}
		stored := StoredChecksum(page)
		if got := PageChecksum(page, block); got != stored || stored == 0 {
			t.Errorf("%s: block %d: computed %d, stored %d", path, block, got, stored)
		}
		if PageChecksum(page, block+1) == stored {
			t.Errorf("%s: block %d also passes as the next one", path, block)
		}
		if lsn := PageLSN(page); lsn > end {
			t.Errorf("%s: block %d has LSN %s, WAL ends at %s", path, block, lsn, end)
		}
		page[(int(block)*97+100)%BlockSize] ^= 1
		if PageChecksum(page, block) == stored && (int(block)*97+100)%BlockSize/2 != offPageChecksum/2 {
			t.Errorf("%s: block %d passes with a turned bit", path, block)
		}
		pages++
	}
}

func TestPageHelpers(t *testing.T) {
	page := make([]byte, BlockSize)
	if !PageIsNew(page) || !PageIsZero(page) || PageLSN(page) != 0 || StoredChecksum(page) != 0 {
		t.Error("an empty page is new, zero, and has neither LSN nor checksum")
	}
	binary.LittleEndian.PutUint32(page, 0x16) // high half first
	binary.LittleEndian.PutUint32(page[4:], 0xB374D848)
	binary.LittleEndian.PutUint16(page[8:], 4711)
	if got := PageLSN(page); got != 0x16_B374D848 {
		t.Errorf("LSN %s", got)
	}
	if got := StoredChecksum(page); got != 4711 {
		t.Errorf("checksum %d", got)
	}
	if !PageIsNew(page) || PageIsZero(page) {
		t.Error("a page without pd_upper is new, though not zero")
	}
	page[offPageUpper] = 1
	if PageIsNew(page) {
		t.Error("a page with pd_upper is not new")
	}
	last := make([]byte, 13)
	last[12] = 1
	if PageIsZero(last) || !PageIsZero(last[:12]) {
		t.Error("PageIsZero must look at every byte")
	}
	before := bytes.Clone(page)
	a := PageChecksum(page, 7)
	if !bytes.Equal(before, page) {
		t.Error("PageChecksum changed the page")
	}
	binary.LittleEndian.PutUint16(page[8:], 1)
	if b := PageChecksum(page, 7); a != b || a == 0 {
		t.Errorf("checksum %d depends on the stored one: %d", a, b)
	}
	for _, n := range []int{0, 1, 127, 8191} {
		if got := PageChecksum(make([]byte, n), 0); got != 0 {
			t.Errorf("%d bytes: %d, want 0", n, got)
		}
	}
	for _, short := range [][]byte{nil, make([]byte, 23)} {
		if PageLSN(short) != 0 || PageIsNew(short) || StoredChecksum(short) != 0 {
			t.Error("a short page has no header")
		}
	}
}

func BenchmarkPageChecksum(b *testing.B) {
	page := make([]byte, BlockSize)
	for i := range page {
		page[i] = byte(i * 31)
	}
	b.SetBytes(BlockSize)
	for i := 0; b.Loop(); i++ {
		PageChecksum(page, uint32(i))
	}
}
