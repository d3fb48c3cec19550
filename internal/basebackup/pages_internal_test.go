package basebackup

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// testPage is a page of block 7 with an LSN, sound unless spoilt.
func testPage(lsn pg.LSN, spoilt bool) []byte {
	page := make([]byte, pg.BlockSize)
	binary.LittleEndian.PutUint32(page, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(page[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(page[14:], pg.BlockSize) // pd_upper: not a new page
	page[5000] = 1
	binary.LittleEndian.PutUint16(page[8:], pg.PageChecksum(page, 7))
	if spoilt {
		page[6000] = 1
	}
	return page
}

// rereads answers second reads in turn; the last answer stays.
type rereads struct {
	pages [][]byte
	err   error
	asked int
}

func (r *rereads) page(context.Context, string, int64) ([]byte, error) {
	i := min(r.asked, len(r.pages)-1)
	r.asked++
	if r.err != nil {
		return nil, r.err
	}
	return r.pages[i], nil
}

func (*rereads) close() {}

// TestPageChecker_TellsTornFromCorrupt: what a page that failed is, by its LSN and by what further reads show (R7).
func TestPageChecker_TellsTornFromCorrupt(t *testing.T) {
	const before, start, within, stop, beyond = 0x1000, 0x2000, 0x2800, 0x3000, 0x4000
	old := rereadAfter
	rereadAfter = [5]time.Duration{}
	t.Cleanup(func() { rereadAfter = old })
	spoilt, sound := testPage(before, true), testPage(before, false)
	for name, c := range map[string]struct {
		first []byte
		again rereads
		want  repo.PageCheck
		asked int
	}{
		"sound":                              {first: sound},
		"new":                                {first: make([]byte, pg.BlockSize)},
		"written during the backup":          {first: testPage(within, true)},
		"changed under the eyes":             {first: spoilt, again: rereads{pages: [][]byte{testPage(within, false)}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"changed, and being written again":   {first: spoilt, again: rereads{pages: [][]byte{testPage(within, true)}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"changed at last":                    {first: spoilt, again: rereads{pages: [][]byte{spoilt, spoilt, testPage(start, false)}}, want: repo.PageCheck{Torn: 1}, asked: 3},
		"gone":                               {first: spoilt, again: rereads{pages: [][]byte{nil}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"cut off":                            {first: spoilt, again: rereads{pages: [][]byte{spoilt[:100]}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"emptied":                            {first: spoilt, again: rereads{pages: [][]byte{make([]byte, pg.BlockSize)}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"corrupt on the server":              {first: spoilt, again: rereads{pages: [][]byte{spoilt}}, want: repo.PageCheck{Corrupt: 1}, asked: 5},
		"spoilt on the way":                  {first: spoilt, again: rereads{pages: [][]byte{sound}}, want: repo.PageCheck{Corrupt: 1}, asked: 1},
		"cannot be read again":               {first: spoilt, again: rereads{pages: [][]byte{nil}, err: errors.New("denied")}, want: repo.PageCheck{Unsure: 1}, asked: 1},
		"of the future":                      {first: testPage(beyond, true), again: rereads{pages: [][]byte{testPage(beyond, true)}}, want: repo.PageCheck{Corrupt: 1}, asked: 5},
		"of the future, and was only torn":   {first: testPage(beyond, true), again: rereads{pages: [][]byte{testPage(within, false)}}, want: repo.PageCheck{Torn: 1}, asked: 1},
		"of the future, sound on the server": {first: testPage(beyond, true), again: rereads{pages: [][]byte{sound}}, want: repo.PageCheck{Corrupt: 1}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := &repo.Manifest{StartLSN: start}
			p := newPageChecker(t.Context(), m, &c.again, slog.New(slog.DiscardHandler))
			defer p.close()
			p.inspect("base/5/16384", 7*pg.BlockSize, c.first)
			p.inspect("base/5/pg_filenode.map", 7*pg.BlockSize, spoilt) // no relation
			m.StopLSN = stop
			got, err := p.finish()
			if err != nil {
				t.Fatal(err)
			}
			if got.Checked != 1 || got.Torn != c.want.Torn || got.Corrupt != c.want.Corrupt || got.Unsure != c.want.Unsure || c.again.asked != c.asked {
				t.Errorf("%+v after %d further reads, want %+v after %d", *got, c.again.asked, c.want, c.asked)
			}
			if failed := got.Torn + got.Corrupt + got.Unsure; int64(len(got.Pages)) != failed || failed == 1 && (got.Pages[0].Block != 7 || got.Pages[0].File != "base/5/16384" || got.Pages[0].Problem == "") {
				t.Errorf("pages %+v", got.Pages)
			}
		})
	}
}

// TestPageChecker_ManyLatePages: of many that failed within the backup, those beyond its end are still found.
func TestPageChecker_ManyLatePages(t *testing.T) {
	old := rereadAfter
	rereadAfter = [5]time.Duration{}
	t.Cleanup(func() { rereadAfter = old })
	m := &repo.Manifest{StartLSN: 0x2000}
	beyond := testPage(0x90000, true)
	p := newPageChecker(t.Context(), m, &rereads{pages: [][]byte{beyond}}, slog.New(slog.DiscardHandler))
	defer p.close()
	p.inspect("base/5/16384", 7*pg.BlockSize, beyond)
	for range 5 * mostLate {
		p.inspect("base/5/16384", 7*pg.BlockSize, testPage(0x2800, true))
	}
	m.StopLSN = 0x3000
	if got, err := p.finish(); err != nil || got.Corrupt != 1 || got.Checked != 5*mostLate+1 {
		t.Errorf("%+v, %v", got, err)
	}
}
