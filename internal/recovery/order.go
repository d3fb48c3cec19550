package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal/walrecord"
)

// warnOrder tells which commits a time target loses although they have committed by then (R19): PostgreSQL stops before
// the first record of a later time, and commit times are not strictly in the order of WAL.
func (p *Plan) warnOrder(ctx context.Context, path *walPath, g goal) error {
	if g.Kind != Time {
		return nil
	}
	late, err := path.overtaken(ctx, g, p.Stop.At)
	if refused := (*RefusedError)(nil); repo.IsDamage(err) || errors.As(err, &refused) {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the WAL that follows the stop is damaged, so it is not known whether commit times are in order there: %v", err))
		return nil
	}
	if err != nil || len(late) == 0 {
		return err
	}
	p.Overtaken = late
	const most = 5
	var names []string
	for _, t := range late[:min(len(late), most)] {
		names = append(names, fmt.Sprintf("xid %d of %s at %v", t.XID, t.Time, t.LSN))
	}
	if n := len(late) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("commit times are not in order here: replay stops at %v, before the first commit or abort of a later time, "+
		"and so loses what had committed by the target but stands behind that in WAL: %s; to keep that use --to-lsn %v, which also keeps "+
		"what stands before it and committed later", p.Stop.At, strings.Join(names, ", "), late[len(late)-1].LSN))
	return nil
}

// overtaken lists the commits behind a stop that a time goal includes, in the order of WAL.
func (p *walPath) overtaken(ctx context.Context, g goal, at pg.LSN) (late []Transaction, err error) {
	size := uint64(p.inv.SegmentSize)
	stop := uint64(at) / size
	limit := pg.TimestampOf(g.time) + disorder
	err = p.each(ctx, func(s stretch) (bool, error) {
		earliest := s.earliest()
		switch {
		case s.number < stop:
			return false, nil
		case s.number > stop && (earliest == nil || g.later(earliest)):
			// None of these is late. Once all are much later, none of what follows will be.
			return earliest != nil && earliest.Time > limit || s.number >= stop+lookAhead, nil
		}
		begin, end := pg.LSN(s.number*size), pg.LSN((s.number+1)*size)
		err := p.scan(ctx, max(s.begin, at), func(rec *walrecord.Record, ev *walrecord.Event) bool {
			t := ev.Transaction
			if t != nil && rec.End > begin && rec.End <= end && !t.Abort && t.XID != 0 && !g.later(t) {
				late = append(late, *t)
			}
			return rec.End >= end
		})
		return s.number >= stop+lookAhead, err
	})
	return late, err
}

// earliest is the transaction of the earliest time among those that end in the stretch; nil if none does.
func (s *stretch) earliest() *walrecord.Transaction {
	t := s.facts.Earliest
	if s.crossing != nil && s.crossing.Transaction != nil && (t == nil || s.crossing.Transaction.Time < t.Time) {
		t = s.crossing.Transaction
	}
	return t
}
