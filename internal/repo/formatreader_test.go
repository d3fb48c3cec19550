package repo_test

// A reader of repositories that was written from docs/repository-format.md alone. It shares no code with package repo,
// and must stay so: it is the proof that the document is complete. Section numbers are those of the document.

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"lifeboat/internal/blob"
)

const (
	docData, docTree, docManifest, docWAL, docDocument, docCheckpoint = 1, 2, 3, 4, 5, 6

	docLimit = 67108864
)

// docReader reads one repository.
type docReader struct {
	ctx       context.Context
	store     blob.Store
	id        []byte
	namingKey []byte
	tagKey    []byte
	gets      int         // requests so far
	codecs    map[int]int // how often each codec was seen
}

// openDoc reads the header (section 2).
func openDoc(ctx context.Context, store blob.Store) (*docReader, error) {
	data, err := blob.ReadAll(ctx, store, "lifeboat.json", 1<<20)
	if err != nil {
		return nil, err
	}
	var h struct {
		Format                                int
		ID, NamingKey, Check                  string
		ChunkSize, LeafSpan, FanOut, PackSize int
		CreatedAt                             string
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, err
	}
	if h.Format != 1 {
		return nil, fmt.Errorf("format %d", h.Format)
	}
	line := fmt.Sprintf("%d %s %s %d %d %d %d\n", h.Format, h.ID, h.NamingKey, h.ChunkSize, h.LeafSpan, h.FanOut, h.PackSize)
	if sum := blake3.Sum256([]byte(line)); h.Check != "" && h.Check != hex.EncodeToString(sum[:16]) {
		return nil, errors.New("check does not match")
	}
	r := &docReader{ctx: ctx, store: store, tagKey: make([]byte, 32), codecs: map[int]int{}}
	if r.id, err = hex.DecodeString(h.ID); err != nil {
		return nil, err
	}
	if r.namingKey, err = hex.DecodeString(h.NamingKey); err != nil {
		return nil, err
	}
	blake3.DeriveKey("Lifeboat repository format 1: frame tags", r.namingKey, r.tagKey)
	return r, nil
}

func keyedHash(key, data []byte) []byte {
	h, err := blake3.NewKeyed(key)
	if err != nil {
		panic(err)
	}
	_, _ = h.Write(data)
	return h.Sum(nil)
}

func (r *docReader) name(plain []byte) []byte { return keyedHash(r.namingKey, plain) }

// tag is the table of section 3.
func (r *docReader) tag(kind byte, key string, salt []byte, frame uint64, last bool, payload []byte) []byte {
	in := []byte("LIFEBOAT")
	in = append(in, 1, kind, 0, 0)
	if last {
		in[11] = 1
	}
	in = append(append(in, r.id...), salt...)
	in = binary.LittleEndian.AppendUint64(in, frame)
	in = binary.LittleEndian.AppendUint16(in, uint16(len(key)))
	in = append(append(in, key...), payload...)
	return keyedHash(r.tagKey, in)[:16]
}

// docFrame is one frame of an object, with its tag checked.
type docFrame struct {
	offset, stored int // of the sealed bytes
	payload        []byte
	last           bool
}

// object reads a whole container (section 3).
func (r *docReader) object(key string, kind byte) (salt []byte, frames []docFrame, err error) {
	b, err := blob.ReadAll(r.ctx, r.store, key, 1<<30)
	if err != nil {
		return nil, nil, err
	}
	if len(b) < 64 || string(b[:8]) != "LIFEBOAT" || b[8] != 1 || b[9] != kind || !bytes.Equal(b[10:16], make([]byte, 6)) {
		return nil, nil, fmt.Errorf("%s: header % x", key, b[:min(len(b), 16)])
	}
	salt = b[16:48]
	if !bytes.Equal(b[48:64], r.tag(kind, key, salt, 1<<64-1, false, b[:48])) {
		return nil, nil, fmt.Errorf("%s: tag of the header", key)
	}
	for at := 64; ; {
		if at+4 > len(b) {
			return nil, nil, fmt.Errorf("%s: no last frame", key)
		}
		word := binary.LittleEndian.Uint32(b[at:])
		n, last := int(word&0x7fffffff), word>>31 == 1
		at += 4
		if n < 16 || n > docLimit || at+n > len(b) {
			return nil, nil, fmt.Errorf("%s: frame of %d bytes", key, n)
		}
		f := docFrame{offset: at, stored: n, payload: b[at : at+n-16], last: last}
		if !bytes.Equal(b[at+n-16:at+n], r.tag(kind, key, salt, uint64(len(frames)), last, f.payload)) {
			return nil, nil, fmt.Errorf("%s: tag of frame %d", key, len(frames))
		}
		frames = append(frames, f)
		if at += n; last {
			if at != len(b) {
				return nil, nil, fmt.Errorf("%s: %d bytes behind the last frame", key, len(b)-at)
			}
			return salt, frames, nil
		}
	}
}

// decode turns codec byte and data into raw plain bytes (section 3).
func (r *docReader) decode(coded []byte, raw int) (plain []byte, err error) {
	if len(coded) == 0 {
		return nil, errors.New("no codec")
	}
	switch coded[0] {
	case 0:
		plain = coded[1:]
	case 1:
		dec, derr := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if derr != nil {
			return nil, derr
		}
		defer dec.Close()
		plain, err = dec.DecodeAll(coded[1:], nil)
	case 2:
		plain, err = s2.Decode(nil, coded[1:])
	default:
		err = fmt.Errorf("codec %d", coded[0])
	}
	if err == nil && len(plain) != raw {
		err = fmt.Errorf("%d plain bytes, not %d", len(plain), raw)
	}
	r.codecs[int(coded[0])]++
	return plain, err
}

// pieces decodes the frames of anything but a pack (section 3).
func (r *docReader) pieces(key string, kind byte) ([][]byte, error) {
	_, frames, err := r.object(key, kind)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for i, f := range frames {
		plain, err := r.decode(f.payload[4:], int(binary.LittleEndian.Uint32(f.payload)))
		if err != nil {
			return nil, fmt.Errorf("%s frame %d: %w", key, i, err)
		}
		out = append(out, plain)
	}
	return out, nil
}

func (r *docReader) content(key string, kind byte) ([]byte, error) {
	pieces, err := r.pieces(key, kind)
	return bytes.Join(pieces, nil), err
}

// pack checks a whole pack against its last frame (section 4).
func (r *docReader) pack(key string, kind byte) (frames int, err error) {
	salt, all, err := r.object(key, kind)
	if err != nil {
		return 0, err
	}
	if want := hex.EncodeToString(salt); !strings.HasSuffix(key, "/"+want[:2]+"/"+want) {
		return 0, fmt.Errorf("%s has salt %s", key, want)
	}
	index := all[len(all)-1].payload
	all = all[:len(all)-1]
	if index[0] != 0 || len(index) != 1+44*len(all) {
		return 0, fmt.Errorf("%s: %d bytes of index for %d frames", key, len(index), len(all))
	}
	for i, f := range all {
		e := index[1+44*i:]
		offset, stored, raw := binary.LittleEndian.Uint32(e[32:]), binary.LittleEndian.Uint32(e[36:]), binary.LittleEndian.Uint32(e[40:])
		plain, err := r.decode(f.payload, int(raw))
		if err != nil {
			return 0, fmt.Errorf("%s frame %d: %w", key, i, err)
		}
		if int(offset) != f.offset || int(stored) != f.stored || !bytes.Equal(e[:32], r.name(plain)) {
			return 0, fmt.Errorf("%s: index entry %d does not describe its frame", key, i)
		}
	}
	return len(all), nil
}
