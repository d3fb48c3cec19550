package blobtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// pattern is a body of any size that needs no memory: its bytes follow from seed and offset. It may be read by many.
type pattern struct {
	seed uint64
	size int64
}

// ReadAt is io.ReaderAt.
func (p pattern) ReadAt(b []byte, offset int64) (int, error) {
	n := int(max(0, min(int64(len(b)), p.size-offset)))
	var word [8]byte
	for i := 0; i < n; {
		at := offset + int64(i)
		if at%8 == 0 && n-i >= 8 {
			binary.LittleEndian.PutUint64(b[i:], mix(p.seed+uint64(at/8)))
			i += 8
			continue
		}
		binary.LittleEndian.PutUint64(word[:], mix(p.seed+uint64(at/8)))
		i += copy(b[i:n], word[at%8:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood 2014).
func mix(z uint64) uint64 {
	z = (z + 0x9e3779b97f4a7c15)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// sameAs compares a stream with the pattern from offset on, to the end of the pattern.
func (p pattern) sameAs(r io.Reader, offset int64) error {
	got, expected := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, got)
		if rest := p.size - offset; int64(n) > rest {
			return fmt.Errorf("body goes on behind its end at %d", p.size)
		}
		_, _ = p.ReadAt(expected[:n], offset) // cannot fail within the size
		if !bytes.Equal(got[:n], expected[:n]) {
			return fmt.Errorf("body differs between %d and %d", offset, offset+int64(n))
		}
		offset += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if offset != p.size {
				return fmt.Errorf("body ends at %d of %d bytes", offset, p.size)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sealed returns a body of size bytes, at least 8, that tells whether it is whole: a checksum of all that follows.
func sealed(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = pattern{seed, int64(size)}.ReadAt(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(size))
	binary.LittleEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:]))
	return b
}

// whole checks a body made by sealed.
func whole(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("%d bytes are no body", len(b))
	}
	if size := int(binary.LittleEndian.Uint32(b)); size != len(b) {
		return fmt.Errorf("body has %d of %d bytes", len(b), size)
	}
	if binary.LittleEndian.Uint32(b[4:]) != crc32.ChecksumIEEE(b[8:]) {
		return fmt.Errorf("body of %d bytes is a mixture", len(b))
	}
	return nil
}

// hooked is a body that calls before ahead of each read that touches or passes the place at. An error ends the read
// at that place.
type hooked struct {
	io.ReaderAt
	at     int64
	before func() error
}

// ReadAt is io.ReaderAt.
func (h hooked) ReadAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) <= h.at {
		return h.ReaderAt.ReadAt(b, offset)
	}
	err := h.before()
	if err == nil {
		return h.ReaderAt.ReadAt(b, offset)
	}
	if offset >= h.at {
		return 0, err
	}
	n, readErr := h.ReaderAt.ReadAt(b[:h.at-offset], offset)
	if readErr != nil {
		return n, readErr
	}
	return n, err
}
