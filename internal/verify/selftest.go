package verify

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// A check that finds nothing wrong looks the same as one that looks at nothing. So each verification plants a
// corruption, in memory and chosen by its seed, in something that it has just found sound, and sends it through the very
// code that found it so (invariant 8). If that does not find it, what it passed is not known to be sound.

// probe is a ladder of its own for a planted corruption: what it notes is of no backup.
func (l *ladder) probe(r *repo.Repository) *ladder {
	p := &ladder{BackupOptions: l.BackupOptions, bad: map[string][]Problem{}}
	p.Repo = r
	return p
}

// random draws for the self-test of one level: the same for all attempts of a run.
func (l *ladder) random(level int) *rand.Rand { return rand.New(rand.NewPCG(l.Seed, uint64(level))) }

// proveLoss tells whether level 0 misses a pack that is not there.
func (l *ladder) proveLoss(ctx context.Context, uses []repo.PackUse) error {
	u, ok := soundOne(l, 0, uses, func(u repo.PackUse) string { return u.Key(l.Cluster) })
	if !ok {
		return nil
	}
	spoiled, err := l.Repo.Without(u.Key(l.Cluster))
	return l.prove(ctx, 0, u.Key(l.Cluster), spoiled, err, func(ctx context.Context, p *ladder) error { return p.size(ctx, u) })
}

// proveContent tells whether level 1 finds a flipped bit in one of the packs that it has read.
func (l *ladder) proveContent(ctx context.Context, uses []repo.PackUse) error {
	u, ok := soundOne(l, 1, uses, func(u repo.PackUse) string { return u.Key(l.Cluster) })
	if !ok {
		return nil
	}
	key := u.Key(l.Cluster)
	spoiled, err := l.Repo.Planted(ctx, key, l.random(10).Uint64())
	return l.prove(ctx, 1, key, spoiled, err, func(ctx context.Context, p *ladder) error {
		return p.content(ctx, repo.ObjectInfo{Key: key, Size: u.End})
	})
}

// proveWAL tells whether level 2 finds a flipped bit in one of the segments that it has read.
func (l *ladder) proveWAL(ctx context.Context, s *scanned) error {
	if s == nil {
		return nil
	}
	key := repo.WALKey(l.Cluster, s.name)
	spoiled, err := l.Repo.Planted(ctx, key, l.random(20).Uint64())
	return l.prove(ctx, 2, key, spoiled, err, func(ctx context.Context, p *ladder) error {
		return p.scan(ctx, &scanned{name: s.name, inv: s.inv})
	})
}

// provePage tells whether level 3 finds a flipped bit in a page that it has found sound. The checksum has 16 bits: of
// three flips that it misses, it misses all by chance once in 10^14 runs.
func (l *ladder) provePage(s *subject, sound *soundPage) {
	if sound == nil {
		return
	}
	random := l.random(3)
	m := s.snap.Manifest
	for range 3 {
		page := bytes.Clone(sound.page)
		const body = 24 // behind the header, whose LSN decides whose business the page is
		page[body+random.IntN(pg.BlockSize-body)] ^= 1 << random.IntN(8)
		if checkPage(page, sound.block, m.StartLSN, m.StopLSN) != "" {
			l.Logger.Debug("a planted corruption was found", "cluster", l.Cluster, "level", 3, "file", sound.file, "block", sound.block)
			return
		}
	}
	s.add(blind(3, fmt.Sprintf("block %d of %s", sound.block, sound.file)))
}

// prove sends a spoiled repository through a check, which must note a failure of the object.
func (l *ladder) prove(ctx context.Context, level int, key string, spoiled *repo.Repository, err error, check func(context.Context, *ladder) error) error {
	var p *ladder
	if err == nil {
		p = l.probe(spoiled)
		err = check(ctx, p)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	problem := blind(level, key)
	if err == nil {
		for _, found := range p.bad[key] {
			if found.Outcome == Failed {
				l.Logger.Debug("a planted corruption was found", "cluster", l.Cluster, "level", level, "object", key, "as", found.Text)
				return nil
			}
			err = fmt.Errorf("%s", found.Text) // as by a store that fails just now
		}
	}
	if err != nil {
		problem.Text = fmt.Sprintf("the check could not be tried on a corruption planted in %s: %v", key, err)
	}
	for _, s := range l.subjects {
		s.add(problem)
	}
	return nil
}

// blind is the problem of a check that misses what was planted.
func blind(level int, place string) Problem {
	return Problem{
		Level: level, Outcome: Unable, Block: -1,
		Text: fmt.Sprintf("the check did not find a planted corruption of %s: what it passed is not known to be sound", place),
	}
}

// soundOne draws one of the items in which nothing was found.
func soundOne[T any](l *ladder, level int, items []T, key func(T) string) (item T, ok bool) {
	if len(items) == 0 {
		return item, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.random(level).IntN(len(items))
	for i := range items {
		item = items[(first+i)%len(items)]
		if len(l.bad[key(item)]) == 0 {
			return item, true
		}
	}
	return item, false
}

// soundPage is a page whose checksum was compared and matched.
type soundPage struct {
	page  []byte
	file  string
	block uint32
}
