package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

var errShort = errors.New("it ends too early")

// cursor reads the binary encodings of nodes, pages and pack indexes. After the first error all reads give zero
// values, so that decoders check err once at the end; no count makes it allocate more than its input is long.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.fail(errShort)
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail(badVarint(n))
		return 0
	}
	c.b = c.b[n:]
	return v
}

// badVarint tells the two failures of encoding/binary apart: 0 is too few bytes, below 0 too many bits.
func badVarint(n int) error {
	if n == 0 {
		return errShort
	}
	return errors.New("a number has more than 64 bits")
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.fail(badVarint(n))
		return 0
	}
	c.b = c.b[n:]
	return v
}

// small reads a number that must fit 32 bits.
func (c *cursor) small() uint32 {
	v := c.uvarint()
	if v > 1<<32-1 {
		c.fail(fmt.Errorf("number %d is out of range", v))
		return 0
	}
	return uint32(v)
}

// count reads how many items follow, each of at least size bytes; with size 0 the caller bounds it.
func (c *cursor) count(size int) int {
	v := c.uvarint()
	if size > 0 && v > uint64(len(c.b)/size) || v > math.MaxInt32 {
		c.fail(errShort)
		return 0
	}
	return int(v)
}

// packTable numbers the packs that a node or page names, so that each name stands in it once.
type packTable struct {
	ids   []PackID
	index map[PackID]uint64
}

func (t *packTable) add(id PackID) uint64 {
	if n, ok := t.index[id]; ok {
		return n
	}
	if t.index == nil {
		t.index = make(map[PackID]uint64)
	}
	n := uint64(len(t.ids))
	t.index[id] = n
	t.ids = append(t.ids, id)
	return n
}

func (t *packTable) encode(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(t.ids)))
	for _, id := range t.ids {
		out = append(out, id[:]...)
	}
	return out
}

func (c *cursor) packTable() []PackID {
	ids := make([]PackID, c.count(32))
	for i := range ids {
		copy(ids[i][:], c.bytes(32))
	}
	return ids
}

func appendRef(out []byte, r *Ref, packs *packTable) []byte {
	out = append(out, r.ID[:]...)
	out = binary.AppendUvarint(out, packs.add(r.Pack))
	out = binary.AppendUvarint(out, uint64(r.Frame))
	out = binary.AppendUvarint(out, uint64(r.Offset))
	out = binary.AppendUvarint(out, uint64(r.Stored))
	return binary.AppendUvarint(out, uint64(r.Raw))
}

// minRefSize is the least that an encoded Ref takes.
const minRefSize = 32 + 5

func (c *cursor) ref(packs []PackID) (r Ref) {
	copy(r.ID[:], c.bytes(32))
	if n := c.uvarint(); c.err == nil && n < uint64(len(packs)) {
		r.Pack = packs[n]
	} else {
		c.fail(fmt.Errorf("pack number %d of %d", n, len(packs)))
	}
	r.Frame, r.Offset, r.Stored, r.Raw = c.small(), c.small(), c.small(), c.small()
	if err := r.check(); c.err == nil && err != nil {
		c.fail(err)
	}
	return r
}

// check refuses sizes that no writer makes, so that a reader never reserves memory for them.
func (r *Ref) check() error {
	if r.Stored <= tagSize || r.Stored > maxFrame || r.Raw > maxFrame {
		return fmt.Errorf("frame of %d bytes, %d plain: the limits are %d to %d", r.Stored, r.Raw, tagSize+1, maxFrame)
	}
	return nil
}
