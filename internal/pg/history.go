package pg

import (
	"fmt"
	"strings"
)

// HistoryEntry says where one ancestor was left.
type HistoryEntry struct {
	Timeline  Timeline // the ancestor
	SwitchLSN LSN      // the first byte of WAL that is no longer the ancestor's
	Reason    string   // PostgreSQL's words for why; may be empty
}

// History is the line of descent of a timeline, oldest ancestor first, as its
// .history file tells it (access/transam/timeline.c). Timeline 1 has no file: its
// history is the zero Entries.
//
// Switch points need not rise. A server that was told to recover along timeline 2 but
// stopped before 2 branched off at X writes "1 X, 2 Y" with Y < X for its new
// timeline, although nothing of 2 was replayed. So what counts as the end of an
// ancestor here is the lowest switch point from its own entry on.
type History struct {
	Timeline Timeline
	Entries  []HistoryEntry
}

// ParseHistory reads the contents of the file named tli.HistoryName(). Empty lines and
// lines that begin with # are skipped. As for PostgreSQL, the timelines must rise and
// stay below tli; a file that breaks this is refused.
func ParseHistory(tli Timeline, data []byte) (History, error) {
	h := History{Timeline: tli}
	var last Timeline
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseHistoryLine(line)
		if err != nil {
			return History{}, fmt.Errorf("parse %s: %w", tli.HistoryName(), err)
		}
		if e.Timeline <= last {
			return History{}, fmt.Errorf("parse %s: timeline %d follows %d: timelines must rise",
				tli.HistoryName(), e.Timeline, last)
		}
		last = e.Timeline
		h.Entries = append(h.Entries, e)
	}
	if last >= tli {
		return History{}, fmt.Errorf("parse %s: it names timeline %d as an ancestor of %d", tli.HistoryName(), last, tli)
	}
	return h, nil
}

func parseHistoryLine(line string) (HistoryEntry, error) {
	id, rest := cutSpace(line)
	var tli uint64
	for i := range len(id) {
		if id[i] < '0' || id[i] > '9' || tli > 1<<32 {
			return HistoryEntry{}, fmt.Errorf("line %q: want a decimal timeline first", line)
		}
		tli = tli*10 + uint64(id[i]-'0')
	}
	if tli == 0 || tli >= 1<<32 {
		return HistoryEntry{}, fmt.Errorf("line %q: timeline out of range", line)
	}
	pos, reason := cutSpace(rest)
	lsn, err := ParseLSN(pos)
	if err != nil {
		return HistoryEntry{}, fmt.Errorf("line %q: want the switch point second: %w", line, err)
	}
	return HistoryEntry{Timeline: Timeline(tli), SwitchLSN: lsn, Reason: reason}, nil
}

// cutSpace splits at the first run of blanks.
func cutSpace(s string) (before, after string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// Ancestor is one stretch of a history.
type Ancestor struct {
	Timeline Timeline
	Begin    LSN // first position of the stretch; 0 for the oldest
	End      LSN // first position behind it; 0 for the timeline itself, which is open
}

// Ancestors lists the stretches of WAL that lead up to and into the timeline, oldest
// first, the timeline itself last. They join without gap. A timeline of the file of
// which nothing was replayed is left out.
func (h History) Ancestors() []Ancestor {
	ends := make([]LSN, len(h.Entries)) // of h.end, for all at once
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i] = h.Entries[i].SwitchLSN
		if i+1 < len(ends) {
			ends[i] = min(ends[i], ends[i+1])
		}
	}
	var list []Ancestor
	var begin LSN
	for i, end := range ends {
		if end > begin {
			list = append(list, Ancestor{Timeline: h.Entries[i].Timeline, Begin: begin, End: end})
			begin = end
		}
	}
	return append(list, Ancestor{Timeline: h.Timeline, Begin: begin})
}

// end is the lowest switch point from entry i on.
func (h History) end(i int) LSN {
	end := h.Entries[i].SwitchLSN
	for _, e := range h.Entries[i+1:] {
		end = min(end, e.SwitchLSN)
	}
	return end
}

// SwitchPoint is where timeline p was left on the way to h.Timeline: the first
// position that is not p's. It is false for h.Timeline itself, and for a timeline that
// is not an ancestor.
func (h History) SwitchPoint(p Timeline) (LSN, bool) {
	for i, e := range h.Entries {
		if e.Timeline == p {
			return h.end(i), true
		}
	}
	return 0, false
}

// TimelineAt is the timeline that the WAL byte at lsn belongs to. A switch point
// itself belongs to the new timeline.
func (h History) TimelineAt(lsn LSN) Timeline {
	tli := h.Timeline
	for _, a := range h.Ancestors() {
		tli = a.Timeline
		if a.End != 0 && lsn < a.End {
			break
		}
	}
	return tli
}

// Contains reports whether the state "timeline tli, replayed up to lsn" lies on the
// way to h.Timeline, so that replay can go on from it. Exactly at the switch point it
// does: nothing of tli was replayed that the new timeline does not share.
func (h History) Contains(tli Timeline, lsn LSN) bool {
	for _, a := range h.Ancestors() {
		if a.Timeline == tli {
			return lsn >= a.Begin && (a.End == 0 || lsn <= a.End)
		}
	}
	return false
}

// SegmentFile is the segment file that recovery along this history reads for segment
// number n: of the newest timeline that had begun by the segment's end. The file in
// which a switch lies belongs to the child, which starts with a copy of the parent's
// bytes (XLogFileReadAnyTLI, access/transam/xlogrecovery.c).
func (h History) SegmentFile(n uint64, size SegmentSize) Segment {
	list := h.Ancestors()
	for i := len(list) - 1; i > 0; i-- {
		if n >= uint64(list[i].Begin)/uint64(size) {
			return Segment{Timeline: list[i].Timeline, Number: n}
		}
	}
	return Segment{Timeline: list[0].Timeline, Number: n}
}
