package repo

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// Sizes of the container that holds every object but the repository's header (docs/repository-format.md, section 3).
const (
	containerVersion = 1
	suitePlain       = 0 // integrity tags, no secrecy; suite 1 is reserved for AES-256-GCM with the same layout
	headerSize       = 64
	saltOffset       = 16
	headerTagOffset  = 48
	tagSize          = 16
	lengthSize       = 4
	lastFrameBit     = 1 << 31
	maxFrame         = 64 << 20 // of sealed bytes: bounds what a damaged length can make a reader allocate
)

var magic = [8]byte{'L', 'I', 'F', 'E', 'B', 'O', 'A', 'T'}

// DamageError says that stored bytes are not what was written: rot, truncation or tampering. Reading again from the
// same place may help if the store served a wrong reply; nothing else does.
type DamageError struct {
	Key    string // the object
	Frame  int    // the frame in it, -1 for the object's head
	Reason string
}

// Error names object, place and reason.
func (e *DamageError) Error() string {
	if e.Frame < 0 {
		return fmt.Sprintf("object %s is damaged: %s", e.Key, e.Reason)
	}
	return fmt.Sprintf("object %s is damaged at frame %d: %s", e.Key, e.Frame, e.Reason)
}

// IsDamage tells whether err says that stored bytes are wrong.
func IsDamage(err error) bool {
	var d *DamageError
	return errors.As(err, &d)
}

// object is what a frame's tag binds beside the payload: all but the frame's own number and last-frame flag.
type object struct {
	kind Kind
	key  string
	salt [32]byte
}

// tag computes the 16-byte tag of a frame (or, with frame = headFrame, of the header's first 48 bytes).
func (r *Repository) tag(o *object, frame uint64, last bool, payload []byte) (out [tagSize]byte) {
	h := r.tagHashers.Get().(*blake3.Hasher)
	h.Reset()
	var aad [8 + 3 + 1 + 32 + 32 + 8 + 2]byte
	copy(aad[:], magic[:])
	aad[8], aad[9], aad[10] = containerVersion, byte(o.kind), suitePlain
	if last {
		aad[11] = 1
	}
	copy(aad[12:], r.header.ID[:])
	copy(aad[44:], o.salt[:])
	binary.LittleEndian.PutUint64(aad[76:], frame)
	binary.LittleEndian.PutUint16(aad[84:], uint16(len(o.key)))
	_, _ = h.Write(aad[:])
	_, _ = h.WriteString(o.key)
	_, _ = h.Write(payload)
	var sum [32]byte
	h.Sum(sum[:0])
	r.tagHashers.Put(h)
	copy(out[:], sum[:])
	return out
}

// headFrame is the frame number that stands for the header in tags.
const headFrame = ^uint64(0)

// objectBuilder lays one container in memory: header, then frames.
type objectBuilder struct {
	repo   *Repository
	object object
	buf    []byte
	frames uint32
}

func (r *Repository) newObject(kind Kind, key string, salt [32]byte, buf []byte) *objectBuilder {
	b := &objectBuilder{repo: r, object: object{kind: kind, key: key, salt: salt}, buf: buf[:0]}
	var head [headerSize]byte
	copy(head[:], magic[:])
	head[8], head[9], head[10] = containerVersion, byte(kind), suitePlain
	copy(head[saltOffset:], salt[:])
	tag := r.tag(&b.object, headFrame, false, head[:headerTagOffset])
	copy(head[headerTagOffset:], tag[:])
	b.buf = append(b.buf, head[:]...)
	return b
}

// append adds one frame and returns its number and the place of its sealed bytes.
func (b *objectBuilder) append(payload []byte, last bool) (frame, offset, stored uint32) {
	n := uint32(len(payload) + tagSize)
	word := n
	if last {
		word |= lastFrameBit
	}
	b.buf = binary.LittleEndian.AppendUint32(b.buf, word)
	frame, offset = b.frames, uint32(len(b.buf))
	b.buf = append(b.buf, payload...)
	tag := b.repo.tag(&b.object, uint64(frame), last, payload)
	b.buf = append(b.buf, tag[:]...)
	b.frames++
	return frame, offset, n
}

// openHeader checks the first headerSize bytes of an object and returns what binds its frames.
func (r *Repository) openHeader(kind Kind, key string, head []byte) (*object, error) {
	damaged := func(reason string) error { return &DamageError{Key: key, Frame: -1, Reason: reason} }
	if len(head) < headerSize || [8]byte(head[:8]) != magic {
		return nil, damaged("it does not begin with a Lifeboat header")
	}
	o := &object{kind: kind, key: key, salt: [32]byte(head[saltOffset : saltOffset+32])}
	if head[8] != containerVersion || head[10] != suitePlain {
		// A tag that matches once these two bytes are mended proves that they rotted.
		mended := [headerSize]byte(head)
		mended[8], mended[10] = containerVersion, suitePlain
		if r.headerMatches(o, mended[:]) {
			return nil, damaged("its version or suite was changed")
		}
		return nil, fmt.Errorf("object %s has container version %d, suite %d; this program reads version %d, suite %d: "+
			"use the Lifeboat version that wrote it, or a newer one", key, head[8], head[10], containerVersion, suitePlain)
	}
	if Kind(head[9]) != kind {
		return nil, damaged(fmt.Sprintf("it says that it is a %v, not a %v", Kind(head[9]), kind))
	}
	if !r.headerMatches(o, head) {
		return nil, damaged("the tag of its header does not match")
	}
	return o, nil
}

func (r *Repository) headerMatches(o *object, head []byte) bool {
	tag := r.tag(o, headFrame, false, head[:headerTagOffset])
	return subtle.ConstantTimeCompare(tag[:], head[headerTagOffset:headerSize]) == 1
}

// openFrame checks sealed bytes and returns the payload, which shares their memory.
func (r *Repository) openFrame(o *object, frame uint32, last bool, sealed []byte) ([]byte, error) {
	if len(sealed) < tagSize {
		return nil, &DamageError{Key: o.key, Frame: int(frame), Reason: "it is shorter than its tag"}
	}
	payload := sealed[:len(sealed)-tagSize]
	tag := r.tag(o, uint64(frame), last, payload)
	if subtle.ConstantTimeCompare(tag[:], sealed[len(payload):]) != 1 {
		return nil, &DamageError{Key: o.key, Frame: int(frame), Reason: "its tag does not match"}
	}
	return payload, nil
}
