package repo

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// reader reads frames of one cluster's packs.
type reader struct {
	repo    *Repository
	cluster string
}

// check verifies the sealed bytes of ref and returns the plain ones in dst's memory if it suffices.
func (rd reader) check(kind Kind, ref *Ref, sealed, dst []byte) ([]byte, error) {
	o := &object{kind: kind, key: packKey(rd.cluster, kind, ref.Pack), salt: ref.Pack}
	payload, err := rd.repo.openFrame(o, ref.Frame, false, sealed)
	if err != nil {
		return nil, err
	}
	plain, err := rd.repo.decompress(dst, payload, int(ref.Raw))
	if err != nil {
		return nil, &DamageError{Key: o.key, Frame: int(ref.Frame), Reason: err.Error()}
	}
	if rd.repo.name(plain) != ref.ID {
		return nil, &DamageError{Key: o.key, Frame: int(ref.Frame), Reason: "its content does not hash to " + ref.ID.String()}
	}
	return plain, nil
}

// frame reads one frame by one ranged read.
func (rd reader) frame(ctx context.Context, kind Kind, ref *Ref, dst []byte) ([]byte, error) {
	key := packKey(rd.cluster, kind, ref.Pack)
	sealed, err := rd.repo.readRange(ctx, key, int64(ref.Offset), int64(ref.Stored), nil)
	if err != nil {
		return nil, err
	}
	return rd.check(kind, ref, sealed, dst)
}

// tree reads a node or page, through the cache.
func (rd reader) tree(ctx context.Context, ref Ref) ([]byte, error) {
	if plain := rd.repo.frames.get(ref.ID); plain != nil {
		return plain, nil
	}
	plain, err := rd.frame(ctx, KindTree, &ref, nil)
	if err != nil {
		return nil, err
	}
	rd.repo.frames.put(ref.ID, plain)
	return plain, nil
}

func (rd reader) damagedTree(ref Ref, err error) error {
	return &DamageError{Key: packKey(rd.cluster, KindTree, ref.Pack), Frame: int(ref.Frame), Reason: err.Error()}
}

func (rd reader) leaf(ctx context.Context, ref Ref) (*leaf, error) {
	plain, err := rd.tree(ctx, ref)
	if err != nil {
		return nil, err
	}
	l, err := decodeLeaf(plain)
	if err != nil {
		return nil, rd.damagedTree(ref, err)
	}
	return l, nil
}

// fileTree is what stands above the chunks of a file whose root is a node.
type fileTree struct {
	leaves  []child    // in file order, with the bytes that each covers
	indexes map[ID]Ref // all index nodes; nil if the root is a leaf
}

// fileTree reads the index nodes of a file. It does not read its leaves.
func (rd reader) fileTree(ctx context.Context, e *Entry) (t fileTree, err error) {
	nodes := []child{{Ref: e.root.ref.Ref, span: uint64(e.Size)}}
	if e.root.level > 0 {
		t.indexes = make(map[ID]Ref)
	}
	for level := e.root.level; level > 0; level-- {
		var next []child
		for _, n := range nodes {
			t.indexes[n.ID] = n.Ref
			children, err := rd.index(ctx, n, level)
			if err != nil {
				return fileTree{}, err
			}
			next = append(next, children...)
		}
		nodes = next
	}
	t.leaves = nodes
	return t, nil
}

// index reads an index node. Its children must cover what it covers, none of them nothing: so a file has no more
// nodes than bytes, whatever is stored.
func (rd reader) index(ctx context.Context, n child, level byte) ([]child, error) {
	plain, err := rd.tree(ctx, n.Ref)
	if err != nil {
		return nil, err
	}
	children, err := decodeIndex(plain, level)
	if err != nil {
		return nil, rd.damagedTree(n.Ref, err)
	}
	left := n.span
	for _, c := range children {
		if c.span == 0 || c.span > left {
			return nil, rd.damagedTree(n.Ref, fmt.Errorf("its children do not cover %d bytes", n.span))
		}
		left -= c.span
	}
	if left != 0 {
		return nil, rd.damagedTree(n.Ref, fmt.Errorf("its children cover %d of %d bytes", n.span-left, n.span))
	}
	return children, nil
}

// frameCache keeps plain nodes and pages, least recently used first out, up to a number of bytes.
type frameCache struct {
	mu    sync.Mutex
	limit int
	size  int
	order *list.List // of *cached, newest in front
	byID  map[ID]*list.Element
}

type cached struct {
	id    ID
	plain []byte
}

func newFrameCache(limit int) *frameCache {
	return &frameCache{limit: limit, order: list.New(), byID: make(map[ID]*list.Element)}
}

func (c *frameCache) get(id ID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*cached).plain
}

func (c *frameCache) put(id ID, plain []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byID[id]; ok || len(plain) > c.limit/4 {
		return
	}
	c.byID[id] = c.order.PushFront(&cached{id, plain})
	for c.size += len(plain); c.size > c.limit; {
		last := c.order.Remove(c.order.Back()).(*cached)
		delete(c.byID, last.id)
		c.size -= len(last.plain)
	}
}
