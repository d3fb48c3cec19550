package repo

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/blob"
)

// Baseline offers content that the repository holds already, by place: a writer compares what it reads with what the
// baseline has at the same place of the same file, and stores only what differs. Nothing is ever taken from a
// baseline without comparing hashes (R8 allows exceptions; this package makes none).
type Baseline interface {
	// Lookup finds the entry of a path; false if there is none.
	Lookup(ctx context.Context, path string) (Entry, bool, error)
}

// leafCursor walks the leaves of a baseline's file in file order.
type leafCursor struct {
	snapshot reader
	tree     fileTree
	leaves   []child // of the tree, remaining
	offset   int64   // of the first remaining extent in the file
	extents  []Extent
}

// openCursor begins at the start of e; a nil cursor has nothing.
func openCursor(ctx context.Context, rd reader, e *Entry) (*leafCursor, error) {
	c := &leafCursor{snapshot: rd}
	switch e.root.form {
	case rootChunk:
		c.extents = []Extent{{Chunk: e.root.ref, Length: e.root.ref.Raw}}
	case rootNode:
		var err error
		if c.tree, err = rd.fileTree(ctx, e); err != nil {
			return nil, err
		}
		c.leaves = c.tree.leaves
	}
	return c, nil
}

// at returns the whole chunk that the baseline has at [offset, offset+length), if it has exactly that. Offsets must
// ascend from call to call.
func (c *leafCursor) at(ctx context.Context, offset int64, length int) (*Chunk, error) {
	for {
		if len(c.extents) == 0 {
			if len(c.leaves) == 0 {
				return nil, nil
			}
			l, err := c.snapshot.leaf(ctx, c.leaves[0].Ref)
			if err != nil {
				return nil, err
			}
			c.extents, c.leaves = l.list(), c.leaves[1:]
			continue
		}
		e := c.extents[0]
		if c.offset > offset {
			return nil, nil
		}
		if c.offset == offset && e.ChunkOffset == 0 && e.Length == e.Chunk.Raw && int(e.Length) == length {
			return &e.Chunk, nil
		}
		if c.offset+int64(e.Length) > offset {
			return nil, nil
		}
		c.offset += int64(e.Length)
		c.extents = c.extents[1:]
	}
}

// baselines asks several in turn.
type baselines []Baseline

func (bs baselines) cursor(ctx context.Context, rd reader, path string) (*leafCursor, error) {
	for _, b := range bs {
		e, ok, err := b.Lookup(ctx, path)
		if err == nil && (!ok || e.Type != TypeFile) {
			continue
		}
		var c *leafCursor
		if err == nil {
			c, err = openCursor(ctx, rd, &e)
		}
		if unusable(err) {
			continue // a baseline only saves work: what it cannot give is stored anew
		}
		if err != nil {
			return nil, fmt.Errorf("look up %s in an earlier backup: %w", path, err)
		}
		return c, nil
	}
	return nil, nil
}

// unusable tells whether err says that a baseline's own objects are gone or damaged.
func unusable(err error) bool { return IsDamage(err) || errors.Is(err, blob.ErrNotFound) }
