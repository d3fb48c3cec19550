package basebackup

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// pageChecker checks the pages of relations while they go by (R7). A page that is read while it is written may be torn,
// which is normal: if its LSN lies at or after the backup's start, WAL has a full image of it (full page writes are forced
// while a backup runs), and replay writes it anew. If its LSN is older, the page may be corrupt in the source, or torn so
// that the half with the LSN is still the old one; a second read tells.
type pageChecker struct {
	ctx      context.Context
	cancel   context.CancelFunc
	manifest *repo.Manifest // its StartLSN is set before the first page comes
	segment  uint32         // blocks in one file of a fork
	read     pageReader
	log      *slog.Logger

	checked  atomic.Int64
	suspects chan suspect // blocks the writer when it is full
	settled  chan struct{}

	mu   sync.Mutex
	late []suspect // failed with an LSN at or after the start: the newest, see keepNewest

	found  repo.PageCheck // of the one goroutine that settles, then of finish
	listed map[repo.PageState]int
}

// pageReader reads one page of the server a second time. No page (nil), or a part of one, says that it is gone.
type pageReader interface {
	page(ctx context.Context, file string, offset int64) ([]byte, error)
	close()
}

// suspect is a page that failed.
type suspect struct {
	file    string
	offset  int64 // in the file
	block   uint32
	lsn     pg.LSN
	problem string
}

const (
	mostSuspects = 256  // that wait for their second read
	mostListed   = 5000 // of each state; the others are counted
	mostLate     = 1000
	// patientReads is up to how many corrupt pages there is a pause between two reads: a file that is corrupt from end to
	// end has 131072, and nothing is left to doubt.
	patientReads = 64
)

// rereadAfter are the pauses before the second and further reads of a page that failed. A write takes microseconds, but
// on a busy machine its writer may be stopped in the middle. It is a variable for tests.
var rereadAfter = [5]time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond}

// newPageChecker begins to check; close ends it. segment 0 is the default.
func newPageChecker(ctx context.Context, m *repo.Manifest, read pageReader, log *slog.Logger) *pageChecker {
	c := &pageChecker{
		manifest: m, segment: m.RelationSegmentBlocks, read: read, log: log,
		suspects: make(chan suspect, mostSuspects), settled: make(chan struct{}), listed: map[repo.PageState]int{},
	}
	if c.segment == 0 {
		c.segment = pg.DefaultSegmentBlocks
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	go func() {
		defer close(c.settled)
		for s := range c.each() {
			c.settle(s, 1<<64-1)
		}
	}()
	return c
}

// each yields suspects until there will be no more, or the work is given up.
func (c *pageChecker) each() func(yield func(suspect) bool) {
	return func(yield func(suspect) bool) {
		for {
			select {
			case s, ok := <-c.suspects:
				if !ok || !yield(s) {
					return
				}
			case <-c.ctx.Done():
				return
			}
		}
	}
}

// inspect is repo.WriterOptions.Inspect. Chunks of a relation consist of whole pages, but for the end of a file that is
// growing, which is replay's business.
func (c *pageChecker) inspect(path string, offset int64, plain []byte) {
	file, ok := pg.RelationFile(path)
	if !ok || offset%pg.BlockSize != 0 {
		return
	}
	block := file*c.segment + uint32(offset/pg.BlockSize)
	for ; len(plain) >= pg.BlockSize; plain, block, offset = plain[pg.BlockSize:], block+1, offset+pg.BlockSize {
		c.checked.Add(1)
		page := plain[:pg.BlockSize]
		if problem := pg.PageProblem(page, block); problem != "" {
			c.failed(suspect{file: path, offset: offset, block: block, lsn: pg.PageLSN(page), problem: problem})
		}
	}
}

func (c *pageChecker) failed(s suspect) {
	if s.lsn >= c.manifest.StartLSN {
		c.mu.Lock()
		c.late = keepNewest(append(c.late, s), 2*mostLate, mostLate)
		c.mu.Unlock()
		return
	}
	c.log.Debug("a page failed its checksum and is read again", "file", s.file, "block", s.block, "lsn", s.lsn)
	select {
	case c.suspects <- s:
	case <-c.ctx.Done():
	}
}

// finish waits for what is still to be settled and returns what was found. Nothing may be inspected any more.
func (c *pageChecker) finish() (*repo.PageCheck, error) {
	close(c.suspects)
	<-c.settled
	for _, s := range c.late {
		if s.lsn > c.manifest.StopLSN { // nobody can have written that
			c.settle(s, c.manifest.StopLSN)
		}
	}
	c.found.Checked = c.checked.Load()
	return &c.found, context.Cause(c.ctx)
}

// close gives up what is not settled. It may follow finish.
func (c *pageChecker) close() {
	c.cancel()
	<-c.settled
	c.read.close()
}

// settle reads a page again, up to 5 times, until it is known what is the matter with it.
func (c *pageChecker) settle(s suspect, stop pg.LSN) {
	for try := range rereadAfter {
		if c.found.Corrupt < patientReads && !c.pause(rereadAfter[try]) {
			return
		}
		page, err := c.read.page(c.ctx, s.file, s.offset)
		if c.ctx.Err() != nil {
			return
		}
		if err != nil {
			c.record(s, repo.PageUnsure, s.problem+"; it could not be read again: "+err.Error())
			return
		}
		switch judge(page, s.block, c.manifest.StartLSN, stop) {
		case changed:
			c.record(s, repo.PageTorn, s.problem+"; it changed while the backup was taken")
			return
		case sound:
			c.record(s, repo.PageCorrupt, s.problem+"; the server's own page is sound and has not changed, so it was spoilt on the way: take another backup")
			return
		case wrong:
		}
	}
	c.record(s, repo.PageCorrupt, s.problem+"; it is so on the server, too")
}

func (c *pageChecker) pause(d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *pageChecker) record(s suspect, state repo.PageState, problem string) {
	switch state {
	case repo.PageCorrupt:
		c.found.Corrupt++
	case repo.PageUnsure:
		c.found.Unsure++
	case repo.PageTorn:
		c.found.Torn++
	}
	if c.listed[state]++; c.listed[state] > mostListed {
		return
	}
	c.found.Pages = append(c.found.Pages, repo.FailedPage{File: s.file, Block: int64(s.block), State: state, Problem: problem})
	if state != repo.PageTorn && c.listed[state] <= 10 {
		c.log.Warn("a page of the server fails its checksum", "file", s.file, "block", s.block, "state", state, "problem", problem)
	}
}

// judgement is what a second read of a failed page says.
type judgement int

const (
	wrong   judgement = iota // as before; it may be being written
	changed                  // since the backup's start: replay writes it anew, or removes it
	sound                    // and not changed: what was read first is not what the server has
)

// judge decides about a page by its second read. page is nil, or shorter than a page, if it is gone: the file was removed or
// truncated meanwhile, which WAL tells, too. stop is the backup's end, if it is known.
func judge(page []byte, block uint32, start, stop pg.LSN) judgement {
	lsn := pg.PageLSN(page)
	switch {
	case len(page) < pg.BlockSize || pg.PageIsZero(page):
		return changed
	case lsn >= start && lsn <= stop:
		return changed
	case pg.PageProblem(page, block) == "":
		return sound
	}
	return wrong
}

// keepNewest cuts list to the keep suspects with the greatest LSNs once it has grown to most: of those that failed with an
// LSN within the backup, which may be many, only ones beyond its end are of interest, and they are the greatest.
func keepNewest(list []suspect, most, keep int) []suspect {
	if len(list) < most {
		return list
	}
	slices.SortFunc(list, func(a, b suspect) int { return cmp.Compare(b.lsn, a.lsn) })
	return list[:keep]
}
