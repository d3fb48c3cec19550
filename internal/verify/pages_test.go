package verify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pgtest"
	"lifeboat/internal/verify"
)

// rot flips one byte in the body of a page of the stopped source, below its checksum and LSN.
func (b *bench) rot(t *testing.T, file string, block int64) {
	t.Helper()
	b.Stop(t)
	f, err := os.OpenFile(filepath.Join(b.DataDir, file), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, block*8192+5000); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one, block*8192+5000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b.Start(t)
}

// A page that rotted in the source before the backup is in the backup as it was: every object is what was written, and
// only the page's own checksum tells.
func TestPages_RotInTheSourceIsFoundAtLevel3(t *testing.T) {
	b := newBench(t, pgtest.Options{Checksums: true, Settings: map[string]string{"autovacuum": "off"}})
	b.Exec(t, "create table ledger as select g as id, md5(g::text) as t from generate_series(1, 20000) g")
	b.Exec(t, "create index on ledger (id)")
	b.Exec(t, "vacuum ledger") // fsm and vm
	sound := b.backup(t)
	places := map[string]int64{
		b.SQL(t, "select pg_relation_filepath('ledger')"):           17,
		b.SQL(t, "select pg_relation_filepath('ledger') || '_fsm'"): 1,
		b.SQL(t, "select pg_relation_filepath('ledger_id_idx')"):    3,
	}
	for file, block := range places {
		b.rot(t, file, block)
	}
	m := b.backup(t)
	b.archive(t)
	if r := b.verify(t, sound, 3); r.Outcome() != verify.Passed || r.Level() != 3 {
		t.Errorf("the backup from before: %s", text(r))
	}
	// The backup itself has seen it, by a second read through the server.
	if c := m.PageCheck; c == nil || c.Corrupt != int64(len(places)) || c.Torn != 0 || c.Unsure != 0 || m.CorruptPages() != int64(len(places)) {
		t.Errorf("the backup of the rotten source says %+v", c)
	} else {
		for _, p := range c.Pages {
			if block, ok := places[p.File]; !ok || block != p.Block {
				t.Errorf("the backup names block %d of %s", p.Block, p.File)
			}
		}
	}
	if c := sound.PageCheck; c == nil || c.Checked == 0 || c.Corrupt != 0 || len(c.Pages) != 0 {
		t.Errorf("the backup from before says %+v", c)
	}
	r := b.verify(t, m, 3)
	found := map[string]int64{}
	for _, p := range r.Problems {
		if p.Level != 3 || p.Outcome != verify.Failed || !strings.Contains(p.Text, "page checksum is") {
			t.Errorf("problem %+v", p)
		}
		found[p.File] = p.Block
	}
	if r.Outcome() != verify.Failed || r.Level() != 2 || len(r.Problems) != len(places) {
		t.Error(text(r))
	}
	for file, block := range places {
		if got, ok := found[file]; !ok || got != block {
			t.Errorf("block %d of %s is not named: %s", block, file, text(r))
		}
	}
}

// Without data checksums level 3 does not apply: it is no pass, and says why.
func TestPages_WithoutChecksumsIsSkipped(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	m := b.backup(t)
	r := b.verify(t, m, 3)
	if r.Levels[3] != verify.Skipped || r.Level() != 2 || r.Outcome() != verify.Passed ||
		len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "checksums are off") {
		t.Error(text(r))
	}
	if r := b.verify(t, m, 5); r.Outcome() != verify.Passed || r.Level() != 5 {
		t.Error(text(r))
	}
}
