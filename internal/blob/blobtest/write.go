package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lifeboat/internal/blob"
)

var writeChecks = []check{
	{"valid keys are held", checkValidKeys},
	{"invalid keys are refused by every call", checkInvalidKeys},
	{"what was put is got", checkRoundTrip},
	{"put replaces the whole body", checkReplace},
	{"put if absent keeps what is there", checkPutIfAbsent},
	{"a body above 32 MiB is streamed", checkLarge},
	{"only size bytes of a longer body are written", checkLongerBody},
	{"delete", checkDelete},
	{"the store has a name", checkName},
}

// failureChecks are about writes that fail: they must leave what was there before.
var failureChecks = []check{
	{"a body that fails leaves nothing", checkFailingBody},
	{"a body that ends early leaves nothing", checkShortBody},
	{"a negative size is refused", checkNegativeSize},
}

func checkValidKeys(ctx context.Context, t testing.TB, s blob.Store) {
	segment := strings.Repeat("s", blob.MaxSegmentLength)
	longest := strings.Join([]string{segment, segment, strings.Repeat("t", blob.MaxKeyLength-2*len(segment)-2)}, "/")
	if len(longest) != blob.MaxKeyLength {
		t.Fatalf("the longest key has %d bytes", len(longest))
	}
	keys := []string{
		"a", "0", "A.B", "-", "=", "@", "+", "_", "a.", "a..b", "x/y/z", "deep/" + strings.Repeat("d/", 100) + "e",
		"lost+found/x", "tmp/x", "CASE/x", "case/x", "wal/000000010000000000000001.partial", longest,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@=+-",
	}
	for i, key := range keys {
		put(ctx, t, s, key, fmt.Sprint("body ", i))
	}
	for i, key := range keys {
		want(ctx, t, s, key, fmt.Sprint("body ", i))
	}
	if n := len(list(ctx, t, s, "", "")); n != len(keys) {
		t.Errorf("List shows %d of %d keys", n, len(keys))
	}
}

func checkInvalidKeys(ctx context.Context, t testing.TB, s blob.Store) {
	keys := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".hidden", "a/.hidden", ".tmp/x", "a b", "a\x00b",
		"a\nb", "a\\b", "a:b", "a?b", "a*b", "a%b", "ä", "\xff", strings.Repeat("s", blob.MaxSegmentLength+1),
		strings.Repeat("a/", blob.MaxKeyLength/2) + "a",
	}
	for _, key := range keys {
		_, statErr := s.Stat(ctx, key)
		_, getErr := get(ctx, s, key, 0, -1)
		for call, err := range map[string]error{
			"Put":         blob.PutBytes(ctx, s, key, []byte("x")),
			"PutIfAbsent": blob.PutBytesIfAbsent(ctx, s, key, []byte("x")),
			"Get":         getErr,
			"Stat":        statErr,
			"Delete":      s.Delete(ctx, key),
		} {
			if !errors.Is(err, blob.ErrInvalidKey) {
				t.Errorf("%s(%q): %v; want ErrInvalidKey", call, key, err)
			}
		}
	}
	wantList(ctx, t, s, "", "")
}

func checkRoundTrip(ctx context.Context, t testing.TB, s blob.Store) {
	for _, size := range []int64{0, 1, 7, 4095, 4096, 65537, 1<<20 + 1} {
		for _, write := range writers(s) {
			key := fmt.Sprintf("%s/%d", write.name, size)
			body := pattern{uint64(size), size}
			if err := write.do(ctx, key, body, size); err != nil {
				t.Fatalf("%s of %d bytes: %v", write.name, size, err)
			}
			r, err := s.Get(ctx, key, 0, -1)
			if err != nil {
				t.Fatalf("Get(%q): %v", key, err)
			}
			if err := body.sameAs(r, 0); err != nil {
				t.Errorf("%s of %d bytes: %v", write.name, size, err)
			}
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
}

func checkReplace(ctx context.Context, t testing.TB, s blob.Store) {
	for _, body := range []string{"first", "a longer second body", "3rd", "", "again"} {
		put(ctx, t, s, "dir/key", body)
		want(ctx, t, s, "dir/key", body)
	}
	wantList(ctx, t, s, "", "", "dir/key")
}

func checkPutIfAbsent(ctx context.Context, t testing.TB, s blob.Store) {
	if err := blob.PutBytesIfAbsent(ctx, s, "k/1", []byte("first")); err != nil {
		t.Fatalf("PutIfAbsent of an absent key: %v", err)
	}
	for _, body := range []string{"second", "first", ""} {
		if err := blob.PutBytesIfAbsent(ctx, s, "k/1", []byte(body)); !errors.Is(err, blob.ErrExists) {
			t.Errorf("PutIfAbsent of a key that exists: %v; want ErrExists", err)
		}
		want(ctx, t, s, "k/1", "first")
	}
	put(ctx, t, s, "k/2", "")
	if err := blob.PutBytesIfAbsent(ctx, s, "k/2", []byte("x")); !errors.Is(err, blob.ErrExists) {
		t.Errorf("PutIfAbsent over an empty object: %v; want ErrExists", err)
	}
	want(ctx, t, s, "k/2", "")
	if err := s.Delete(ctx, "k/1"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if err := blob.PutBytesIfAbsent(ctx, s, "k/1", []byte("third")); err != nil {
		t.Errorf("PutIfAbsent of a key that was deleted: %v", err)
	}
	want(ctx, t, s, "k/1", "third")
}

func checkLarge(ctx context.Context, t testing.TB, s blob.Store) {
	body := pattern{seed: 33, size: 33<<20 + 13}
	if err := s.PutIfAbsent(ctx, "large", body, body.size); err != nil {
		t.Fatalf("PutIfAbsent: %v", err)
	}
	for _, offset := range []int64{0, 32<<20 - 1, body.size - 1, body.size} {
		r, err := s.Get(ctx, "large", offset, -1)
		if err != nil {
			t.Fatalf("Get from %d: %v", offset, err)
		}
		if err := body.sameAs(r, offset); err != nil {
			t.Errorf("Get from %d: %v", offset, err)
		}
		_ = r.Close()
	}
	if info, err := s.Stat(ctx, "large"); err != nil || info.Size != body.size {
		t.Errorf("Stat = %+v, %v; want size %d", info, err, body.size)
	}
}

func checkLongerBody(ctx context.Context, t testing.TB, s blob.Store) {
	for _, write := range writers(s) {
		if err := write.do(ctx, write.name, bytes.NewReader([]byte("0123456789")), 4); err != nil {
			t.Fatalf("%s: %v", write.name, err)
		}
		want(ctx, t, s, write.name, "0123")
	}
}

func checkDelete(ctx context.Context, t testing.TB, s blob.Store) {
	put(ctx, t, s, "d/1", "one")
	put(ctx, t, s, "d/11", "eleven")
	put(ctx, t, s, "d/2/3", "three")
	for range 2 {
		// The second time there is nothing to delete; of the others one never was, one is a folder, and one lies
		// below an object.
		for _, key := range []string{"d/1", "d/absent", "absent/x", "d/2", "d/11/x"} {
			if err := s.Delete(ctx, key); err != nil {
				t.Errorf("Delete(%q): %v", key, err)
			}
			wantAbsent(ctx, t, s, key)
		}
	}
	want(ctx, t, s, "d/11", "eleven")
	want(ctx, t, s, "d/2/3", "three")
	put(ctx, t, s, "d/1", "one again")
	want(ctx, t, s, "d/1", "one again")
}

func checkName(_ context.Context, t testing.TB, s blob.Store) {
	if s.String() == "" {
		t.Error("String is empty")
	}
}

func checkFailingBody(ctx context.Context, t testing.TB, s blob.Store) {
	errBody := errors.New("the body cannot be read")
	for _, write := range writers(s) {
		for _, at := range []int64{0, 1, 1<<20 + 5, 3<<20 - 1} {
			body := hooked{pattern{1, 3 << 20}, at, func() error { return errBody }}
			key := fmt.Sprintf("%s/%d", write.name, at)
			if err := write.do(ctx, key, body, 3<<20); !errors.Is(err, errBody) {
				t.Errorf("%s of a body that fails at %d: %v; want its error", write.name, at, err)
			}
			wantAbsent(ctx, t, s, key)
		}
	}
	put(ctx, t, s, "old", "old body")
	if err := s.Put(ctx, "old", hooked{pattern{1, 3 << 20}, 2 << 20, func() error { return errBody }}, 3<<20); err == nil {
		t.Error("Put of a body that fails succeeded")
	}
	want(ctx, t, s, "old", "old body")
	wantList(ctx, t, s, "", "", "old")
}

func checkShortBody(ctx context.Context, t testing.TB, s blob.Store) {
	for _, write := range writers(s) {
		for _, size := range []int64{0, 1, 2 << 20} {
			if err := write.do(ctx, write.name, pattern{2, size}, size+1); err == nil {
				t.Errorf("%s of %d bytes that are said to be %d succeeded", write.name, size, size+1)
			}
			wantAbsent(ctx, t, s, write.name)
		}
	}
}

func checkNegativeSize(ctx context.Context, t testing.TB, s blob.Store) {
	for _, write := range writers(s) {
		if err := write.do(ctx, write.name, bytes.NewReader([]byte("body")), -1); err == nil {
			t.Errorf("%s of -1 bytes succeeded", write.name)
		}
		wantAbsent(ctx, t, s, write.name)
	}
}
