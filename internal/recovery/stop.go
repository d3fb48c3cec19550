package recovery

import (
	"context"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal/walrecord"
)

// Transaction is the end of a transaction, as its WAL record tells it.
type Transaction = walrecord.Transaction

// Stop foretells where replay ends, from the records themselves.
type Stop struct {
	// ReplayedTo is the end of the last record that is replayed: what pg_last_wal_replay_lsn() will say.
	ReplayedTo pg.LSN `json:"replayedTo"`
	// At is the start of the record that makes replay stop: for a time the first that is not replayed, else the last
	// that is.
	At pg.LSN `json:"at"`
	// NeedTo is the end of the WAL that replay must be able to read.
	NeedTo pg.LSN `json:"needTo"`
	// LastCommit is the last transaction with an xid that is committed afterwards, FirstLost the first that is not,
	// though the archive has it. Either may be nil. They are what a restored server is examined with.
	LastCommit *Transaction `json:"lastCommit"`
	FirstLost  *Transaction `json:"firstLost"`
	// LastTime is what pg_last_xact_replay_timestamp() will say: the time of the last replayed end of a transaction,
	// committed or not; nil if there is none. A transaction whose end is an LSN target itself is replayed, but not
	// counted there (recoveryStopsAfter, xlogrecovery.c).
	LastTime *pg.Timestamp `json:"lastTime"`
	// Timeline is that of the last replayed record, if it is not the plan's: then the stop lies before the plan's timeline
	// began. 0 otherwise.
	Timeline pg.Timeline `json:"timeline,omitempty"`
}

// ender decides at which record replay stops: before it, after it, or not yet.
type ender func(rec *walrecord.Record, ev *walrecord.Event) (before, after bool)

// find looks for the stop of a goal along a path. It returns nil, and why, if the path does not reach it.
func (p *walPath) find(ctx context.Context, g goal, stopLSN pg.LSN) (*Stop, error) {
	switch g.Kind {
	case Immediate:
		return p.findConsistency(ctx, stopLSN)
	case Time:
		return p.findTime(ctx, g)
	case Latest:
		last, err := p.lastRecord(ctx)
		if err != nil || last == 0 {
			return nil, err
		}
		g.lsn = last
		return p.findLSN(ctx, g)
	case LSN:
		return p.findLSN(ctx, g)
	case Name:
		return p.findName(ctx, g)
	}
	return nil, refuse("use a time, an lsn or a name", "target %s is not available in this version", g.Kind)
}

// findConsistency: replay is consistent after the record that ends the backup, and PostgreSQL looks whether it is before
// it replays the next one (CheckRecoveryConsistency, recoveryStopsBefore, xlogrecovery.c).
func (p *walPath) findConsistency(ctx context.Context, stopLSN pg.LSN) (*Stop, error) {
	from, err := p.beginOf(ctx, uint64(stopLSN-1)/uint64(p.inv.SegmentSize))
	if err != nil {
		return nil, err
	}
	return p.exact(ctx, from, func(rec *walrecord.Record, _ *walrecord.Event) (bool, bool) {
		return rec.LSN >= stopLSN, false
	})
}

// later tells whether a transaction's end is beyond the goal's time: PostgreSQL stops before the first such record in
// WAL order (recoveryStopsBefore, xlogrecovery.c; R19).
func (g *goal) later(t *walrecord.Transaction) bool {
	at := pg.TimestampOf(g.time)
	return t != nil && (t.Time > at || g.Exclusive && t.Time == at)
}

func (p *walPath) findTime(ctx context.Context, g goal) (*Stop, error) {
	var from pg.LSN
	found := false
	err := p.each(ctx, func(s stretch) (bool, error) {
		if found = g.later(s.latest()); found {
			from = s.begin
		}
		return found, nil
	})
	if err != nil || !found {
		return nil, err
	}
	return p.exact(ctx, from, func(_ *walrecord.Record, ev *walrecord.Event) (bool, bool) {
		return g.later(ev.Transaction), false
	})
}

// findLSN: replay stops after the first record that begins at or after the target, or before it if exclusive.
func (p *walPath) findLSN(ctx context.Context, g goal) (*Stop, error) {
	n := uint64(g.lsn) / uint64(p.inv.SegmentSize)
	if n < p.first || n >= p.end {
		return nil, nil
	}
	from, err := p.beginOf(ctx, n)
	if err != nil {
		return nil, err
	}
	return p.exact(ctx, from, func(rec *walrecord.Record, _ *walrecord.Event) (bool, bool) {
		hit := rec.LSN >= g.lsn
		return hit && g.Exclusive, hit
	})
}

// beginOf is where a reader must start to see every record that ends in segment n.
func (p *walPath) beginOf(ctx context.Context, n uint64) (begin pg.LSN, err error) {
	err = p.each(ctx, func(s stretch) (bool, error) {
		begin = s.begin
		return s.number >= n, nil
	})
	return begin, err
}

func (p *walPath) findName(ctx context.Context, g goal) (*Stop, error) {
	var from pg.LSN
	found := false
	err := p.each(ctx, func(s stretch) (bool, error) {
		found = s.crossing != nil && s.crossing.RestorePoint != nil && s.crossing.RestorePoint.Name == g.Value || s.facts.Cut
		for _, rp := range s.facts.RestorePoints {
			found = found || rp.Name == g.Value && rp.LSN >= p.start
		}
		from = s.begin
		return found, nil
	})
	if err != nil || !found {
		return nil, err
	}
	return p.exact(ctx, from, func(_ *walrecord.Record, ev *walrecord.Event) (bool, bool) {
		hit := ev.RestorePoint != nil && ev.RestorePoint.Name == g.Value
		return false, hit
	})
}

// lastRecord is the start of the last complete record before the frontier.
func (p *walPath) lastRecord(ctx context.Context) (last pg.LSN, err error) {
	err = p.each(ctx, func(s stretch) (bool, error) {
		if s.crossing != nil {
			last = s.crossing.LSN
		}
		if s.facts.LastRecordLSN != 0 {
			last = s.facts.LastRecordLSN
		}
		return false, nil
	})
	return last, err
}

// exact reads records from a position on until stop says where replay ends, and on to the first transaction that is
// lost. It returns nil if WAL ends first.
func (p *walPath) exact(ctx context.Context, from pg.LSN, stop ender) (*Stop, error) {
	s := &Stop{}
	hidden, err := p.before(ctx, from, s)
	if err != nil {
		return nil, err
	}
	known, previous := s.LastCommit, from
	err = p.scan(ctx, from, func(rec *walrecord.Record, ev *walrecord.Event) bool {
		if s.At != 0 { // beyond the stop: only the first lost transaction is of interest, and only nearby
			s.see(ev.Transaction, &s.FirstLost)
			return s.FirstLost != nil || rec.LSN > s.At+2*pg.LSN(p.inv.SegmentSize)
		}
		before, after := stop(rec, ev)
		switch {
		case before:
			s.At, s.NeedTo, s.ReplayedTo = rec.LSN, rec.End, previous
			s.see(ev.Transaction, &s.FirstLost)
			return s.FirstLost != nil
		case after:
			s.At, s.NeedTo, s.ReplayedTo = rec.LSN, rec.End, rec.End
		case ev.Transaction != nil:
			t := ev.Transaction.Time
			s.LastTime = &t
		}
		s.see(ev.Transaction, &s.LastCommit)
		previous = rec.End
		return false
	})
	if err != nil && (s.At == 0 || ctx.Err() != nil) {
		return nil, err
	}
	if s.At == 0 {
		return nil, nil
	}
	if s.LastCommit == known {
		if err := p.uncover(ctx, hidden, from, s); err != nil {
			return nil, err
		}
	}
	return s, nil // also if what follows the stop cannot be read: it is not needed
}

// see keeps a commit that can be examined afterwards: one with an xid.
func (s *Stop) see(t *walrecord.Transaction, where **walrecord.Transaction) bool {
	if t == nil || t.Abort || t.XIDUnknown || t.XID == 0 {
		return false
	}
	*where = t
	return true
}

// before fills what facts tell of the transactions ahead of position from, for the case that none follows before the
// stop. hidden are the stretches behind the last commit that facts name, in which there are commits that they do not
// name, because an abort follows.
func (p *walPath) before(ctx context.Context, from pg.LSN, stop *Stop) (hidden []stretch, err error) {
	err = p.each(ctx, func(s stretch) (bool, error) {
		if s.facts.StartLSN >= from {
			return true, nil
		}
		keep := func(t *walrecord.Transaction) {
			if t == nil || t.LSN >= from {
				return
			}
			if t.LSN >= p.start { // what is older is in the backup, and not replayed
				at := t.Time
				stop.LastTime = &at
			}
			if stop.see(t, &stop.LastCommit) {
				hidden = nil
			}
		}
		keep(crossing(s.crossing))
		if s.facts.Commits > 0 {
			hidden = append(hidden, s)
		}
		keep(s.facts.Last)
		return false, nil
	})
	return hidden, err
}

// uncover looks for the last commit in stretches of which facts do not name it, the newest first.
func (p *walPath) uncover(ctx context.Context, hidden []stretch, from pg.LSN, stop *Stop) error {
	for i := len(hidden) - 1; i >= 0; i-- {
		end := min(from, pg.LSN((hidden[i].number+1)*uint64(p.inv.SegmentSize)))
		var last *Transaction
		err := p.scan(ctx, hidden[i].begin, func(rec *walrecord.Record, ev *walrecord.Event) bool {
			if rec.LSN < end {
				stop.see(ev.Transaction, &last)
			}
			return rec.LSN >= end
		})
		if err != nil {
			return err
		}
		if last != nil {
			stop.LastCommit = last
			return nil
		}
	}
	return nil
}

func crossing(ev *walrecord.Event) *walrecord.Transaction {
	if ev == nil {
		return nil
	}
	return ev.Transaction
}
