package repo

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/zeebo/blake3"

	"lifeboat/internal/blob"
	"lifeboat/internal/pg"
)

// WALHeader is the first frame of a WAL object: what the object is and what its records say, so that plans need not
// read segments and never trust file times (R15).
type WALHeader struct {
	// Name is the file's name in pg_wal; kind and timeline follow from it.
	Name string `json:"name"`
	// SystemID and SegmentSize come from the segment's own first page; zero for history files, which have none.
	SystemID    pg.SystemID    `json:"systemIdentifier"`
	SegmentSize pg.SegmentSize `json:"segmentSize,omitempty"`
	// Length and Content are the plain length in bytes and the keyed hash of the plain bytes.
	Length  int64 `json:"length"`
	Content ID    `json:"content"`
	// Facts are the engine's (package wal): times, restore points and so on, as JSON. This package does not read them.
	Facts json.RawMessage `json:"facts,omitempty"`
}

// WALConflictError says that the repository holds other content under the name of a WAL file (R14). Both may be
// needed; nothing was changed. It must page: usually two servers archive under one cluster name.
type WALConflictError struct {
	Cluster, Name string
}

// Error names the file and what to look for.
func (e *WALConflictError) Error() string {
	return fmt.Sprintf("WAL file %s of cluster %s is in the repository with other content: two servers may be archiving under "+
		"this cluster's name, or a server was restored and is archiving on its old timeline; nothing was overwritten", e.Name, e.Cluster)
}

// PutWAL stores one WAL file, and returns only when it is durable. The same file again is success, another content
// under its name is *WALConflictError. It returns the stored size in bytes, 0 if the file was there already. It sets
// h.Length and h.Content. It holds the compressed file in memory.
func (r *Repository) PutWAL(ctx context.Context, cluster string, h WALHeader, data []byte, how Compression) (int64, error) {
	key, err := checkedWALKey(cluster, h.Name)
	if err != nil {
		return 0, fmt.Errorf("store WAL: %w", err)
	}
	comp, err := newCompressor(how, frameSize)
	if err != nil {
		return 0, err
	}
	h.Length, h.Content = int64(len(data)), r.name(data)
	head, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("encode head of WAL %s: %w", h.Name, err)
	}
	if len(head) > maxWALHead {
		return 0, fmt.Errorf("store WAL %s: its facts take %d bytes, the limit is %d", h.Name, len(head), maxWALHead)
	}
	sealed := r.sealWAL(key, head, data, comp)
	err = r.putOnce(ctx, key, sealed)
	switch {
	case err == nil:
		return int64(len(sealed)), nil
	case !errors.Is(err, blob.ErrExists):
		return 0, fmt.Errorf("store WAL %s: %w", h.Name, err)
	}
	have, err := r.WALHeader(ctx, cluster, h.Name)
	switch {
	case err != nil:
		return 0, fmt.Errorf("store WAL %s: it exists, but cannot be read: %w", h.Name, err)
	case have.Content != h.Content || have.Length != h.Length:
		return 0, &WALConflictError{Cluster: cluster, Name: h.Name}
	}
	return 0, nil
}

// maxWALHead bounds the head of a WAL object in plain bytes: facts cannot be larger than the WAL that they are about,
// but a reader must be able to hold them.
const maxWALHead = 16 << 20

// checkedWALKey refuses names that PostgreSQL does not use: the key of such an object could lie anywhere.
func checkedWALKey(cluster, name string) (string, error) {
	if err := CheckName(cluster); err != nil {
		return "", err
	}
	if _, err := pg.ParseWALFileName(name); err != nil {
		return "", err
	}
	return walKey(cluster, name), nil
}

func (r *Repository) sealWAL(key string, head, data []byte, comp *compressor) []byte {
	salt := newPackID()
	b := r.newObject(KindWAL, key, salt, make([]byte, 0, len(data)/2+64<<10))
	add := func(piece []byte, last bool) {
		word := binary.LittleEndian.AppendUint32(nil, uint32(len(piece)))
		b.append(append(word, comp.payload(piece)...), last)
	}
	add(head, len(data) == 0)
	for len(data) > 0 {
		n := min(len(data), frameSize)
		add(data[:n], n == len(data))
		data = data[n:]
	}
	return b.buf
}

// WALReader reads one WAL object.
type WALReader struct {
	Header WALHeader
	frames *frameReader
	namer  *blake3.Hasher
	n      int64
	buf    []byte // what Read decoded into
	rest   []byte // of buf, not read yet
}

// OpenWAL opens a WAL file; the error wraps blob.ErrNotFound if the repository does not have it.
func (r *Repository) OpenWAL(ctx context.Context, cluster, name string) (*WALReader, error) {
	key, err := checkedWALKey(cluster, name)
	if err != nil {
		return nil, fmt.Errorf("open WAL: %w", err)
	}
	frames, err := r.openFrames(ctx, KindWAL, key)
	if err != nil {
		return nil, err
	}
	w := &WALReader{frames: frames, namer: r.newNamer()}
	if err := w.head(name); err != nil {
		_ = frames.Close()
		return nil, err
	}
	return w, nil
}

func (w *WALReader) head(name string) error {
	plain, err := w.frames.next(nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, &w.Header); err != nil {
		return w.damaged("its head does not decode: " + err.Error())
	}
	if w.Header.Name != name {
		return w.damaged(fmt.Sprintf("its head describes %q", w.Header.Name))
	}
	return nil
}

func (w *WALReader) damaged(reason string) error {
	return &DamageError{Key: w.frames.object.key, Frame: 0, Reason: reason}
}

// next returns the next piece of the plain file, in dst's memory if it suffices; io.EOF only after all was checked.
func (w *WALReader) next(dst []byte) ([]byte, error) {
	plain, err := w.frames.next(dst)
	if errors.Is(err, io.EOF) {
		var id ID
		w.namer.Sum(id[:0])
		if id != w.Header.Content || w.n != w.Header.Length {
			return nil, w.damaged("its content does not hash to what its head says")
		}
	}
	if err != nil {
		return nil, err
	}
	if w.n+int64(len(plain)) > w.Header.Length {
		return nil, w.damaged("it has more bytes than its head says")
	}
	_, _ = w.namer.Write(plain)
	w.n += int64(len(plain))
	return plain, nil
}

// Read reads the plain file. What it returns is checked frame by frame, and as a whole before io.EOF.
func (w *WALReader) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		plain, err := w.next(w.buf)
		if err != nil {
			return 0, err
		}
		w.buf, w.rest = plain, plain
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

// WriteTo writes the plain file to out. Only when it returns nil has everything been checked: a caller must not use
// what was written before.
func (w *WALReader) WriteTo(out io.Writer) (int64, error) {
	var n int64
	for {
		m, err := out.Write(w.rest) // what Read has begun and not finished goes first
		n += int64(m)
		if err != nil {
			return n, fmt.Errorf("write WAL %s: %w", w.Header.Name, err)
		}
		w.rest = nil
		plain, err := w.next(w.buf)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		w.buf, w.rest = plain, plain
	}
}

// Close closes the object.
func (w *WALReader) Close() error { return w.frames.Close() }

// WALHeader reads what a WAL object says of itself.
func (r *Repository) WALHeader(ctx context.Context, cluster, name string) (WALHeader, error) {
	w, err := r.OpenWAL(ctx, cluster, name)
	if err != nil {
		return WALHeader{}, err
	}
	return w.Header, w.Close()
}

// WALNames yields the names of a cluster's segments (.partial and .backup files among them), ascending, which within a
// timeline is by LSN. tli 0 means all timelines; after "" begins at the first.
func (r *Repository) WALNames(ctx context.Context, cluster string, tli pg.Timeline, after string) iter.Seq2[string, error] {
	prefix := walPrefix(cluster) + "segments/"
	list := prefix
	if tli != 0 {
		list += tli.Hex()
	}
	start := ""
	if len(after) >= 16 {
		start = walKey(cluster, after)
	} else if after != "" {
		start = prefix + after
	}
	return func(yield func(string, error) bool) {
		for info, err := range r.store.List(ctx, list, start) {
			if err != nil {
				yield("", fmt.Errorf("list WAL of %s: %w", cluster, err))
				return
			}
			if !yield(info.Key[strings.LastIndexByte(info.Key, '/')+1:], nil) {
				return
			}
		}
	}
}

// Histories lists the timeline history files of a cluster, ascending.
func (r *Repository) Histories(ctx context.Context, cluster string) ([]string, error) {
	var names []string
	prefix := walPrefix(cluster) + "history/"
	for info, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list timeline histories of %s: %w", cluster, err)
		}
		names = append(names, strings.TrimPrefix(info.Key, prefix))
	}
	return names, nil
}
