package verify

import (
	"encoding/binary"
	"strings"
	"testing"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
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

// TestSeenPages: what the backup saw of a page decides what its failing means.
func TestSeenPages(t *testing.T) {
	check := &repo.PageCheck{Corrupt: 1, Unsure: 1, Torn: 1, Pages: []repo.FailedPage{
		{File: "base/5/1", Block: 1, State: repo.PageTorn, Problem: "t"},
		{File: "base/5/1", Block: 2, State: repo.PageUnsure, Problem: "u"},
		{File: "base/5/1", Block: 3, State: repo.PageCorrupt, Problem: "c"},
	}}
	more := *check
	more.Torn = 2
	for _, c := range []struct {
		name  string
		check *repo.PageCheck
		block int64
		want  Outcome // "" is no problem
		text  string
	}{
		{"a backup that was not checked", nil, 1, Failed, "text"},
		{"torn", check, 1, "", ""},
		{"unsure", check, 2, Unable, "could not be decided: u"},
		{"corrupt", check, 3, Failed, "c"},
		{"not named", check, 4, Failed, "text"},
		{"torn, of more than are named", &more, 1, "", ""},
		{"not named, of more than are named", &more, 4, Unable, "only a part"},
	} {
		s := seenPages(c.check)
		p, ok := s.problem("base/5/1", c.block, "text")
		if ok != (c.want != "") || ok && (p.Outcome != c.want || !strings.Contains(p.Text, c.text) || p.Block != c.block || p.Level != 3) {
			t.Errorf("%s: %+v, %v", c.name, p, ok)
		}
		if p, ok := s.problem("base/5/2", 1, "text"); !ok || p.Outcome == Failed && c.check == &more {
			t.Errorf("%s, another file: %+v", c.name, p)
		}
	}
}
