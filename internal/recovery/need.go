package recovery

import (
	"context"
	"errors"

	"lifeboat/internal/pg"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// walkNeeded lists the needed WAL, raises settings to what it records, and refuses a tablespace that replay would
// create on this host, unless its path was given free (R1).
func (p *Plan) walkNeeded(ctx context.Context, path *walPath, mp *mapping) error {
	size := uint64(path.inv.SegmentSize)
	last := uint64(p.Stop.NeedTo-1) / size
	p.Need = neededFiles(path, last).String()
	p.WALSegments = int64(last - path.first + 1)
	p.WALBytes = p.WALSegments * int64(size)
	return path.each(ctx, func(s stretch) (bool, error) {
		if s.crossing != nil {
			if err := p.consider(s.crossing, mp); err != nil {
				return false, err
			}
		}
		return s.number >= last, path.considerAll(ctx, &s, func(ev *walrecord.Event) error { return p.consider(ev, mp) })
	})
}

// neededFiles are the files from the path's first segment to segment last.
func neededFiles(path *walPath, last uint64) wal.Need {
	var need wal.Need
	for n := path.first; n <= last; n++ {
		name := path.object(n)
		if i := len(need) - 1; i >= 0 && need[i].Last[:8] == name[:8] && !path.isPartial(n) {
			need[i].Last = name
		} else {
			need = append(need, wal.NeedRange{First: name, Last: name})
		}
	}
	return need
}

// considerAll gives the events of one segment that walkNeeded looks at. Facts list them; where the lists were cut, the
// records are read.
func (p *walPath) considerAll(ctx context.Context, s *stretch, visit func(*walrecord.Event) error) error {
	if s.facts.Cut {
		var bad error
		end := pg.LSN((s.number + 1) * uint64(p.inv.SegmentSize))
		err := p.scan(ctx, s.begin, func(rec *walrecord.Record, ev *walrecord.Event) bool {
			if rec.LSN < end {
				bad = visit(ev)
			}
			return bad != nil || rec.LSN >= end
		})
		return errors.Join(bad, err)
	}
	for i := range s.facts.ParameterChanges {
		c := &s.facts.ParameterChanges[i]
		if err := visit(&walrecord.Event{LSN: c.LSN, ParameterChange: c}); err != nil {
			return err
		}
	}
	for i := range s.facts.Tablespaces {
		t := &s.facts.Tablespaces[i]
		if err := visit(&walrecord.Event{LSN: t.LSN, Tablespace: t}); err != nil {
			return err
		}
	}
	return nil
}

// consider takes one replayed record into account.
func (p *Plan) consider(ev *walrecord.Event, mp *mapping) error {
	if ev.LSN < p.StartLSN || ev.LSN >= p.Stop.ReplayedTo {
		return nil
	}
	if c := ev.ParameterChange; c != nil {
		for name, v := range map[string]int32{
			"max_connections": c.MaxConnections, "max_worker_processes": c.MaxWorkerProcesses, "max_wal_senders": c.MaxWALSenders,
			"max_prepared_transactions": c.MaxPreparedXacts, "max_locks_per_transaction": c.MaxLocksPerXact,
		} {
			p.Settings[name] = max(p.Settings[name], v)
		}
	}
	if ev.Tablespace != nil {
		return p.created(ev.Tablespace, mp)
	}
	return nil
}
