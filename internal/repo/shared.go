package repo

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// sharedPacks guards what a backup shares with others (R11, dedup must not spread rot): a chunk or node is named again
// only if a listing shows its pack, and shows it long enough; and before the backup may become visible a second listing
// must show each pack that was named. Nothing is read, so rot inside a pack is not found: verification finds that.
//
// It takes 16 bytes a pack, 1 MB for 1 TB stored. A pack is known by the first 8 of its 32 random bytes.
type sharedPacks struct {
	repo       *Repository
	cluster    string
	data, tree packList
}

// packList is a listing of one kind of packs, ascending.
type packList struct {
	prefix string
	ids    []uint64
	sizes  []uint32        // of the objects in bytes
	needed []atomic.Uint32 // how far into each the backup refers; 0: not at all
}

// listShared lists the packs that are there now.
func (r *Repository) listShared(ctx context.Context, cluster string) (*sharedPacks, error) {
	s := &sharedPacks{repo: r, cluster: cluster}
	s.data.prefix, s.tree.prefix = clusterPrefix(cluster)+"data/", clusterPrefix(cluster)+"tree/"
	for _, l := range []*packList{&s.data, &s.tree} {
		err := r.eachPack(ctx, l.prefix, func(id uint64, size uint32) {
			l.ids, l.sizes = append(l.ids, id), append(l.sizes, size)
		})
		if err != nil {
			return nil, err
		}
		l.needed = make([]atomic.Uint32, len(l.ids))
	}
	return s, nil
}

// eachPack gives the packs below a prefix, ascending: a key ends with the pack's name.
func (r *Repository) eachPack(ctx context.Context, prefix string, give func(id uint64, size uint32)) error {
	for info, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		var id PackID
		if id.UnmarshalText([]byte(info.Key[strings.LastIndexByte(info.Key, '/')+1:])) != nil {
			continue // no pack of ours has such a name
		}
		give(id.short(), uint32(min(info.Size, 1<<32-1)))
	}
	return nil
}

// short is what a sharedPacks knows a pack by. It sorts as the names of packs do.
func (id PackID) short() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// use tells whether the backup may name ref, and remembers that it does. A nil s shares nothing.
func (s *sharedPacks) use(kind Kind, ref *Ref) bool {
	if s == nil {
		return false
	}
	l := &s.data
	if kind == KindTree {
		l = &s.tree
	}
	i, ok := slices.BinarySearch(l.ids, ref.Pack.short())
	end := uint64(ref.Offset) + uint64(ref.Stored)
	if !ok || uint64(l.sizes[i]) <= end {
		return false
	}
	for {
		old := l.needed[i].Load()
		if uint64(old) >= end || l.needed[i].CompareAndSwap(old, uint32(end)) {
			return true
		}
	}
}

// recheck fails if a pack that was named is not there any more. A new attempt stores anew what was in it.
func (s *sharedPacks) recheck(ctx context.Context) error {
	if s == nil {
		return nil
	}
	for _, l := range []*packList{&s.data, &s.tree} {
		at, lost := 0, -1
		pass := func(until uint64) { // packs before it that this listing did not show
			for ; at < len(l.ids) && l.ids[at] < until; at++ {
				if l.needed[at].Load() > 0 && lost < 0 {
					lost = at
				}
			}
		}
		err := s.repo.eachPack(ctx, l.prefix, func(id uint64, size uint32) {
			pass(id)
			if at < len(l.ids) && l.ids[at] == id {
				if size > l.needed[at].Load() {
					at++ // else it counts as lost
				}
			}
		})
		if err != nil {
			return fmt.Errorf("look for the packs that the backup shares with earlier ones: %w", err)
		}
		pass(1<<64 - 1)
		if lost >= 0 {
			return fmt.Errorf("the pack %s%02x/%016x…, which the backup shares with an earlier one, was deleted or cut while the backup was taken, "+
				"so it was not published: take it again, and what is lost is stored anew", l.prefix, l.ids[lost]>>56, l.ids[lost])
		}
	}
	return nil
}
