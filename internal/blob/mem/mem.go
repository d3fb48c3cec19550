// Package mem is a blob.Store in memory, for unit tests and for experiments.
//
// It keeps every promise of the contract but one: nothing outlives the process, so "durable on return" holds only
// while the process lives. Like a POSIX store it refuses a key that is a folder of another key, so that a layout of
// keys that works here works everywhere.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"lifeboat/internal/blob"
)

const (
	// pieceSize is how much of a body is read between two looks at the context.
	pieceSize = 1 << 20
	// maxReserve is the largest size that is believed, and reserved, before the body has proved it.
	maxReserve = 64 << 20
)

// Store is an object store in memory. Make it with New; it is safe for concurrent use.
type Store struct {
	now func() time.Time

	mu sync.RWMutex
	// objects holds bodies that are never changed: a write puts a new slice, so a reader keeps the one it opened.
	objects map[string]object
	// folders counts the objects below each folder ("a" and "a/b" for the key "a/b/c").
	folders map[string]int
}

type object struct {
	body    []byte
	modTime time.Time
}

var _ blob.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return NewWithClock(time.Now) }

// NewWithClock returns an empty store that takes Info.ModTime from now, so that a test of age margins can move time.
// now must be safe for concurrent use.
func NewWithClock(now func() time.Time) *Store {
	return &Store{now: now, objects: map[string]object{}, folders: map[string]int{}}
}

// String names the store.
func (s *Store) String() string { return "mem:" }

// Put is blob.Store.Put.
func (s *Store) Put(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return s.write(ctx, "put", key, body, size, true)
}

// PutIfAbsent is blob.Store.PutIfAbsent.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return s.write(ctx, "put if absent", key, body, size, false)
}

func (s *Store) write(ctx context.Context, op, key string, body io.ReaderAt, size int64, replace bool) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	// The body is read before the lock is taken: it may be slow, fail or wait for another call on this store.
	var buf bytes.Buffer
	if size > 0 && size <= maxReserve {
		buf.Grow(int(size))
	}
	if err := blob.CopyBody(ctx, &buf, body, size, make([]byte, min(max(size, 1), pieceSize))); err != nil {
		return fmt.Errorf("%s %s in %s: %w", op, key, s, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, exists := s.objects[key]
	if exists && !replace {
		return fmt.Errorf("%s %s in %s: %w", op, key, s, blob.ErrExists)
	}
	if err := s.checkFolders(key); err != nil {
		return fmt.Errorf("%s in %s: %w", op, s, err)
	}
	if !exists {
		s.count(key, 1)
	}
	s.objects[key] = object{body: buf.Bytes(), modTime: s.now()}
	return nil
}

// checkFolders refuses a key that is a folder, or that has an object for a folder. The caller holds the lock.
func (s *Store) checkFolders(key string) error {
	if s.folders[key] > 0 {
		return fmt.Errorf("%w %q: it is a folder of other keys", blob.ErrInvalidKey, key)
	}
	for folder := range foldersOf(key) {
		if _, ok := s.objects[folder]; ok {
			return fmt.Errorf("%w %q: its folder %q is an object", blob.ErrInvalidKey, key, folder)
		}
	}
	return nil
}

// count adds n to the number of objects in each folder of key. The caller holds the lock.
func (s *Store) count(key string, n int) {
	for folder := range foldersOf(key) {
		s.folders[folder] += n
		if s.folders[folder] == 0 {
			delete(s.folders, folder)
		}
	}
}

// foldersOf yields "a" and "a/b" for "a/b/c".
func foldersOf(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(key) {
			if key[i] == '/' && !yield(key[:i]) {
				return
			}
		}
	}
}

// find returns the object of a key, after the checks that all reading calls share.
func (s *Store) find(ctx context.Context, op, key string) (object, error) {
	if err := blob.CheckKey(key); err != nil {
		return object{}, fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return object{}, fmt.Errorf("%s %s in %s: %w", op, key, s, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s in %s: %w", op, key, s, blob.ErrNotFound)
	}
	return o, nil
}

// Get is blob.Store.Get. All its errors but that of ctx come from Get itself, none from Read.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	n, err := blob.ResolveRange(int64(len(o.body)), offset, length)
	if err != nil {
		return nil, fmt.Errorf("get %s from %s: %w", key, s, err)
	}
	return &reader{ctx: ctx, body: bytes.NewReader(o.body[offset : offset+n])}, nil
}

// Stat is blob.Store.Stat.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	o, err := s.find(ctx, "stat", key)
	if err != nil {
		return blob.Info{}, err
	}
	return blob.Info{Key: key, Size: int64(len(o.body)), ModTime: o.modTime}, nil
}

// Delete is blob.Store.Delete.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s in %s: %w", key, s, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		delete(s.objects, key)
		s.count(key, -1)
	}
	return nil
}

// List is blob.Store.List. The keys are those of the moment when the iteration began, less what was deleted since;
// no lock is held while the caller looks at one, so that it may write and delete.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, key := range s.keys(prefix, after) {
			if ctx.Err() != nil {
				break
			}
			s.mu.RLock()
			o, ok := s.objects[key]
			s.mu.RUnlock()
			if ok && !yield(blob.Info{Key: key, Size: int64(len(o.body)), ModTime: o.modTime}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(blob.Info{}, fmt.Errorf("list %q in %s: %w", prefix, s, err))
		}
	}
}

func (s *Store) keys(prefix, after string) []string {
	s.mu.RLock()
	keys := slices.Collect(maps.Keys(s.objects))
	s.mu.RUnlock()
	keys = slices.DeleteFunc(keys, func(k string) bool { return k <= after || !strings.HasPrefix(k, prefix) })
	slices.Sort(keys)
	return keys
}

// reader gives an object's bytes until ctx is done.
type reader struct {
	ctx    context.Context
	body   *bytes.Reader
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

func (r *reader) Close() error {
	r.closed = true
	return nil
}
