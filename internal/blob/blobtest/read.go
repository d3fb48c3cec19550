package blobtest

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"

	"lifeboat/internal/blob"
)

var readChecks = []check{
	{"absent keys are not found", checkNotFound},
	{"ranges", checkRanges},
	{"ranges of an empty object", checkEmptyObject},
	{"a reader keeps its object or fails", checkReaderKeepsObject},
}

func checkNotFound(ctx context.Context, t testing.TB, s blob.Store) {
	wantAbsent(ctx, t, s, "never/put")
	put(ctx, t, s, "a/b/c", "x")
	for _, key := range []string{"a", "a/b", "a/b/c/d", "a/b/cc", "A/b/c", "b"} {
		wantAbsent(ctx, t, s, key)
		if _, err := get(ctx, s, key, 5, 1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Get of a range of %q: %v; want ErrNotFound", key, err)
		}
	}
}

func checkRanges(ctx context.Context, t testing.TB, s blob.Store) {
	const body = "0123456789"
	put(ctx, t, s, "k", body)
	for _, c := range []struct {
		offset, length int64
		want           string
		err            error
	}{
		{0, -1, body, nil},
		{0, 10, body, nil},
		{0, 0, "", nil},
		{0, 1, "0", nil},
		{3, 4, "3456", nil},
		{3, -1, "3456789", nil},
		{5, 0, "", nil},
		{9, 1, "9", nil},
		{9, -1, "9", nil},
		{10, -1, "", nil},
		{10, 0, "", nil},
		{10, 1, "", blob.ErrRange},
		{9, 2, "", blob.ErrRange},
		{0, 11, "", blob.ErrRange},
		{11, -1, "", blob.ErrRange},
		{11, 0, "", blob.ErrRange},
		{11, 1, "", blob.ErrRange},
		{1 << 40, 5, "", blob.ErrRange},
		{5, math.MaxInt64, "", blob.ErrRange},
		{math.MaxInt64, math.MaxInt64, "", blob.ErrRange},
		{-1, 1, "", blob.ErrRange},
		{-1, -1, "", blob.ErrRange},
		{0, -2, "", blob.ErrRange},
	} {
		got, err := get(ctx, s, "k", c.offset, c.length)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("Get(%d, %d): %v; want error %v", c.offset, c.length, err, c.err)
		} else if got != c.want {
			t.Errorf("Get(%d, %d) = %q, want %q", c.offset, c.length, got, c.want)
		}
	}
}

func checkEmptyObject(ctx context.Context, t testing.TB, s blob.Store) {
	if err := blob.PutBytesIfAbsent(ctx, s, "dir/empty", nil); err != nil {
		t.Fatalf("PutIfAbsent of nothing: %v", err)
	}
	want(ctx, t, s, "dir/empty", "")
	wantList(ctx, t, s, "dir/", "", "dir/empty")
	if got, err := get(ctx, s, "dir/empty", 0, 0); err != nil || got != "" {
		t.Errorf("Get(0, 0) = %q, %v", got, err)
	}
	for _, r := range [][2]int64{{0, 1}, {1, 0}, {1, -1}} {
		if _, err := get(ctx, s, "dir/empty", r[0], r[1]); !errors.Is(err, blob.ErrRange) {
			t.Errorf("Get(%d, %d): %v; want ErrRange", r[0], r[1], err)
		}
	}
}

// checkReaderKeepsObject replaces and deletes objects while they are read: the rest of the body must be the rest of
// the same body, or an error, but never another's bytes and never a silent end.
func checkReaderKeepsObject(ctx context.Context, t testing.TB, s blob.Store) {
	before, after := pattern{5, 4 << 20}, pattern{6, 5 << 20}
	for name, disturb := range map[string]func(key string) error{
		"replaced": func(key string) error { return s.Put(ctx, key, after, after.size) },
		"deleted":  func(key string) error { return s.Delete(ctx, key) },
	} {
		if err := s.Put(ctx, name, before, before.size); err != nil {
			t.Fatalf("Put: %v", err)
		}
		r, err := s.Get(ctx, name, 0, -1)
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
			t.Fatalf("read: %v", err)
		}
		if err := disturb(name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rest := &failing{r: r}
		if err := before.sameAs(rest, 1000); err != nil && rest.err == nil {
			t.Errorf("object was %s while it was read: %v", name, err)
		}
		_ = r.Close()
	}
}

// failing remembers the error of a reader.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
