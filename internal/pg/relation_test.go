package pg_test

import (
	"encoding/binary"
	"testing"

	"lifeboat/internal/pg"
)

func TestRelationFile(t *testing.T) {
	for path, want := range map[string]int{
		"base/5/16384": 0, "base/5/16384_fsm": 0, "base/5/16384_vm.1": 1, "base/5/16384_init": 0, "base/5/16384.12": 12,
		"global/1262": 0, "pg_tblspc/16385/PG_15_202209061/5/16386": 0, "pg_tblspc/16385/PG_15_202209061/5/16386_fsm.3": 3,
		"base/5/16384.32767": 32767,

		"global/pg_control": -1, "base/5/PG_VERSION": -1, "base/5/pg_filenode.map": -1, "base/5/pg_internal.init": -1,
		"pg_wal/000000010000000000000001": -1, "base/5/t3_16384": -1, "pg_xact/0000": -1, "base/pgsql_tmp/1": -1,
		"base/5/16384.99999999999999999999": -1, "base/5/16384.": -1,
	} {
		n, ok := pg.RelationFile(path)
		if ok != (want >= 0) || ok && int(n) != want {
			t.Errorf("%s: file %d, %v; want %d", path, n, ok, want)
		}
	}
}

func TestPageProblem(t *testing.T) {
	sound := make([]byte, pg.BlockSize)
	binary.LittleEndian.PutUint16(sound[14:], 8000) // pd_upper
	copy(sound[8000:], "tuple")
	binary.LittleEndian.PutUint16(sound[8:], pg.PageChecksum(sound, 7))
	broken := append([]byte{}, sound...)
	broken[8000] ^= 1
	marked := make([]byte, pg.BlockSize)
	marked[8000] = 1
	for _, c := range []struct {
		name  string
		page  []byte
		block uint32
		wrong bool
	}{
		{"sound", sound, 7, false},
		{"of another block", sound, 7 + pg.DefaultSegmentBlocks, true},
		{"broken", broken, 7, true},
		{"empty", make([]byte, pg.BlockSize), 7, false},
		{"new and not empty", marked, 7, true},
	} {
		if got := pg.PageProblem(c.page, c.block); (got != "") != c.wrong {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
