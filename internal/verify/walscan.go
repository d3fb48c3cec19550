package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// scanned is one WAL object that was read.
type scanned struct {
	name    string
	inv     *wal.Inventory // nil if the WAL could not be listed
	file    pg.WALFile
	segment pg.Segment
	facts   *walrecord.Facts // of the content; nil if it has none, or could not be read
}

func (s *scanned) problem(cluster, text string) Problem {
	return Problem{Level: 2, Outcome: Failed, Object: repo.WALKey(cluster, s.name), Block: -1, Text: text}
}

// scan reads one WAL object, once: its frames and its hash, its records, and what its head says of them.
func (l *ladder) scan(ctx context.Context, s *scanned) error {
	key := repo.WALKey(l.Cluster, s.name)
	var err error
	if s.file, err = pg.ParseWALFileName(s.name); err != nil {
		return l.note(s.problem(l.Cluster, "damaged: no WAL file has this name"))
	}
	w, err := l.Repo.OpenWAL(ctx, l.Cluster, s.name)
	if err != nil {
		return l.noteError(ctx, 2, key, err)
	}
	defer w.Close()
	defer func() { l.meter.add(w.Header.Length) }()
	var facts *walrecord.Facts
	if s.file.Kind == pg.WALSegment || s.file.Kind == pg.WALPartial {
		facts, err = walrecord.ScanFacts(ctx, w, w.Header.Length)
	}
	// The hash of the content decides at its end: what records say of damaged bytes is of no interest.
	if _, rest := io.Copy(io.Discard, w); rest != nil {
		return l.noteError(ctx, 2, key, rest)
	}
	switch {
	case errors.Is(err, walrecord.ErrNotSegment):
		return l.note(s.problem(l.Cluster, err.Error()))
	case err != nil:
		return l.noteError(ctx, 2, key, err)
	case facts == nil:
		return nil
	}
	s.facts = facts
	for _, text := range s.compare(&w.Header) {
		if err := l.note(s.problem(l.Cluster, text)); err != nil {
			return err
		}
	}
	return nil
}

// compare holds a segment's records against its name, its head, and the cluster.
func (s *scanned) compare(head *repo.WALHeader) (wrong []string) {
	f := s.facts
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	seg, err := s.file.Segment(f.SegmentSize)
	if err != nil {
		return []string{err.Error()}
	}
	s.segment = seg
	if f.StartLSN != seg.Start(f.SegmentSize) {
		bad("it begins at %v, its name says %v", f.StartLSN, seg.Start(f.SegmentSize))
	}
	if head.Length != int64(f.SegmentSize) {
		bad("it has %d bytes, a segment %d", head.Length, f.SegmentSize)
	}
	if head.SystemID != f.SystemID || head.SegmentSize != f.SegmentSize {
		bad("its head says system identifier %v, segments of %d bytes; its pages say %v, %d", head.SystemID, head.SegmentSize, f.SystemID, f.SegmentSize)
	}
	if different := differences(head.Facts, f); different != "" {
		bad("its head does not say what its records say: %s", different)
	}
	if stop := f.Stop; stop != nil && !stop.Unwritten() && s.file.Kind == pg.WALSegment {
		bad("its records cannot be read to the end: %v", stop)
	}
	if s.inv == nil {
		return wrong
	}
	if id := s.inv.Identity; f.SystemID != id.SystemID || f.SegmentSize != id.WALSegmentSize {
		bad("it is of system identifier %v (segments of %d bytes), the cluster is %v (%d)", f.SystemID, f.SegmentSize, id.SystemID, id.WALSegmentSize)
	}
	if text := s.timelines(); text != "" {
		bad("%s", text)
	}
	return wrong
}

// timelines checks the timelines that the pages bear. The file in which a timeline begins starts with its parent's pages.
func (s *scanned) timelines() string {
	f, tli := s.facts, s.segment.Timeline
	h, err := s.inv.History(tli)
	if err != nil {
		return err.Error()
	}
	if want := h.TimelineAt(f.StartLSN); f.Timeline != want {
		return fmt.Sprintf("its first page is of timeline %d, and should be of %d", f.Timeline, want)
	}
	if last := f.LastTimeline; last != 0 && last != tli {
		if _, ancestor := h.SwitchPoint(last); !ancestor {
			return fmt.Sprintf("its last page is of timeline %d, which does not lead to %d", last, tli)
		}
	}
	return ""
}

// differences names the facts in which a head differs from the records; "" if it does not.
func differences(stored json.RawMessage, fresh *walrecord.Facts) string {
	var head walrecord.Facts
	if len(stored) == 0 {
		return "it has none"
	}
	if err := json.Unmarshal(stored, &head); err != nil {
		return "it cannot be read: " + err.Error()
	}
	// Both are encoded by the same program, so that a head of an older one is compared by what it means.
	a, errA := fields(&head)
	b, errB := fields(fresh)
	if err := errors.Join(errA, errB); err != nil {
		return err.Error()
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(union(a, b))) {
		if !bytes.Equal(a[name], b[name]) {
			out = append(out, fmt.Sprintf("%s is %.80s, not %.80s", name, orNone(b[name]), orNone(a[name])))
		}
	}
	return strings.Join(out, "; ")
}

func fields(f *walrecord.Facts) (out map[string]json.RawMessage, err error) {
	data, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	return out, err
}

func union(a, b map[string]json.RawMessage) map[string]json.RawMessage {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func orNone(v json.RawMessage) string {
	if v == nil {
		return "none"
	}
	return string(v)
}
