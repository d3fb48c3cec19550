package fault

import (
	"context"
	"io"
	"iter"

	"lifeboat/internal/blob"
)

// Store is a store with faults. Make it with New; it is safe for concurrent use. Without rules it behaves as the store
// that it decorates.
type Store struct {
	inner  blob.Store
	script script
}

var _ blob.Store = (*Store)(nil)

// New decorates inner. It panics on a rule that cannot work.
func New(inner blob.Store, rules ...Rule) *Store {
	s := &Store{inner: inner}
	s.Add(rules...)
	return s
}

// Add appends rules, which count calls from now on. It panics on a rule that cannot work.
func (s *Store) Add(rules ...Rule) { s.script.add(rules) }

// Unused returns the rules that have not acted yet.
func (s *Store) Unused() []Rule { return s.script.unused() }

// String is that of the decorated store.
func (s *Store) String() string { return s.inner.String() }

// Put is blob.Store.Put.
func (s *Store) Put(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return s.do(ctx, Put, key, func() error { return s.inner.Put(ctx, key, body, size) })
}

// PutIfAbsent is blob.Store.PutIfAbsent.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return s.do(ctx, PutIfAbsent, key, func() error { return s.inner.PutIfAbsent(ctx, key, body, size) })
}

// Stat is blob.Store.Stat.
func (s *Store) Stat(ctx context.Context, key string) (info blob.Info, err error) {
	err = s.do(ctx, Stat, key, func() (err error) {
		info, err = s.inner.Stat(ctx, key)
		return err
	})
	if err != nil {
		return blob.Info{}, err
	}
	return info, nil
}

// Delete is blob.Store.Delete.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.do(ctx, Delete, key, func() error { return s.inner.Delete(ctx, key) })
}

// do runs a call with the fault that is due.
func (s *Store) do(ctx context.Context, op Op, key string, effect func() error) error {
	r := s.script.take(op, key, nil)
	if r == nil {
		return effect()
	}
	if err := s.run(ctx, r, r.Do.before, op, key); err != nil {
		return err
	}
	if err := effect(); err != nil {
		return err
	}
	return s.run(ctx, r, r.Do.after, op, key)
}

// run does one half of a rule's action, if the action has it.
func (s *Store) run(ctx context.Context, r *rule, half func(context.Context, Call) error, op Op, key string) error {
	if half == nil {
		return nil
	}
	s.script.mark(r)
	return half(ctx, Call{Op: op, Key: key})
}

// List is blob.Store.List.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		r := s.script.take(List, prefix, nil)
		if r == nil {
			s.inner.List(ctx, prefix, after)(yield)
			return
		}
		var given int64
		// here acts before the entry, or before the end of the list, that follows the first r.At entries.
		here := func() bool {
			if given != r.At {
				return true
			}
			if err := s.run(ctx, r, r.Do.before, List, prefix); err != nil {
				yield(blob.Info{}, err)
				return false
			}
			return true
		}
		for info, err := range s.inner.List(ctx, prefix, after) {
			if !here() || !yield(info, err) || err != nil {
				return
			}
			given++
		}
		if !here() {
			return
		}
		if err := s.run(ctx, r, r.Do.after, List, prefix); err != nil {
			yield(blob.Info{}, err)
		}
	}
}

// Get is blob.Store.Get.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (body io.ReadCloser, err error) {
	err = s.do(ctx, Get, key, func() (err error) {
		body, err = s.inner.Get(ctx, key, offset, length)
		return err
	})
	if err != nil {
		if body != nil {
			_ = body.Close() // opened, and then its reply was lost
		}
		return nil, err
	}
	r := s.script.take(GetRead, key, func(r Rule) bool { return covered(r, offset, length) })
	if r == nil {
		return body, nil
	}
	return &reader{ReadCloser: body, ctx: ctx, store: s, rule: r, key: key, offset: offset}, nil
}

// covered tells whether the range that is read has the place of a rule. length is -1 where the end is not known.
func covered(r Rule, offset, length int64) bool {
	if r.At < offset || (r.At == offset && !r.Do.flip) {
		return !r.Do.flip
	}
	return length == -1 || r.At < offset+length
}

// reader is a body with a fault in it.
type reader struct {
	io.ReadCloser
	ctx    context.Context
	store  *Store
	rule   *rule
	key    string
	offset int64 // of the next byte, in the object
	passed bool  // the place of the rule is behind us
	err    error // how every further Read ends
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.rule.Do.flip {
		return r.flipped(p)
	}
	if !r.passed && r.offset >= r.rule.At {
		r.passed = true
		if r.err = r.act(); r.err != nil {
			return 0, r.err
		}
	}
	if !r.passed {
		p = p[:min(int64(len(p)), r.rule.At-r.offset)] // stop right at the place
	}
	n, err := r.ReadCloser.Read(p)
	r.offset += int64(n)
	if err != io.EOF {
		return n, err
	}
	if r.err = r.store.run(r.ctx, r.rule, r.rule.Do.after, GetRead, r.key); r.err == nil {
		r.err = io.EOF
	}
	return n, r.err
}

// act does what the rule does at its place.
func (r *reader) act() error {
	if !r.rule.Do.truncate {
		return r.store.run(r.ctx, r.rule, r.rule.Do.before, GetRead, r.key)
	}
	// Only a body that would have gone on is truncated.
	if _, err := io.ReadFull(r.ReadCloser, make([]byte, 1)); err != nil {
		return err
	}
	r.store.script.mark(r.rule)
	return io.EOF
}

func (r *reader) flipped(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if i := r.rule.At - r.offset; i >= 0 && i < int64(n) {
		p[i] ^= 1
		r.store.script.mark(r.rule)
	}
	r.offset += int64(n)
	return n, err
}
