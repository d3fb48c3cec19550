package recovery

import (
	"context"
	"errors"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal/walrecord"
)

const (
	// lookBack bounds how many segments before a backup are looked at for what it contains, lookAhead how many behind a
	// stop for what it misses.
	lookBack, lookAhead = 64, 64
	// disorder is by how many microseconds commit times may be out of the order of WAL, for all that is looked at. They
	// are taken before the record is inserted (R19), so a process that the system does not run in between is as late.
	disorder pg.Timestamp = 2_000_000
)

// containedUntil is the latest time of a transaction that the backup contains: a target that excludes it is out of the
// backup's reach. PostgreSQL does not know that. Asked for an earlier time it stops at the first transaction that it
// replays, and gives out the state of the backup for that of the target.
//
// The WAL before the backup's start tells, as far as the archive has it: all records up to the very start, since after
// the switch to a new segment transactions go on until the checkpoint from which replay begins. Where it does not
// reach back far enough, the time in the record of that checkpoint tells. It has seconds only, so all of its second
// counts.
func (p *walPath) containedUntil(ctx context.Context, stopLSN pg.LSN) (pg.Timestamp, error) {
	until, covered, err := p.ahead(ctx)
	if err != nil || covered {
		return until, err
	}
	err = p.each(ctx, func(s stretch) (bool, error) {
		for _, c := range s.facts.Checkpoints {
			if c.Redo == p.start {
				until = max(until, c.Time+999_999)
			}
		}
		return s.facts.StartLSN >= stopLSN, nil
	})
	return until, err
}

// ahead is the latest time of a transaction in the WAL before the path's start. covered tells that what is older than
// the WAL that was looked at does not matter.
func (p *walPath) ahead(ctx context.Context) (until pg.Timestamp, covered bool, err error) {
	until = pg.TimestampNegInfinity
	first := p.first
	for first > 0 && !covered && p.first-first < lookBack {
		if _, ok := p.file(first - 1); !ok {
			break
		}
		f, err := p.facts(ctx, first-1)
		if repo.IsDamage(err) {
			break // it is not needed for the restore
		}
		if err != nil {
			return 0, false, err
		}
		first--
		if t := f.Latest; t != nil {
			covered = until > pg.TimestampNegInfinity && t.Time < until-disorder
			until = max(until, t.Time)
		}
	}
	// Before segment 1 there is nothing: initdb begins there.
	covered = covered || first <= 1 || p.first-first >= lookBack && until > pg.TimestampNegInfinity
	size := pg.LSN(p.inv.SegmentSize)
	back := newWALPath(p.repo, p.inv, p.history, pg.LSN(first)*size, p.cache)
	err = back.each(ctx, func(s stretch) (bool, error) {
		if t := s.latest(); t != nil && s.number < p.first {
			until = max(until, t.Time)
		}
		if s.number < p.first {
			return false, nil
		}
		return true, back.scan(ctx, s.begin, func(rec *walrecord.Record, ev *walrecord.Event) bool {
			if rec.LSN < p.start && ev.Transaction != nil {
				until = max(until, ev.Transaction.Time)
			}
			return rec.LSN >= p.start
		})
	})
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return until, false, nil // two segments before the start do not join: that is no matter of this restore
	}
	return until, covered, err
}
