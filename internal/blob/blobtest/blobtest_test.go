package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a testing.TB that remembers failures instead of reporting them.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	messages []string
}

func (r *recorder) Helper()             {}
func (r *recorder) Log(...any)          {}
func (r *recorder) Error(a ...any)      { r.add(fmt.Sprint(a...)) }
func (r *recorder) Fatal(a ...any)      { r.add(fmt.Sprint(a...)); runtime.Goexit() }
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Errorf(format string, a ...any) { r.add(fmt.Sprintf(format, a...)) }

func (r *recorder) Fatalf(format string, a ...any) {
	r.add(fmt.Sprintf(format, a...))
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages) > 0
}

func (r *recorder) add(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, message)
}

// failures runs a check on a store and returns what it found.
func failures(t *testing.T, c check, s blob.Store) []string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(t.Context(), r, s)
	}()
	<-done
	return r.messages
}

// broken is a store in memory of which tests replace parts.
type broken struct {
	*mem.Store
	put         func(ctx context.Context, key string, body io.ReaderAt, size int64) error
	putIfAbsent func(ctx context.Context, key string, body io.ReaderAt, size int64) error
	get         func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	stat        func(ctx context.Context, key string) (blob.Info, error)
	del         func(ctx context.Context, key string) error
	list        func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error]
	name        func() string
}

func sound() *broken {
	s := mem.New()
	return &broken{s, s.Put, s.PutIfAbsent, s.Get, s.Stat, s.Delete, s.List, s.String}
}

func (b *broken) Put(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return b.put(ctx, key, body, size)
}

func (b *broken) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return b.putIfAbsent(ctx, key, body, size)
}

func (b *broken) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return b.get(ctx, key, offset, length)
}

func (b *broken) Stat(ctx context.Context, key string) (blob.Info, error) { return b.stat(ctx, key) }
func (b *broken) Delete(ctx context.Context, key string) error            { return b.del(ctx, key) }
func (b *broken) String() string                                          { return b.name() }

func (b *broken) List(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return b.list(ctx, prefix, after)
}

// listed replaces the list by what change makes of it.
func (b *broken) listed(change func([]blob.Info) []blob.Info) {
	b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
		return func(yield func(blob.Info, error) bool) {
			var all []blob.Info
			for info, err := range b.Store.List(ctx, prefix, after) {
				if err != nil {
					yield(info, err)
					return
				}
				all = append(all, info)
			}
			for _, info := range change(all) {
				if ctx.Err() != nil {
					yield(blob.Info{}, ctx.Err())
					return
				}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

func TestChecks_NoticeEveryBrokenStore(t *testing.T) {
	noticed := map[string]bool{}
	for _, wrong := range slices.Concat(wrongAlone, wrongInRaces) {
		t.Run(wrong.name, func(t *testing.T) {
			i := slices.IndexFunc(checks, func(c check) bool { return c.name == wrong.check })
			if i < 0 {
				t.Fatalf("there is no check %q", wrong.check)
			}
			if !noticed[wrong.check] {
				noticed[wrong.check] = true
				if found := failures(t, checks[i], sound()); len(found) > 0 {
					t.Fatalf("a sound store fails: %s", found)
				}
			}
			b := sound()
			wrong.do(b)
			found := failures(t, checks[i], b)
			if len(found) == 0 {
				t.Fatalf("%q does not notice", wrong.check)
			}
			t.Logf("%.300s", found[0])
		})
	}
	for _, c := range checks {
		if !noticed[c.name] {
			t.Errorf("no broken store shows that %q can fail", c.name)
		}
	}
}

func TestPattern_IsTheSameAtEveryOffset(t *testing.T) {
	p := pattern{seed: 3, size: 1000}
	all := make([]byte, p.size)
	if n, err := p.ReadAt(all, 0); n != len(all) || err != nil {
		t.Fatalf("ReadAt = %d, %v", n, err)
	}
	for offset := range p.size {
		part := make([]byte, 20)
		n, err := io.ReaderAt(p).ReadAt(part, offset) // whose contract asks for io.EOF itself
		if rest := p.size - offset; rest < 20 && (err != io.EOF || int64(n) != rest) {
			t.Fatalf("ReadAt(%d) = %d, %v", offset, n, err)
		}
		if !bytes.Equal(part[:n], all[offset:int(offset)+n]) {
			t.Fatalf("ReadAt(%d) differs", offset)
		}
	}
	for _, wrong := range [][]byte{all[:999], append(slices.Clone(all), 0), append([]byte{all[0] ^ 1}, all[1:]...)} {
		if p.sameAs(bytes.NewReader(wrong), 0) == nil {
			t.Errorf("a wrong body of %d bytes is taken for right", len(wrong))
		}
	}
	if err := p.sameAs(bytes.NewReader(all[17:]), 17); err != nil {
		t.Error(err)
	}
}
