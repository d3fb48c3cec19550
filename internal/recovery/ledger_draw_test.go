package recovery_test

import (
	"context"
	"math/rand/v2"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/recovery"
)

func oneOf(ctx context.Context, conn *dbcore.Conn, sql string) (string, error) {
	return dbcore.One[string](ctx, conn, sql)
}

// truths are the histories of timelines 1 and 2.
type truths map[pg.Timeline]*truth

// on is the history of a timeline; 0 is the default, the newest.
func (ts truths) on(tli pg.Timeline) *truth {
	if tli == 0 {
		tli = 2
	}
	return ts[tli]
}

// expect tells what must come of an entry: the number of records that are replayed, the one that decides, and the
// backup; or why it must be refused.
func (ts truths) expect(e *entry) (end int, at dumped, backup int, why string) {
	if ts.ambiguous(e) {
		return 0, dumped{}, 0, "ambiguous"
	}
	tr := ts.on(e.timeline)
	for backup = 1; backup >= 0; backup-- {
		if e.backup >= 0 && e.backup != backup {
			continue
		}
		if end, at, ok := tr.reaches(backup, e.target); ok {
			return end, at, backup, ""
		}
	}
	return 0, dumped{}, 0, "not reachable"
}

// ambiguous: with no timeline named, what both branches have of their own; a restore point of which replay could come
// upon two.
func (ts truths) ambiguous(e *entry) bool {
	fork := ts[1].life.fork
	theirs, ours := ts[1].from(fork), ts[2].from(fork)
	if e.target.Kind == recovery.Name {
		points := 0
		for _, r := range ts.on(e.timeline).from(ts[1].life.backups[max(e.backup, 0)].StartLSN) {
			if r.point == e.target.Value {
				points++
			}
		}
		return points > 1
	}
	if e.timeline != 0 {
		return false
	}
	switch e.target.Kind {
	case recovery.LSN:
		lsn, _ := pg.ParseLSN(e.target.Value)
		return (lsn > fork || lsn == fork && !e.target.Exclusive) && theirs[len(theirs)-1].lsn >= lsn
	case recovery.Time:
		at, _ := time.Parse(time.RFC3339Nano, e.target.Value)
		first, last := span(theirs)
		begin, _ := span(ours)
		if begin.Before(first) {
			first = begin
		}
		return !at.Before(first) && !at.After(last)
	}
	return false
}

// span is from the earliest to the latest end of a transaction.
func span(records []dumped) (first, last time.Time) {
	for _, r := range records {
		if r.ends && (first.IsZero() || r.at.Before(first)) {
			first = r.at
		}
		if r.ends && r.at.After(last) {
			last = r.at
		}
	}
	return first, last
}

// from gives the records at or after a position.
func (tr *truth) from(lsn pg.LSN) []dumped {
	for i, r := range tr.records {
		if r.lsn >= lsn {
			return tr.records[i:]
		}
	}
	return nil
}

// ends are the ends of transactions that the first backup of the history does not contain.
func (tr *truth) ends() []dumped {
	var out []dumped
	for _, r := range tr.from(tr.life.backups[0].StopLSN) {
		if r.ends {
			out = append(out, r)
		}
	}
	return out
}

// overtaken are those that ended before another one whose record comes earlier (R19).
func (tr *truth) overtaken() []dumped {
	var out []dumped
	var newest time.Time
	for _, r := range tr.ends() {
		if r.at.Before(newest) && !r.abort && r.xid != 0 {
			out = append(out, r)
		}
		if r.at.After(newest) {
			newest = r.at
		}
	}
	return out
}

// draw makes the i-th entry: the kinds take turns, all else is drawn.
func (ts truths) draw(rng *rand.Rand, i int) *entry {
	e := &entry{backup: rng.IntN(3) - 1, action: []recovery.Action{recovery.Pause, recovery.Promote}[rng.IntN(2)]}
	e.timeline = pg.Timeline(1 + rng.IntN(2))
	tr := ts[e.timeline]
	if e.timeline == 1 {
		e.backup = min(e.backup, 0) // the second is not on timeline 1
	}
	ends := tr.ends()
	commit := ends[rng.IntN(len(ends)-1)] // the last is behind every time that can be reached
	if own := tr.from(max(tr.life.fork, tr.life.backups[tr.timeline-1].StopLSN)); e.backup == 1 {
		if commit = own[rng.IntN(len(own)-1)]; !commit.ends {
			commit.at = tr.before(commit.lsn)
		}
	}
	lsn := func(p pg.LSN, exclusive bool) recovery.Target {
		return recovery.Target{Kind: recovery.LSN, Value: p.String(), Exclusive: exclusive}
	}
	some := tr.from(commit.lsn)
	record := some[rng.IntN(min(len(some)-1, 50))] // of any kind
	switch i % ledgerSize {
	case 0, 1, 2: // between two commits
		e.target = targetTime(commit.at.Add(time.Duration(1+rng.IntN(2000))*time.Microsecond), i%2 == 1)
	case 3, 4:
		e.target = targetTime(commit.at, false)
	case 5, 6:
		e.target = targetTime(commit.at, true)
	case 7, 8, 9: // at commits that were overtaken: where times are not in order, if there is such a place
		if late := tr.overtaken(); len(late) > 0 {
			commit = late[rng.IntN(len(late))]
			e.advised = i%2 == 0
		}
		e.target = targetTime(commit.at, i%2 == 1)
		e.backup = 0
	case 10, 11:
		e.target = lsn(record.lsn, i%2 == 1)
	case 12, 13: // within a record
		e.target = lsn(record.lsn+1+pg.LSN(rng.IntN(40)), i%2 == 1)
	case 14:
		e.target = recovery.Target{Kind: recovery.Name, Value: "shared point"}
		e.backup = min(e.backup, 0)
	case 15:
		e.target = recovery.Target{Kind: recovery.Name, Value: []string{"old point", "new point"}[e.timeline-1]}
	case 16:
		e.target = recovery.Target{Kind: recovery.Name, Value: "twice"}
	case 17:
		e.target = recovery.Target{Kind: recovery.Immediate}
	case 18:
		e.target = recovery.Target{Kind: recovery.Latest}
	case 19: // whatever timeline is the default
		e.timeline, e.target = 0, []recovery.Target{targetTime(commit.at, false), lsn(record.lsn, false), {}}[rng.IntN(3)]
	}
	return e
}

// late are the commits behind the first n records that a time target includes (R19).
func (tr *truth) late(target recovery.Target, n int) (out []dumped) {
	when, _ := time.Parse(time.RFC3339Nano, target.Value)
	for _, r := range tr.records[n:] {
		if r.ends && !r.abort && r.xid != 0 && (r.at.Before(when) || r.at.Equal(when) && !target.Exclusive) {
			out = append(out, r)
		}
	}
	return out
}

// before is the time of the last end of a transaction before a position.
func (tr *truth) before(lsn pg.LSN) (at time.Time) {
	for _, r := range tr.records {
		if r.lsn < lsn && r.ends {
			at = r.at
		}
	}
	return at
}
