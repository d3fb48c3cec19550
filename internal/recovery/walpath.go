package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// walPath is the WAL along one history, from a backup's start to the frontier.
type walPath struct {
	repo     *repo.Repository
	inv      *wal.Inventory
	history  pg.History
	line     []pg.Ancestor // of the history, oldest first
	start    pg.LSN        // replay begins here: what stands before it is in the segment, but not replayed
	first    uint64        // segment number of the backup's start
	end      uint64        // first segment number that is not on the path
	frontier pg.LSN
	// partial: the path's last segment is one of which only a part is there, up to where its server crashed (R16, R20).
	partial bool
	cache   map[string]*walrecord.Facts // shared between candidates
}

// maxCachedFacts bounds the memory of a plan: facts take up to some 20 KiB each.
const maxCachedFacts = 4096

func newWALPath(r *repo.Repository, inv *wal.Inventory, h pg.History, from pg.LSN, cache map[string]*walrecord.Facts) *walPath {
	p := &walPath{repo: r, inv: inv, history: h, line: h.Ancestors(), start: from, first: uint64(from) / uint64(inv.SegmentSize), cache: cache}
	p.end = p.first
	for {
		last, ok := p.follow(p.end)
		if !ok {
			break
		}
		p.end = last + 1
	}
	if n, ok := inv.Timeline(h.Timeline).PartialEnd(); ok && n == p.end && n >= uint64(p.line[len(p.line)-1].Begin)/uint64(inv.SegmentSize) {
		p.end, p.partial = n+1, true
	}
	p.frontier = pg.LSN(p.end * uint64(inv.SegmentSize))
	return p
}

// measure sets the frontier to where WAL ends within a last segment that is not whole.
func (p *walPath) measure(ctx context.Context) error {
	if !p.partial {
		return nil
	}
	f, err := p.facts(ctx, p.end-1)
	if err != nil {
		return err
	}
	p.frontier = max(f.LastRecordEnd, pg.LSN((p.end-1)*uint64(p.inv.SegmentSize)))
	return nil
}

// isPartial tells whether of segment n only a part is there.
func (p *walPath) isPartial(n uint64) bool { return p.partial && n+1 == p.end }

// object is the name of segment n in the repository.
func (p *walPath) object(n uint64) string {
	if p.isPartial(n) {
		return p.name(n) + ".partial"
	}
	return p.name(n)
}

// follow finds how far the path goes on from segment n in files of the timeline that has it.
func (p *walPath) follow(n uint64) (last uint64, ok bool) {
	seg, ok := p.file(n)
	if !ok {
		return 0, false
	}
	for _, r := range p.inv.Timeline(seg.Timeline).Runs {
		if r.First <= n && n <= r.Last {
			last = r.Last
		}
	}
	for _, a := range p.line {
		if a.Timeline == seg.Timeline && a.End != 0 {
			last = min(last, uint64(a.End)/uint64(p.inv.SegmentSize)-1)
		}
	}
	return last, true
}

// file is the file that recovery along the history reads for segment n: that of the newest timeline that has it
// (XLogFileReadAnyTLI, xlogrecovery.c). False if there is none, and also if that file goes on beyond the point where its
// timeline was left: its owner went on writing to it, the heir's own file is not in the repository, and PostgreSQL
// would replay what never was part of this history.
func (p *walPath) file(n uint64) (pg.Segment, bool) {
	if p.isPartial(n) {
		return pg.Segment{Timeline: p.history.Timeline, Number: n}, true
	}
	size := uint64(p.inv.SegmentSize)
	for i := len(p.line) - 1; i >= 0; i-- {
		a := p.line[i]
		if n < uint64(a.Begin)/size {
			continue
		}
		if t := p.inv.Timeline(a.Timeline); t != nil && t.Has(n) {
			return pg.Segment{Timeline: a.Timeline, Number: n}, a.End == 0 || uint64(a.End) >= (n+1)*size
		}
	}
	return pg.Segment{}, false
}

// missing is the name of the segment that ends the path.
func (p *walPath) missing() string {
	return pg.Segment{Timeline: p.history.TimelineAt(pg.LSN(p.end * uint64(p.inv.SegmentSize))), Number: p.end}.Name(p.inv.SegmentSize)
}

// gap tells whether the path ends though the history has segments behind its end.
func (p *walPath) gap() bool {
	for _, a := range p.line {
		t := p.inv.Timeline(a.Timeline)
		if t == nil || len(t.Runs) == 0 {
			continue
		}
		last := t.Runs[len(t.Runs)-1].Last
		if a.End != 0 {
			last = min(last, uint64(a.End)/uint64(p.inv.SegmentSize))
		}
		if last > p.end {
			return true
		}
	}
	return false
}

// name is the file that recovery reads for segment n.
func (p *walPath) name(n uint64) string {
	seg, _ := p.file(n)
	return seg.Name(p.inv.SegmentSize)
}

func (p *walPath) facts(ctx context.Context, n uint64) (*walrecord.Facts, error) {
	name := p.object(n)
	if f, ok := p.cache[name]; ok {
		return f, nil
	}
	f, err := wal.Facts(ctx, p.repo, p.inv.Cluster, name)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if len(p.cache) < maxCachedFacts {
		p.cache[name] = f
	}
	return f, nil
}

// stretch is what each is told: a segment, what is in it, and the record that ends in it but began before it.
type stretch struct {
	number   uint64
	facts    *walrecord.Facts
	crossing *walrecord.Event
	// begin is where a reader must start to see the crossing record and all that follow.
	begin pg.LSN
}

// each walks the segments from the backup's start to the frontier, in order, until visit says that it has enough.
func (p *walPath) each(ctx context.Context, visit func(s stretch) (enough bool, err error)) error {
	var tail *walrecord.Tail
	var heads []*walrecord.Head
	for n := p.first; n < p.end; n++ {
		f, err := p.facts(ctx, n)
		if err != nil {
			return err
		}
		s := stretch{number: n, facts: f, begin: max(f.StartLSN, p.start)}
		if tail != nil {
			s.begin = tail.LSN
			heads = append(heads, f.Head)
			if f.Covers() {
				continue
			}
			ev, err := walrecord.Join(tail, heads...)
			switch {
			case err == nil:
				s.crossing = &ev
			case p.isPartial(n):
				return nil // the record had not been written to its end: WAL ends before it
			case !errors.Is(err, walrecord.ErrOverwritten):
				return refuse("run `lifeboat verify` on the archive", "WAL segment %s does not continue the one before it: %v", p.name(n), err)
			}
		}
		enough, err := visit(s)
		if err != nil || enough {
			return err
		}
		tail, heads = f.Tail, nil
		// A switch whose own record began in the segment before leaves the rest of this one void, and only the joined
		// record tells so.
		switched := s.crossing != nil && s.crossing.Switch
		if tail == nil && !f.Complete() && !switched && n+1 < p.end {
			return refuse("the archive is damaged there", "WAL ends inside segment %s, at %v, though segments follow it", p.name(n), f.Stop)
		}
	}
	return nil
}

// latest is the transaction of the latest time among those that end in the stretch; nil if none does.
func (s *stretch) latest() (t *walrecord.Transaction) {
	t = s.facts.Latest
	if s.crossing != nil && s.crossing.Transaction != nil && (t == nil || s.crossing.Transaction.Time > t.Time) {
		t = s.crossing.Transaction
	}
	return t
}

// transactions gives the ends of transactions that a segment's facts name, and the one that ends in it but began before.
func (s *stretch) transactions() []*walrecord.Transaction {
	var out []*walrecord.Transaction
	if s.crossing != nil && s.crossing.Transaction != nil {
		out = append(out, s.crossing.Transaction)
	}
	for _, t := range []*walrecord.Transaction{s.facts.First, s.facts.Earliest, s.facts.Latest, s.facts.Last} {
		if t != nil {
			out = append(out, t)
		}
	}
	return out
}

// scan reads records from a position on, in order, until visit says that it has enough or WAL ends.
func (p *walPath) scan(ctx context.Context, from pg.LSN, visit func(rec *walrecord.Record, ev *walrecord.Event) (enough bool)) error {
	r, err := walrecord.NewReader(walrecord.Options{
		Open: p.open, SegmentSize: p.inv.SegmentSize, Start: from, SystemID: p.inv.Identity.SystemID,
	})
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	defer r.Close()
	for {
		rec, err := r.Next(ctx)
		var end *walrecord.EndOfWAL
		if errors.As(err, &end) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("plan: read WAL: %w", err)
		}
		ev, err := walrecord.Decode(&rec)
		if err != nil {
			return fmt.Errorf("plan: read WAL: %w", err)
		}
		if visit(&rec, &ev) {
			return nil
		}
	}
}

func (p *walPath) open(ctx context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
	if n >= p.end {
		return 0, nil, walrecord.ErrNoSegment
	}
	seg, _ := p.file(n)
	w, err := p.repo.OpenWAL(ctx, p.inv.Cluster, p.object(n))
	if err != nil {
		return 0, nil, err
	}
	return seg.Timeline, w, nil
}
