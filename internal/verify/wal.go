package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// wal is level 2: from each backup's start the WAL has no gap up to the frontier, each WAL object holds what was archived
// and says what its records say (R15), and neighbours belong together.
func (l *ladder) wal(ctx context.Context) error {
	l.meter.begin("wal", 0)
	inv, err := l.inventory(ctx)
	if err != nil {
		return err
	}
	if err := l.histories(ctx, inv); err != nil {
		return err
	}
	for _, s := range l.subjects {
		if s.snap != nil && inv != nil {
			l.continuous(s, inv)
		}
	}
	names := func(yield func(string) error) error {
		for name, err := range l.Repo.WALNames(ctx, l.Cluster, 0, "") {
			if err == nil {
				err = yield(name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if !l.all {
		names = l.walOf(inv)
	}
	if err := l.scanAll(ctx, inv, names); err != nil {
		return err
	}
	l.assignWAL(inv)
	return nil
}

// inventory lists the WAL. If that is not possible the backups fail: a restore would need it too.
func (l *ladder) inventory(ctx context.Context) (*wal.Inventory, error) {
	inv, err := wal.List(ctx, l.Repo, l.Cluster)
	if err == nil {
		return inv, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, s := range l.subjects {
		p := problemOf(2, "", err)
		if p.Outcome == Unable {
			p.Text = "the WAL could not be listed: " + err.Error()
		}
		s.add(p)
	}
	return nil, nil
}

// histories reads every timeline history: each recovery asks for them. WAL of a timeline without one is a loss too:
// nobody knows what it continues.
func (l *ladder) histories(ctx context.Context, inv *wal.Inventory) error {
	names, err := l.Repo.Histories(ctx, l.Cluster)
	if err != nil {
		return err
	}
	for _, name := range orphaned(inv, names) {
		text := "missing: there is WAL of this timeline, but not where it began; archive the file from the server's pg_wal with `lifeboat wal-push`"
		if err := l.note(Problem{Level: 2, Outcome: Failed, Object: repo.WALKey(l.Cluster, name), Block: -1, Text: text}); err != nil {
			return err
		}
	}
	for _, name := range names {
		key := repo.WALKey(l.Cluster, name)
		_, err := l.Repo.CheckObject(ctx, key)
		if err != nil {
			err = l.noteError(ctx, 2, key, err)
		} else if f, bad := pg.ParseWALFileName(name); bad == nil && inv != nil {
			if _, bad := inv.History(f.Timeline); bad != nil { // it holds what was archived, and that makes no sense
				err = l.note(Problem{Level: 2, Outcome: Failed, Object: key, Block: -1, Text: bad.Error()})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orphaned are the histories that are not there, of timelines that have WAL. Timeline 1 has none.
func orphaned(inv *wal.Inventory, histories []string) (names []string) {
	if inv == nil {
		return nil
	}
	for _, t := range inv.Timelines {
		if name := t.Timeline.HistoryName(); t.Timeline > 1 && !slices.Contains(histories, name) {
			names = append(names, name)
		}
	}
	return names
}

// continuous finds the branch that a backup can be replayed along, and the gaps on it. Of several branches it takes the
// newest that the backup lies on.
func (l *ladder) continuous(s *subject, inv *wal.Inventory) {
	m := s.snap.Manifest
	fail := func(text string) {
		s.add(Problem{Level: 2, Outcome: Failed, Object: repo.BackupKey(l.Cluster, s.BackupID), Block: -1, Text: text})
	}
	var why error
	for tli := max(inv.Newest(), m.Timeline); tli >= m.Timeline && tli > 0; tli-- {
		h, err := inv.History(tli)
		if err != nil {
			if inv.Timeline(tli) != nil {
				why = err
			}
			continue
		}
		if h.Contains(m.Timeline, m.StopLSN) {
			s.history = &h
			break
		}
	}
	if s.history == nil {
		text := fmt.Sprintf("no timeline leads on from timeline %d at %v", m.Timeline, m.StopLSN)
		if why != nil {
			text += ": " + why.Error()
		}
		fail(text)
		return
	}
	if id := inv.Identity; m.SystemID != id.SystemID || m.WALSegmentSize != id.WALSegmentSize {
		fail(fmt.Sprintf("it is of system identifier %v (WAL segments of %d bytes), the cluster has %v (%d)",
			m.SystemID, m.WALSegmentSize, id.SystemID, id.WALSegmentSize))
	}
	size := uint64(inv.SegmentSize)
	frontier := inv.Frontier(*s.history, m.StartLSN)
	s.first, s.end = uint64(m.StartLSN)/size, uint64(frontier)/size
	last := lastOn(*s.history, inv)
	if frontier >= m.StopLSN && s.end > last {
		return
	}
	// The gap ends before the next segment that is there, or else where the backup needs no more.
	to := max(uint64(m.StopLSN-1)/size, s.end)
	for n := s.end; n <= last; n++ {
		if _, ok := inv.File(*s.history, n); ok {
			to = n - 1
			break
		}
	}
	h := *s.history
	s.add(l.missing(inv.SegmentSize, wal.Gap{From: h.SegmentFile(s.end, inv.SegmentSize), To: h.SegmentFile(to, inv.SegmentSize)}))
}

// lastOn is the number of the newest segment along a history; 0 if there is none.
func lastOn(h pg.History, inv *wal.Inventory) (last uint64) {
	for _, a := range h.Ancestors() {
		t := inv.Timeline(a.Timeline)
		if t == nil || len(t.Runs) == 0 {
			continue
		}
		n := t.Runs[len(t.Runs)-1].Last
		if a.End != 0 { // what an ancestor wrote after it was left does not count
			n = min(n, uint64(a.End-1)/uint64(inv.SegmentSize))
		}
		last = max(last, n)
	}
	return last
}

// walOf gives the segments that the only backup needs, in order.
func (l *ladder) walOf(inv *wal.Inventory) func(func(string) error) error {
	return func(yield func(string) error) error {
		for _, s := range l.subjects {
			if s.history == nil {
				continue
			}
			for n := s.first; n < s.end; n++ {
				seg, _ := inv.File(*s.history, n)
				if err := yield(seg.Name(inv.SegmentSize)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// scanAll reads WAL objects in order, some at a time, and joins each segment with the one before it.
func (l *ladder) scanAll(ctx context.Context, inv *wal.Inventory, names func(func(string) error) error) error {
	c := &chain{ladder: l, inv: inv}
	batch := make([]*scanned, 0, 2*l.Workers)
	var sample *scanned // of the sound segments so far, each as likely
	var sound int
	random := l.random(2)
	flush := func() error {
		err := parallel(ctx, l.Workers, each(batch), l.scan)
		for _, s := range batch {
			if err == nil {
				err = c.join(ctx, s)
			}
			if s.facts != nil && len(l.bad[repo.WALKey(l.Cluster, s.name)]) == 0 {
				if sound++; random.IntN(sound) == 0 {
					sample = s
				}
			}
		}
		batch = batch[:0]
		return err
	}
	err := names(func(name string) error {
		batch = append(batch, &scanned{name: name, inv: inv})
		if len(batch) < cap(batch) {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	return l.proveWAL(ctx, sample)
}

// assignWAL gives the problems of WAL objects to the backups that need them.
func (l *ladder) assignWAL(inv *wal.Inventory) {
	owned := map[string]bool{}
	for _, s := range l.subjects {
		for key, list := range l.bad {
			if !s.needs(inv, key[strings.LastIndexByte(key, '/')+1:]) {
				continue
			}
			owned[key] = true
			for _, p := range list {
				s.add(p)
			}
		}
		if l.omitted > 0 {
			s.Omitted += l.omitted
			s.Levels[2] = Failed
		}
		if s.snap != nil {
			s.passed(2)
		}
	}
	for key, list := range l.bad {
		for _, p := range list {
			if !owned[key] {
				l.rest.add(p)
			}
		}
	}
	clear(l.bad)
	l.omitted = 0
}

// needs tells whether a replay of the backup reads a WAL file.
func (s *subject) needs(inv *wal.Inventory, name string) bool {
	f, err := pg.ParseWALFileName(name)
	if err != nil || s.snap == nil {
		return false
	}
	if f.Kind == pg.WALHistory {
		return true // wal-fetch serves every one (R2), and plans read them all
	}
	if inv == nil || s.history == nil || f.Kind != pg.WALSegment {
		return false
	}
	seg, err := f.Segment(inv.SegmentSize)
	if err != nil || seg.Number < s.first || seg.Number >= s.end {
		return false
	}
	have, ok := inv.File(*s.history, seg.Number)
	return ok && have == seg
}

// chain joins segments with those before them.
type chain struct {
	ladder *ladder
	inv    *wal.Inventory

	before   *scanned          // the segment before, if it could be read
	tail     *walrecord.Tail   // of the record that is open at its end
	heads    []*walrecord.Head // of segments that the record fills
	unfilled string            // why WAL ends in it, if it does
}

func (c *chain) reset() { *c = chain{ladder: c.ladder, inv: c.inv} }

// join takes the next WAL file. The problems of a seam are those of the later segment, unless the earlier one is plainly
// incomplete.
func (c *chain) join(ctx context.Context, s *scanned) error {
	if s.file.Kind != pg.WALSegment {
		return nil
	}
	if s.facts == nil {
		c.reset()
		return nil
	}
	if c.before != nil && (s.segment.Number != c.before.segment.Number+1 || !c.follows(s)) {
		c.reset()
	}
	if c.before == nil {
		if err := c.branchPoint(ctx, s); err != nil {
			return err
		}
	}
	text, sw := c.seam(s)
	if text != "" {
		if err := c.ladder.note(s.problem(c.ladder.Cluster, text)); err != nil {
			return err
		}
	}
	if c.unfilled != "" {
		p := c.before.problem(c.ladder.Cluster, fmt.Sprintf("%s, though %s follows", c.unfilled, s.name))
		if err := c.ladder.note(p); err != nil {
			return err
		}
	}
	c.before, c.unfilled = s, ""
	if s.facts.Covers() && c.tail != nil {
		return nil
	}
	c.tail, c.heads = s.facts.Tail, nil
	// The end of a switch record that began in the segment before is told by joining alone (walrecord.Facts.Stop).
	if stop := s.facts.Stop; stop != nil && !(sw && stop.Unwritten()) {
		c.unfilled = stop.Error()
	}
	return nil
}

// follows tells whether a segment continues the timeline of the one before, or, along a backup's own branch, goes over to
// a younger one.
func (c *chain) follows(s *scanned) bool {
	return s.segment.Timeline == c.before.segment.Timeline || !c.ladder.all && s.segment.Timeline > c.before.segment.Timeline
}

// branchPoint finds what the first segment of a timeline continues: the segment before it on its parent.
func (c *chain) branchPoint(ctx context.Context, s *scanned) error {
	if c.inv == nil || s.segment.Timeline == 1 || s.segment.Number == 0 {
		return nil
	}
	h, err := c.inv.History(s.segment.Timeline)
	if err != nil {
		return nil //nolint:nilerr // scan has noted it
	}
	parent, ok := c.inv.File(h, s.segment.Number-1)
	if !ok || parent.Timeline == s.segment.Timeline {
		return nil
	}
	facts, err := wal.Facts(ctx, c.ladder.Repo, c.ladder.Cluster, parent.Name(c.inv.SegmentSize))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || facts.Covers() {
		return nil //nolint:nilerr // the parent's own scan has noted it
	}
	c.before = &scanned{name: parent.Name(c.inv.SegmentSize), segment: parent, facts: facts}
	c.tail = facts.Tail
	return nil
}

// seam tells what is wrong between the segment before and this one, and whether the record between them is a switch.
func (c *chain) seam(s *scanned) (text string, sw bool) {
	head := s.facts.Head
	switch {
	case c.before == nil:
		return "", false
	case c.tail == nil && head != nil && !head.Overwritten && c.unfilled == "":
		return fmt.Sprintf("it begins with the rest of a record that %s does not begin", c.before.name), false
	case c.tail == nil:
		return "", false
	}
	c.heads = append(c.heads, head)
	if s.facts.Covers() {
		return "", false
	}
	ev, err := walrecord.Join(c.tail, c.heads...)
	if err != nil && !errors.Is(err, walrecord.ErrOverwritten) {
		return fmt.Sprintf("it does not continue %s: %v", c.before.name, err), false
	}
	return "", ev.Switch
}
