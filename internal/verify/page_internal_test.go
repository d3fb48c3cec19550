package verify

import (
	"encoding/binary"
	"testing"

	"lifeboat/internal/pg"
)

// page makes a page of an LSN, with its checksum as block 7.
func page(lsn pg.LSN, sound bool) []byte {
	p := make([]byte, pg.BlockSize)
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[14:], 8000) // pd_upper
	copy(p[8000:], "tuple")
	binary.LittleEndian.PutUint16(p[8:], pg.PageChecksum(p, 7))
	if !sound {
		p[8000] ^= 1
	}
	return p
}

// R7: a page that changed since the backup's start is replay's business; no other may differ from its checksum.
func TestCheckPage(t *testing.T) {
	const start, stop = 0x5000028, 0x6000100
	marked := make([]byte, pg.BlockSize)
	marked[8000] = 1
	for _, c := range []struct {
		name  string
		page  []byte
		block uint32
		wrong bool
	}{
		{"sound", page(start-1, true), 7, false},
		{"sound, changed meanwhile", page(start, true), 7, false},
		{"torn before the start", page(start-1, false), 7, true},
		{"torn at the start", page(start, false), 7, false},
		{"torn at the end", page(stop, false), 7, false},
		{"beyond the end nobody wrote", page(stop+1, false), 7, true},
		{"of another block", page(start-1, true), 8, true},
		{"empty", make([]byte, pg.BlockSize), 7, false},
		{"new and not empty", marked, 7, true},
	} {
		if got := checkPage(c.page, c.block, start, stop); (got != "") != c.wrong {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestRelationFile(t *testing.T) {
	for path, want := range map[string]bool{
		"base/5/16384": true, "base/5/16384_fsm": true, "base/5/16384_vm.1": true, "base/5/16384_init": true, "base/5/16384.12": true,
		"global/1262": true, "pg_tblspc/16385/PG_15_202209061/5/16386": true,
		"global/pg_control": false, "base/5/PG_VERSION": false, "base/5/pg_filenode.map": false, "base/5/pg_internal.init": false,
		"pg_wal/000000010000000000000001": false, "base/5/t3_16384": false, "pg_xact/0000": false, "base/pgsql_tmp/1": false,
	} {
		if relationFile.MatchString(path) != want {
			t.Errorf("%s: %v, want %v", path, !want, want)
		}
	}
}
