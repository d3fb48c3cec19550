package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"lifeboat/internal/blob"
)

// Format is the version of the repository format that this package writes and reads. Until the first release a new
// version may refuse an old one, with a clear error.
const Format = 1

// Header is the object that makes a place a repository: plain JSON, written once. Sizes stand in it so that
// measurement may change the defaults without a new format.
type Header struct {
	Format    int       `json:"format"`
	ID        ID        `json:"id"`        // random; bound into every tag
	CreatedAt time.Time `json:"createdAt"` // UTC, for people
	// NamingKey keys the names of chunks and the tags of frames. In an unencrypted repository it stands here in the
	// open: names and tags then protect against rot and mix-ups, not against someone who may write the repository.
	NamingKey ID `json:"namingKey"`
	// ChunkSize is the longest chunk in bytes, LeafSpan how many bytes of a file one leaf lists, FanOut how many nodes
	// an index node lists, PackSize when a pack is closed. See decision 0001.
	ChunkSize int `json:"chunkSize"`
	LeafSpan  int `json:"leafSpan"`
	FanOut    int `json:"fanOut"`
	PackSize  int `json:"packSize"`
	// Check guards the fields above but CreatedAt against rot: one wrong digit of a key would make every object of the
	// repository look damaged. A header without it is taken as it is.
	Check string `json:"check,omitempty"`
}

// sum is the value of Check: the first 16 bytes, in hexadecimal, of the BLAKE3 hash of the fields as one line.
func (h *Header) sum() string {
	line := fmt.Sprintf("%d %s %s %d %d %d %d\n", h.Format, h.ID, h.NamingKey, h.ChunkSize, h.LeafSpan, h.FanOut, h.PackSize)
	sum := blake3.Sum256([]byte(line))
	return hex.EncodeToString(sum[:16])
}

func defaultHeader() Header {
	h := Header{
		Format: Format, CreatedAt: time.Now().UTC().Truncate(time.Second),
		ChunkSize: 128 << 10, LeafSpan: 8 << 20, FanOut: 16, PackSize: 16 << 20,
	}
	_, _ = rand.Read(h.ID[:])
	_, _ = rand.Read(h.NamingKey[:])
	h.Check = h.sum()
	return h
}

func (h *Header) validate() error {
	if h.Check != "" && h.Check != h.sum() {
		return &DamageError{Key: headerKey, Frame: -1, Reason: "its fields do not match its check: " +
			"put it back from a copy of the repository, for nothing can be read without it"}
	}
	if h.ChunkSize < 8<<10 || h.ChunkSize > 4<<20 || h.LeafSpan < h.ChunkSize || h.LeafSpan > 1<<30 ||
		h.FanOut < 2 || h.FanOut > 1<<16 || h.PackSize < h.ChunkSize || h.PackSize > maxFrame {
		return fmt.Errorf("repository header has impossible sizes: chunk %d, leaf %d, fan-out %d, pack %d",
			h.ChunkSize, h.LeafSpan, h.FanOut, h.PackSize)
	}
	return nil
}

// Repository is an open repository. It is safe for concurrent use.
type Repository struct {
	store       blob.Store
	header      Header
	tagHashers  sync.Pool // of *blake3.Hasher, keyed for tags
	nameHashers sync.Pool // of *blake3.Hasher, keyed for names
	zstdDecoder *zstd.Decoder
	frames      *frameCache
}

// ErrNoRepository says that the place holds no repository.
var ErrNoRepository = errors.New("no Lifeboat repository")

// Open opens the repository in store, or fails with ErrNoRepository.
func Open(ctx context.Context, store blob.Store) (*Repository, error) {
	data, err := blob.ReadAll(ctx, store, headerKey, 64<<10)
	if errors.Is(err, blob.ErrNotFound) {
		if data, err = lostHeader(ctx, store); err == nil && data == nil {
			return nil, fmt.Errorf("%w at %s: check the URL; the first backup creates one", ErrNoRepository, store)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", store, err)
	}
	h, err := parseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", store, err)
	}
	return newRepository(store, h)
}

// lostHeader tells a repository that lost its header from a place that never was one, where it gives nil. A new header
// would have other keys: it would make every object that is there unreadable for good. The header is looked for again
// after the objects, since somebody may be creating the repository just now.
func lostHeader(ctx context.Context, store blob.Store) ([]byte, error) {
	for _, err := range store.List(ctx, "clusters/", "") {
		if err != nil {
			return nil, err
		}
		data, err := blob.ReadAll(ctx, store, headerKey, 64<<10)
		if errors.Is(err, blob.ErrNotFound) {
			err = &DamageError{Key: headerKey, Frame: -1, Reason: "it is missing, though the repository holds objects: " +
				"put it back from a copy of the repository, for nothing can be read without it"}
		}
		return data, err
	}
	return nil, nil
}

// FormatError says that a repository has a format that this program does not know.
type FormatError struct{ Format int }

// Error tells both formats and the remedy.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s says format %d, this program knows format %d: %s", headerKey, e.Format, Format, e.Remedy())
}

// Remedy is what to do about it.
func (e *FormatError) Remedy() string {
	return "use the Lifeboat version that wrote the repository, or a newer one"
}

func parseHeader(data []byte) (h Header, err error) {
	var version struct{ Format int }
	if err := json.Unmarshal(data, &version); err != nil {
		return h, &DamageError{Key: headerKey, Frame: -1, Reason: "its JSON does not decode: " + err.Error()}
	}
	if version.Format != Format {
		// A check that matches once the number is mended proves that it rotted; and every version writes one.
		mended := h
		if json.Unmarshal(data, &mended) == nil {
			if mended.Format = Format; version.Format == 0 || mended.Check != "" && mended.Check == mended.sum() {
				return h, &DamageError{Key: headerKey, Frame: -1, Reason: "its format number was changed"}
			}
		}
		return h, &FormatError{version.Format}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // a rotten name of a field must not read as its absence
	if err := dec.Decode(&h); err != nil {
		return h, &DamageError{Key: headerKey, Frame: -1, Reason: "its JSON does not decode: " + err.Error()}
	}
	return h, h.validate()
}

// OpenOrCreate opens the repository in store, and creates it first if there is none. Any number of callers may race:
// one header wins and all use it.
func OpenOrCreate(ctx context.Context, store blob.Store) (*Repository, error) {
	r, err := Open(ctx, store)
	if !errors.Is(err, ErrNoRepository) {
		return r, err
	}
	data, err := json.MarshalIndent(defaultHeader(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("create repository %s: %w", store, err)
	}
	data = append(data, '\n')
	perr := store.PutIfAbsent(ctx, headerKey, bytes.NewReader(data), int64(len(data)))
	if perr != nil && !errors.Is(perr, blob.ErrExists) {
		// The reply may have been lost. Only a write that is repeated proves that what is there is durable.
		perr = store.PutIfAbsent(ctx, headerKey, bytes.NewReader(data), int64(len(data)))
	}
	if perr != nil && !errors.Is(perr, blob.ErrExists) {
		return nil, fmt.Errorf("create repository %s: %w", store, perr)
	}
	return Open(ctx, store)
}

func newRepository(store blob.Store, h Header) (*Repository, error) {
	var tagKey [32]byte
	blake3.DeriveKey("Lifeboat repository format 1: frame tags", h.NamingKey[:], tagKey[:])
	tags, err := blake3.NewKeyed(tagKey[:])
	if err != nil {
		return nil, fmt.Errorf("key the frame tags: %w", err)
	}
	names, err := blake3.NewKeyed(h.NamingKey[:])
	if err != nil {
		return nil, fmt.Errorf("key the chunk names: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	r := &Repository{store: store, header: h, zstdDecoder: dec, frames: newFrameCache(8 << 20)}
	r.tagHashers.New = func() any { return tags.Clone() }
	r.nameHashers.New = func() any { return names.Clone() }
	return r, nil
}

// Header returns the repository's header.
func (r *Repository) Header() Header { return r.header }

// String names the repository for people, without secrets.
func (r *Repository) String() string { return r.store.String() }

// name computes the ID of plain bytes.
func (r *Repository) name(plain []byte) (id ID) {
	h := r.nameHashers.Get().(*blake3.Hasher)
	h.Reset()
	_, _ = h.Write(plain)
	h.Sum(id[:0])
	r.nameHashers.Put(h)
	return id
}

// newNamer returns a hasher for plain bytes that come piecewise.
func (r *Repository) newNamer() *blake3.Hasher { return r.nameHashers.New().(*blake3.Hasher) }

// readRange reads length bytes of an object. A range beyond its end means that the object is truncated.
func (r *Repository) readRange(ctx context.Context, key string, offset, length int64, dst []byte) ([]byte, error) {
	rc, err := r.store.Get(ctx, key, offset, length)
	if errors.Is(err, blob.ErrRange) {
		return nil, &DamageError{Key: key, Frame: -1, Reason: "it is truncated"}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer rc.Close()
	if int64(cap(dst)) < length {
		dst = make([]byte, length)
	}
	dst = dst[:length]
	if _, err := io.ReadFull(rc, dst); err != nil {
		return nil, r.readFailed(ctx, key, offset+length, err)
	}
	return dst, nil
}

// readFailed explains why the bytes of an object before need could not be read. A body that ends early is damage only
// if the object is too short: connections also break, and what they break must not be reported as rot.
func (r *Repository) readFailed(ctx context.Context, key string, need int64, err error) error {
	if errors.Is(err, blob.ErrRange) {
		return &DamageError{Key: key, Frame: -1, Reason: "it is truncated"}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w", key, err)
	}
	info, serr := r.store.Stat(ctx, key)
	switch {
	case serr != nil:
		return fmt.Errorf("read %s: it ended early: %w", key, serr)
	case info.Size < need:
		return &DamageError{Key: key, Frame: -1, Reason: fmt.Sprintf("it is truncated to %d bytes", info.Size)}
	}
	return fmt.Errorf("read %s: the store ended before byte %d of %d: try again: %w", key, need, info.Size, io.ErrUnexpectedEOF)
}
