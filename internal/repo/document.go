package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDocument bounds what a document or manifest may hold in plain bytes; frameSize is how much of it a frame takes.
const (
	maxDocument = 256 << 20
	frameSize   = 1 << 20
)

// sealBytes lays plain bytes into one container, in frames of frameSize, each compressed.
func (r *Repository) sealBytes(kind Kind, key string, plain []byte, comp *compressor) []byte {
	var salt [32]byte
	_, _ = rand.Read(salt[:])
	b := r.newObject(kind, key, salt, make([]byte, 0, headerSize+len(plain)/2+256))
	for {
		n := min(len(plain), frameSize)
		piece := plain[:n]
		plain = plain[n:]
		word := binary.LittleEndian.AppendUint32(nil, uint32(n))
		b.append(append(word, comp.payload(piece)...), len(plain) == 0)
		if len(plain) == 0 {
			return b.buf
		}
	}
}

// frameReader reads the frames of one container in order. Each payload is 4 bytes of plain length and the encoded
// piece.
type frameReader struct {
	ctx    context.Context // of the read that open began
	repo   *Repository
	object *object
	in     io.ReadCloser
	at     int64 // bytes read so far
	frame  uint32
	done   bool
	failed error // what next returned first, and returns ever after: behind a damaged frame nothing is what it seems
	sealed []byte
}

func (r *Repository) openFrames(ctx context.Context, kind Kind, key string) (*frameReader, error) {
	in, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	f := &frameReader{ctx: ctx, repo: r, in: in}
	var head [headerSize]byte
	if err := f.full(head[:], key); err != nil {
		in.Close()
		return nil, err
	}
	if f.object, err = r.openHeader(kind, key, head[:]); err != nil {
		in.Close()
		return nil, err
	}
	return f, nil
}

func (f *frameReader) full(dst []byte, key string) error {
	n, err := io.ReadFull(f.in, dst)
	f.at += int64(n)
	if err != nil {
		return f.repo.readFailed(f.ctx, key, f.at-int64(n)+int64(len(dst)), err)
	}
	return nil
}

// end checks that nothing follows the last frame: an object with more bytes than were written is not what was written.
func (f *frameReader) end() error {
	n, err := io.ReadFull(f.in, make([]byte, 1))
	switch {
	case n > 0:
		return &DamageError{Key: f.object.key, Frame: int(f.frame), Reason: "bytes follow its last frame"}
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read %s: %w", f.object.key, err)
	}
	return nil
}

// next returns the next plain piece, in dst's memory if it suffices, and io.EOF after the last.
func (f *frameReader) next(dst []byte) ([]byte, error) {
	if f.done {
		return nil, io.EOF
	}
	if f.failed != nil {
		return nil, f.failed
	}
	plain, err := f.readFrame(dst)
	f.failed = err
	return plain, err
}

func (f *frameReader) readFrame(dst []byte) ([]byte, error) {
	key := f.object.key
	damaged := func(reason string) error { return &DamageError{Key: key, Frame: int(f.frame), Reason: reason} }
	var word [lengthSize]byte
	if err := f.full(word[:], key); err != nil {
		return nil, err
	}
	v := binary.LittleEndian.Uint32(word[:])
	last, n := v&lastFrameBit != 0, v&^lastFrameBit
	if n > maxFrame || n < tagSize {
		return nil, damaged(fmt.Sprintf("it claims %d bytes", n))
	}
	if cap(f.sealed) < int(n) {
		f.sealed = make([]byte, n)
	}
	f.sealed = f.sealed[:n]
	if err := f.full(f.sealed, key); err != nil {
		return nil, err
	}
	payload, err := f.repo.openFrame(f.object, f.frame, last, f.sealed)
	if err != nil {
		return nil, err
	}
	if len(payload) < 4 {
		return nil, damaged("its payload is too short")
	}
	raw := binary.LittleEndian.Uint32(payload)
	if raw > maxFrame {
		return nil, damaged(fmt.Sprintf("it claims %d plain bytes", raw))
	}
	plain, err := f.repo.decompress(dst, payload[4:], int(raw))
	if err != nil {
		return nil, damaged(err.Error())
	}
	if last {
		if err := f.end(); err != nil {
			return nil, err
		}
	}
	f.frame++
	f.done = last
	return plain, nil
}

func (f *frameReader) Close() error { return f.in.Close() }

// readAll reads a whole container's plain bytes.
func (r *Repository) readAll(ctx context.Context, kind Kind, key string) ([]byte, error) {
	f, err := r.openFrames(ctx, kind, key)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []byte
	for {
		piece, err := f.next(nil)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(out)+len(piece) > maxDocument {
			return nil, &DamageError{Key: key, Frame: int(f.frame), Reason: "it is longer than any document"}
		}
		out = append(out, piece...)
	}
}

func encodeJSON(key string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	if len(plain) > maxDocument {
		return nil, fmt.Errorf("encode %s: %d bytes are more than the limit of %d", key, len(plain), maxDocument)
	}
	return plain, nil
}

// sealJSON encodes v into a container.
func (r *Repository) sealJSON(kind Kind, key string, v any) ([]byte, error) {
	plain, err := encodeJSON(key, v)
	if err != nil {
		return nil, err
	}
	comp, err := newCompressor(Zstd, frameSize)
	if err != nil {
		return nil, err
	}
	return r.sealBytes(kind, key, plain, comp), nil
}

func (r *Repository) readJSON(ctx context.Context, kind Kind, key string, v any) error {
	plain, err := r.readAll(ctx, kind, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return &DamageError{Key: key, Frame: 0, Reason: "its JSON does not decode: " + err.Error()}
	}
	return nil
}

// PutDocument stores v as JSON under clusters/CLUSTER/NAME, replacing what was there. Names are chosen by engines
// (reports/…, verifications/…); the first part must not be one that this package uses.
func (r *Repository) PutDocument(ctx context.Context, cluster, name string, v any) error {
	if err := CheckName(cluster); err != nil {
		return err
	}
	if first, _, _ := strings.Cut(name, "/"); isReserved(first) {
		return fmt.Errorf("store document %s of cluster %s: %s is the repository's own", name, cluster, first)
	}
	key := clusterPrefix(cluster) + name
	sealed, err := r.sealJSON(KindDocument, key, v)
	if err != nil {
		return err
	}
	if err := r.store.Put(ctx, key, bytes.NewReader(sealed), int64(len(sealed))); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// GetDocument reads what PutDocument stored; the error wraps blob.ErrNotFound if there is none.
func (r *Repository) GetDocument(ctx context.Context, cluster, name string, v any) error {
	return r.readJSON(ctx, KindDocument, clusterPrefix(cluster)+name, v)
}

// ListDocuments lists the names of documents that begin with prefix, ascending.
func (r *Repository) ListDocuments(ctx context.Context, cluster, prefix string) ([]string, error) {
	var names []string
	base := clusterPrefix(cluster)
	for info, err := range r.store.List(ctx, base+prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s%s: %w", base, prefix, err)
		}
		names = append(names, info.Key[len(base):])
	}
	return names, nil
}
