package verify

import (
	"fmt"

	"lifeboat/internal/repo"
)

// seen is what a backup found itself of pages that failed while it read them (R7).
type seen struct {
	pages map[pagePlace]repo.FailedPage
	// unlisted: more torn pages were seen than are named, so one that is not named may be torn.
	unlisted bool
}

type pagePlace struct {
	file  string
	block int64
}

func seenPages(c *repo.PageCheck) seen {
	s := seen{pages: map[pagePlace]repo.FailedPage{}}
	if c == nil {
		return s
	}
	torn := c.Torn
	for _, p := range c.Pages {
		s.pages[pagePlace{p.File, p.Block}] = p
		if p.State == repo.PageTorn {
			torn--
		}
	}
	s.unlisted = torn > 0
	return s
}

// problem tells what to report of a page that fails its checksum, with an LSN that is not of the backup's time; false is
// nothing: the backup saw it change while it was read, so WAL has it whole.
func (s *seen) problem(file string, block int64, text string) (Problem, bool) {
	p := Problem{Level: 3, Outcome: Failed, File: file, Block: block, Text: text}
	page, known := s.pages[pagePlace{file, block}]
	switch {
	case page.State == repo.PageTorn:
		return p, false
	case page.State == repo.PageUnsure:
		p.Outcome, p.Text = Unable, "could not be decided: "+page.Problem
	case known:
		p.Text = page.Problem
	case s.unlisted:
		p.Outcome, p.Text = Unable, "could not be decided, since the backup names only a part of the pages that were torn: "+text
	}
	return p, true
}

// corrupt reports the pages that a backup itself found corrupt, at whatever level: it never counts as verified (R7).
func (s *subject) corrupt() {
	m := s.snap.Manifest
	left := m.CorruptPages()
	if left == 0 {
		return
	}
	for _, p := range m.PageCheck.Pages {
		if p.State == repo.PageCorrupt {
			s.add(Problem{Level: 3, Outcome: Failed, File: p.File, Block: p.Block, Text: p.Problem})
			left--
		}
	}
	if left > 0 {
		s.add(Problem{Level: 3, Outcome: Failed, Block: -1, Text: fmt.Sprintf("the backup found %d more corrupt pages than it names", left)})
	}
}
