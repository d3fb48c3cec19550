package repo

import (
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression names how chunks and WAL are compressed. The zero value is Zstd. Each frame records its own codec, so a
// repository may hold all of them.
type Compression string

// The compressions that the configuration offers.
const (
	Zstd          Compression = "zstd" // level 1: about 0.3 GB/s a core on mixed data, 3 to 4 times smaller
	S2            Compression = "s2"   // about 0.7 GB/s a core, 2.4 times smaller
	NoCompression Compression = "none"
)

const (
	codecNone = 0
	codecZstd = 1
	codecS2   = 2
)

// ParseCompression reads a configuration value; the empty string is Zstd.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case "":
		return Zstd, nil
	case Zstd, S2, NoCompression:
		return c, nil
	}
	return "", fmt.Errorf("unknown compression %q: use zstd, s2 or none", s)
}

// compressor is one worker's compressor. It is not safe for concurrent use.
type compressor struct {
	how  Compression
	zstd *zstd.Encoder
	buf  []byte
}

// newCompressor makes a compressor for pieces of up to most bytes: a larger zstd window would only cost memory, of which
// there is one for each worker (0.7 MiB for chunks of 128 KiB, 1.6 MiB for frames of 1 MiB).
func newCompressor(how Compression, most int) (*compressor, error) {
	c := &compressor{how: how}
	if how == Zstd || how == "" {
		window := 1 << bits.Len(uint(min(max(most, zstd.MinWindowSize), frameSize)-1))
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("start zstd: %w", err)
		}
		c.zstd = enc
	}
	return c, nil
}

// payload returns codec byte and data; it is valid until the next call. What does not shrink is stored as it is.
func (c *compressor) payload(raw []byte) []byte {
	switch {
	case c.zstd != nil:
		c.buf = c.zstd.EncodeAll(raw, append(c.buf[:0], codecZstd))
	case c.how == S2:
		if need := 1 + s2.MaxEncodedLen(len(raw)); cap(c.buf) < need {
			c.buf = make([]byte, need)
		}
		c.buf = c.buf[:cap(c.buf)]
		c.buf[0] = codecS2
		c.buf = c.buf[:1+len(s2.Encode(c.buf[1:], raw))]
	default:
		c.buf = c.buf[:0]
	}
	if len(c.buf) == 0 || len(c.buf) > len(raw) {
		c.buf = append(append(c.buf[:0], codecNone), raw...)
	}
	return c.buf
}

// decodeSlack is room behind the plain bytes that lets the zstd decoder copy in whole words to the end.
const decodeSlack = 16

// decompress appends the plain bytes of payload, which must be exactly raw of them, to dst[:0].
func (r *Repository) decompress(dst, payload []byte, raw int) ([]byte, error) {
	if len(payload) == 0 {
		return nil, fmt.Errorf("empty payload")
	}
	data := payload[1:]
	switch payload[0] {
	case codecNone:
		dst = append(dst[:0], data...)
	case codecZstd:
		var err error
		if cap(dst) < raw {
			dst = make([]byte, 0, raw+decodeSlack)
		}
		// The decoder never writes beyond the capacity of dst, whatever length the data claims.
		if dst, err = r.zstdDecoder.DecodeAll(data, dst[:0]); err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
	case codecS2:
		n, err := s2.DecodedLen(data)
		if err != nil || n != raw {
			return nil, fmt.Errorf("s2: decoded length %d, want %d", n, raw)
		}
		if cap(dst) < raw {
			dst = make([]byte, raw)
		}
		if dst, err = s2.Decode(dst[:cap(dst)], data); err != nil {
			return nil, fmt.Errorf("s2: %w", err)
		}
	default:
		return nil, fmt.Errorf("unknown codec %d", payload[0])
	}
	if len(dst) != raw {
		return nil, fmt.Errorf("decoded to %d bytes, want %d", len(dst), raw)
	}
	return dst, nil
}
