package verify

import (
	"context"
	"errors"
	"slices"
	"strings"

	"lifeboat/internal/repo"
)

// objects runs levels 0 and 1. Level 0 walks the tree of each backup and looks whether each pack that it names is there
// and long enough. Level 1 reads each object once, whole, whoever shares it.
func (l *ladder) objects(ctx context.Context) error {
	l.meter.begin("objects", 0)
	uses, err := l.packs(ctx)
	if err != nil {
		return err
	}
	if err := parallel(ctx, l.Workers, each(uses), l.size); err != nil {
		return err
	}
	if err := l.proveLoss(ctx, uses); err != nil {
		return err
	}
	if l.Level >= 1 {
		if err := l.contents(ctx, uses); err != nil {
			return err
		}
	}
	return l.assign(ctx)
}

// size looks whether a pack is there, and long enough.
func (l *ladder) size(ctx context.Context, u repo.PackUse) error {
	if err := l.Repo.CheckSize(ctx, l.Cluster, u); err != nil {
		return l.noteError(ctx, 0, u.Key(l.Cluster), err)
	}
	return nil
}

// packs lists the packs that the backups need, each once, sorted by key so that a store reads in its own order.
func (l *ladder) packs(ctx context.Context) ([]repo.PackUse, error) {
	type pack struct {
		kind repo.Kind
		id   repo.PackID
	}
	ends := map[pack]int64{}
	for _, s := range l.subjects {
		if s.snap == nil {
			continue
		}
		list, err := s.snap.Packs(ctx, func(err error) error {
			if !errors.Is(err, repo.ErrNotFound) { // what is missing is found by its size
				s.add(problemOf(0, "", err))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, u := range list {
			p := pack{u.Kind, u.Pack}
			ends[p] = max(ends[p], u.End)
		}
	}
	uses := make([]repo.PackUse, 0, len(ends))
	for p, end := range ends {
		uses = append(uses, repo.PackUse{Kind: p.kind, Pack: p.id, End: end})
	}
	slices.SortFunc(uses, func(a, b repo.PackUse) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return slices.Compare(a.Pack[:], b.Pack[:])
	})
	return uses, nil
}

// contents is level 1: of one backup its packs, its manifest and the cluster's identity; of all the whole listing. WAL is
// read by level 2, or here if that is not asked for.
func (l *ladder) contents(ctx context.Context, uses []repo.PackUse) error {
	var total int64
	for _, u := range uses {
		total += u.End
	}
	l.meter.begin("objects", total)
	items := func(yield func(repo.ObjectInfo) error) error {
		fixed := []repo.ObjectInfo{{Key: repo.IdentityKey(l.Cluster)}, {Key: repo.BackupKey(l.Cluster, l.BackupID)}}
		if err := each(fixed)(yield); err != nil {
			return err
		}
		return each(uses)(func(u repo.PackUse) error { return yield(repo.ObjectInfo{Key: u.Key(l.Cluster), Size: u.End}) })
	}
	if l.all {
		items = l.listing(ctx)
	}
	if err := parallel(ctx, l.Workers, items, l.content); err != nil {
		return err
	}
	l.suspectHeader()
	return l.proveContent(ctx, uses)
}

// content reads one object whole.
func (l *ladder) content(ctx context.Context, o repo.ObjectInfo) error {
	defer l.meter.add(o.Size)
	_, err := l.Repo.CheckObject(ctx, o.Key)
	switch {
	case err == nil:
		l.sound.Add(1)
		return nil
	case errors.Is(err, repo.ErrNotFound) && o.Key != repo.IdentityKey(l.Cluster):
		return nil // level 0 looks for what must be there; other objects may go at any time
	case repo.IsDamage(err):
		l.damaged.Add(1)
	}
	return l.noteError(ctx, 1, o.Key, err)
}

// suspectHeader names the object that all have in common, if not one was sound: a header of another repository has other
// keys, and is well-formed.
func (l *ladder) suspectHeader() {
	if l.sound.Load() > 0 || l.damaged.Load() < 2 {
		return
	}
	p := Problem{Level: 1, Outcome: Failed, Object: repo.HeaderKey, Block: -1, Text: "no object of the cluster matches it: it may belong to another repository"}
	for _, s := range l.subjects {
		s.add(p)
	}
	if len(l.subjects) == 0 {
		l.rest.add(p)
	}
}

// listing gives every object of the cluster.
func (l *ladder) listing(ctx context.Context) func(func(repo.ObjectInfo) error) error {
	wal := repo.WALKey(l.Cluster, "")
	wal = wal[:strings.Index(wal, "/wal/")+len("/wal/")]
	return func(yield func(repo.ObjectInfo) error) error {
		identity := false
		for o, err := range l.Repo.Objects(ctx, l.Cluster) {
			if err != nil {
				return err
			}
			identity = identity || o.Key == repo.IdentityKey(l.Cluster)
			if l.Level >= 2 && strings.HasPrefix(o.Key, wal) {
				continue
			}
			if err := yield(o); err != nil {
				return err
			}
		}
		if !identity && len(l.subjects) > 0 {
			return yield(repo.ObjectInfo{Key: repo.IdentityKey(l.Cluster)})
		}
		return nil
	}
}

func (l *ladder) noteError(ctx context.Context, level int, key string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return l.note(problemOf(level, key, err))
}

// assign gives the problems of objects to the backups that need them. Only if there are any is a tree walked again: which
// backup needs which pack is not kept, since there may be millions.
func (l *ladder) assign(ctx context.Context) error {
	owned := map[string]bool{}
	for _, s := range l.subjects {
		if len(l.bad) > 0 {
			if err := l.assignTo(ctx, s, owned); err != nil {
				return err
			}
		}
		if l.omitted > 0 {
			s.Omitted += l.omitted
			s.Levels[min(l.Level, 1)] = Failed
		}
		if s.snap == nil {
			continue
		}
		for level := range min(l.Level, 1) + 1 {
			s.passed(level)
		}
	}
	for key, list := range l.bad {
		if owned[key] {
			continue
		}
		for _, p := range list {
			l.rest.add(p)
		}
	}
	clear(l.bad)
	l.omitted = 0
	return nil
}

func (l *ladder) assignTo(ctx context.Context, s *subject, owned map[string]bool) error {
	keys := []string{repo.IdentityKey(l.Cluster), repo.BackupKey(l.Cluster, s.BackupID)}
	if s.snap != nil {
		list, err := s.snap.Packs(ctx, func(error) error { return nil })
		if err != nil {
			return err
		}
		for _, u := range list {
			if key := u.Key(l.Cluster); l.bad[key] != nil {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys[2:])
	for _, key := range keys {
		for _, p := range l.bad[key] {
			owned[key] = true
			s.add(p)
		}
	}
	return nil
}
