package repo

import (
	"context"
	"fmt"
	"io"

	"lifeboat/internal/blob"
)

// Planted is the repository as a reader would see it if one bit of one object had rotted: bit number bit, counted round
// the object's length. Nothing is written. A check that reads the object through it must find damage, or it is no check
// (invariant 8).
func (r *Repository) Planted(ctx context.Context, key string, bit uint64) (*Repository, error) {
	info, err := r.store.Stat(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", key, err)
	}
	if info.Size == 0 {
		return nil, &DamageError{Key: key, Frame: -1, Reason: "it is empty"}
	}
	bit %= uint64(info.Size) * 8
	return newRepository(&plantedStore{Store: r.store, key: key, at: int64(bit / 8), mask: 1 << (bit % 8)}, r.header)
}

// Without is the repository as a reader would see it if one object had been deleted. Nothing is deleted.
func (r *Repository) Without(key string) (*Repository, error) {
	return newRepository(&plantedStore{Store: r.store, key: key, gone: true}, r.header)
}

// plantedStore spoils one object of a store, for whoever reads through it.
type plantedStore struct {
	blob.Store
	key  string
	gone bool
	at   int64 // byte
	mask byte
}

func (s *plantedStore) Stat(ctx context.Context, key string) (blob.Info, error) {
	if s.gone && key == s.key {
		return blob.Info{}, blob.ErrNotFound
	}
	return s.Store.Stat(ctx, key)
}

func (s *plantedStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.gone && key == s.key {
		return nil, blob.ErrNotFound
	}
	body, err := s.Store.Get(ctx, key, offset, length)
	if err != nil || key != s.key {
		return body, err
	}
	return &plantedBody{ReadCloser: body, at: s.at - offset, mask: s.mask}, nil
}

// plantedBody flips bits of the byte that is at bytes ahead.
type plantedBody struct {
	io.ReadCloser
	at   int64
	mask byte
}

func (b *plantedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.at >= 0 && b.at < int64(n) {
		p[b.at] ^= b.mask
	}
	b.at -= int64(n)
	return n, err
}
