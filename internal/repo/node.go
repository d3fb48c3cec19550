package repo

import (
	"encoding/binary"
	"fmt"
)

// Node encodings (docs/repository-format.md, section 5). Equal content and places encode equally, which is what lets
// two backups share a node.
const (
	nodeLeaf  = 1 // lists chunks
	nodeIndex = 2 // lists nodes of the level below
)

// Extent is a run of bytes of a file: Length bytes from ChunkOffset of the plain bytes of Chunk.
type Extent struct {
	Chunk       Chunk
	ChunkOffset uint32
	Length      uint32
}

// leaf is a list of extents, in file order, without holes.
type leaf struct {
	chunks  []Chunk
	extents []leafExtent // nil: every chunk whole, in order
}

type leafExtent struct {
	chunk          int
	offset, length uint32
}

func (l *leaf) encode() []byte {
	var packs packTable
	body := binary.AppendUvarint(nil, uint64(len(l.chunks)))
	for i := range l.chunks {
		body = appendRef(body, &l.chunks[i].Ref, &packs)
		body = binary.LittleEndian.AppendUint32(body, l.chunks[i].CRC)
	}
	body = binary.AppendUvarint(body, uint64(len(l.extents)))
	for _, e := range l.extents {
		body = binary.AppendUvarint(body, uint64(e.chunk))
		body = binary.AppendUvarint(body, uint64(e.offset))
		body = binary.AppendUvarint(body, uint64(e.length))
	}
	return append(packs.encode([]byte{nodeLeaf}), body...)
}

func decodeLeaf(b []byte) (*leaf, error) {
	c := &cursor{b: b}
	if kind := c.byte(); kind != nodeLeaf {
		return nil, fmt.Errorf("node of kind %d, want a leaf", kind)
	}
	packs := c.packTable()
	l := &leaf{chunks: make([]Chunk, c.count(minRefSize+4))}
	for i := range l.chunks {
		l.chunks[i] = Chunk{Ref: c.ref(packs), CRC: c.u32()}
	}
	if n := c.count(3); n > 0 {
		l.extents = make([]leafExtent, n)
		for i := range l.extents {
			e := leafExtent{chunk: int(c.small()), offset: c.small(), length: c.small()}
			if c.err == nil && (e.chunk >= len(l.chunks) ||
				uint64(e.offset)+uint64(e.length) > uint64(l.chunks[e.chunk].Raw)) {
				c.fail(fmt.Errorf("extent %d lies outside its chunk", i))
			}
			l.extents[i] = e
		}
	}
	return l, c.end()
}

// end tells the first error, or that bytes are left over.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) != 0 {
		c.err = fmt.Errorf("%d bytes are left over", len(c.b))
	}
	return c.err
}

// list gives the extents in file order.
func (l *leaf) list() []Extent {
	if l.extents == nil {
		out := make([]Extent, len(l.chunks))
		for i, ch := range l.chunks {
			out[i] = Extent{Chunk: ch, Length: ch.Raw}
		}
		return out
	}
	out := make([]Extent, len(l.extents))
	for i, e := range l.extents {
		out[i] = Extent{Chunk: l.chunks[e.chunk], ChunkOffset: e.offset, Length: e.length}
	}
	return out
}

// child is one entry of an index node: a node and how many bytes of the file it covers.
type child struct {
	Ref
	span uint64
}

func encodeIndex(level byte, children []child) []byte {
	var packs packTable
	body := binary.AppendUvarint(nil, uint64(len(children)))
	for i := range children {
		body = appendRef(body, &children[i].Ref, &packs)
		body = binary.AppendUvarint(body, children[i].span)
	}
	return append(packs.encode([]byte{nodeIndex, level}), body...)
}

func decodeIndex(b []byte, level byte) ([]child, error) {
	c := &cursor{b: b}
	if kind, got := c.byte(), c.byte(); c.err == nil && (kind != nodeIndex || got != level) {
		return nil, fmt.Errorf("node of kind %d, level %d, want an index of level %d", kind, got, level)
	}
	packs := c.packTable()
	children := make([]child, c.count(minRefSize+1))
	for i := range children {
		children[i] = child{Ref: c.ref(packs), span: c.uvarint()}
	}
	return children, c.end()
}
