package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"lifeboat/internal/blob"
)

// contextChecks are about calls whose context is done, before they begin or while they run.
var contextChecks = []check{
	{"a cancelled context stops every call", checkCancelledBefore},
	{"a cancelled write leaves nothing or all", checkCancelledWrite},
	{"a cancelled read fails", checkCancelledRead},
	{"a cancelled list fails", checkCancelledList},
}

func checkCancelledBefore(ctx context.Context, t testing.TB, s blob.Store) {
	put(ctx, t, s, "there", "body")
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, statErr := s.Stat(cancelled, "there")
	_, getErr := get(cancelled, s, "there", 0, -1)
	for call, err := range map[string]error{
		"Put":                           blob.PutBytes(cancelled, s, "new", []byte("x")),
		"Put of nothing":                blob.PutBytes(cancelled, s, "new", nil),
		"Put over an object":            blob.PutBytes(cancelled, s, "there", []byte("x")),
		"PutIfAbsent":                   blob.PutBytesIfAbsent(cancelled, s, "new", []byte("x")),
		"PutIfAbsent of what is there ": blob.PutBytesIfAbsent(cancelled, s, "there", []byte("x")),
		"Get":                           getErr,
		"Stat":                          statErr,
		"Delete":                        s.Delete(cancelled, "there"),
		"List":                          listError(cancelled, t, s, ""),
		"List of nothing":               listError(cancelled, t, s, "unknown/"),
		"List of an impossible prefix":  listError(cancelled, t, s, "../"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v; want context.Canceled", call, err)
		}
	}
	want(ctx, t, s, "there", "body")
	wantAbsent(ctx, t, s, "new")
}

// listError ranges over a list that must fail and returns its error. It checks that nothing follows the error.
func listError(ctx context.Context, t testing.TB, s blob.Store, prefix string) error {
	var failed error
	for info, err := range s.List(ctx, prefix, "") {
		if failed != nil {
			t.Fatalf("List goes on after its error with %+v, %v", info, err)
		}
		if err != nil && info != (blob.Info{}) {
			t.Errorf("List yields %+v with the error %v", info, err)
		}
		failed = err
	}
	return failed
}

func checkCancelledWrite(ctx context.Context, t testing.TB, s blob.Store) {
	const size = 8 << 20
	body := sealed(1, size)
	for _, write := range writers(s) {
		for _, at := range []int64{0, size / 2, size - 1} {
			cancelled, cancel := context.WithCancel(ctx)
			defer cancel()
			hook := hooked{readerAt(body), at, func() error { cancel(); return nil }}
			key := fmt.Sprintf("%s/%d", write.name, at)
			if err := write.do(cancelled, key, hook, size); !errors.Is(err, context.Canceled) {
				t.Errorf("%s that is cancelled at %d: %v; want context.Canceled", write.name, at, err)
			}
			if err := readWhole(ctx, s, key); err != nil && !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("%s that is cancelled at %d left: %v", write.name, at, err)
			}
		}
	}
	if err := blob.PutBytes(ctx, s, "old", sealed(2, 1000)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	hook := hooked{readerAt(body), size / 2, func() error { cancel(); return nil }}
	if err := s.Put(cancelled, "old", hook, size); !errors.Is(err, context.Canceled) {
		t.Errorf("Put over an object that is cancelled: %v; want context.Canceled", err)
	}
	if err := readWhole(ctx, s, "old"); err != nil {
		t.Errorf("Put over an object that is cancelled left: %v", err)
	}
}

func checkCancelledRead(ctx context.Context, t testing.TB, s blob.Store) {
	body := pattern{7, 8 << 20}
	if err := s.Put(ctx, "k", body, body.size); err != nil {
		t.Fatalf("Put: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := s.Get(cancelled, "k", 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, 100); err != nil {
		t.Fatalf("read: %v", err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancelling: %d bytes, %v; want context.Canceled", n, err)
	}
}

func checkCancelledList(ctx context.Context, t testing.TB, s blob.Store) {
	for i := range 20 {
		put(ctx, t, s, fmt.Sprintf("c/%d/%02d", i/7, i), "x")
	}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	var last error
	seen := 0
	for _, err := range s.List(cancelled, "c/", "") {
		if last = err; err == nil {
			seen++
		}
		if seen == 3 {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) || seen != 3 {
		t.Errorf("List that is cancelled at 3 of 20 gives %d and %v; want context.Canceled", seen, last)
	}
}

// readerAt is a body in memory.
type readerAt []byte

// ReadAt is io.ReaderAt.
func (b readerAt) ReadAt(p []byte, offset int64) (int, error) {
	n := copy(p, b[min(offset, int64(len(b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
