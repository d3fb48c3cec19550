package repo

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync/atomic"
)

// runBaseline holds the entries of an attempt's checkpoints, in about 100 bytes each: pages stay encoded, as they were
// read, and an index tells by the hash of a path which page to decode.
type runBaseline struct {
	seed  maphash.Seed
	pages [][]byte
	index map[uint64]int32 // of a path's hash: number of the page; of two paths with one hash, one is not found
	last  atomic.Pointer[openPage]
}

// Lookup makes it a Baseline.
func (b *runBaseline) Lookup(_ context.Context, path string) (Entry, bool, error) {
	number, ok := b.index[maphash.String(b.seed, path)]
	if !ok {
		return Entry{}, false, nil
	}
	page := b.last.Load()
	if page == nil || page.number != int(number) {
		entries, err := decodePage(b.pages[number])
		if err != nil {
			return Entry{}, false, fmt.Errorf("look up %s in a checkpoint: %w", path, err)
		}
		page = &openPage{int(number), entries}
		b.last.Store(page)
	}
	i, ok := slices.BinarySearchFunc(page.entries, path, func(e Entry, path string) int { return cmp.Compare(e.Path, path) })
	if !ok {
		return Entry{}, false, nil
	}
	return page.entries[i], true, nil
}

// add takes in one checkpoint's content.
func (b *runBaseline) add(plain []byte) error {
	c := &cursor{b: plain}
	for len(c.b) > 0 && c.err == nil {
		page := c.bytes(c.count(1))
		entries, err := decodePage(page)
		if err != nil {
			return err
		}
		for i := range entries {
			b.index[maphash.String(b.seed, entries[i].Path)] = int32(len(b.pages))
		}
		b.pages = append(b.pages, page)
	}
	return c.end()
}

// maxRunEntries bounds the memory of a taken-over attempt to some 40 MB; files beyond it are stored again.
const maxRunEntries = 400_000

// ResumeBaseline loads the checkpoints of an attempt that did not finish. Its content is known to be durable; R6 still
// demands that everything is read and hashed again. Damaged checkpoints only save less.
func (r *Repository) ResumeBaseline(ctx context.Context, cluster, backupID string) (Baseline, error) {
	base := &runBaseline{seed: maphash.MakeSeed(), index: make(map[uint64]int32)}
	for info, err := range r.store.List(ctx, intentPrefix(cluster)+backupID+"/run-", "") {
		if err != nil {
			return nil, fmt.Errorf("list the checkpoints of backup %s: %w", backupID, err)
		}
		plain, err := r.readAll(ctx, KindRun, info.Key)
		if err == nil {
			if aerr := base.add(plain); aerr != nil {
				err = &DamageError{Key: info.Key, Frame: 0, Reason: aerr.Error()}
			}
		}
		if err != nil && !unusable(err) {
			return nil, err
		}
		if len(base.index) >= maxRunEntries {
			break
		}
	}
	return base, nil
}
