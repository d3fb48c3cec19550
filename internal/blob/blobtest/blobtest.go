// Package blobtest is the proof that a provider keeps the contract of package blob. Each provider's tests call Run.
//
// One promise cannot be proved by calls on a store: that it is durable on return. Each provider shows it in its own
// way (package fs: the order of its system calls, and a writer that is killed).
package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/blob"
)

// patience is how long one check may take before its calls are cancelled, so that a store that hangs fails.
const patience = 2 * time.Minute

// check is one part of the contract. It is given an empty store of its own.
type check struct {
	name string
	run  func(ctx context.Context, t testing.TB, s blob.Store)
}

var checks = slices.Concat(writeChecks, failureChecks, readChecks, listChecks, raceChecks, contextChecks)

// Run proves the contract. open is called for each part of it and must return an empty store that nobody else uses;
// it registers its own clean-up with t.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(ctx, t, open(t))
		})
	}
}

// put writes body under key, or ends the test.
func put(ctx context.Context, t testing.TB, s blob.Store, key, body string) {
	t.Helper()
	if err := blob.PutBytes(ctx, s, key, []byte(body)); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

// get reads a range, whether an error comes from Get or from Read.
func get(ctx context.Context, s blob.Store, key string, offset, length int64) (string, error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(r)
	return string(body), errors.Join(err, r.Close())
}

// want fails the test unless key holds exactly body.
func want(ctx context.Context, t testing.TB, s blob.Store, key, body string) {
	t.Helper()
	got, err := get(ctx, s, key, 0, -1)
	if err != nil || got != body {
		t.Errorf("Get(%q) = %s, %v; want %s", key, brief(got), err, brief(body))
	}
	info, err := s.Stat(ctx, key)
	if err != nil || info.Key != key || info.Size != int64(len(body)) || info.ModTime.IsZero() {
		t.Errorf("Stat(%q) = %+v, %v; want that key, size %d and a time", key, info, err, len(body))
	}
}

// wantAbsent fails the test if any call shows an object under key.
func wantAbsent(ctx context.Context, t testing.TB, s blob.Store, key string) {
	t.Helper()
	if got, err := get(ctx, s, key, 0, -1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Get(%q) = %s, %v; want ErrNotFound", key, brief(got), err)
	}
	if info, err := s.Stat(ctx, key); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat(%q) = %+v, %v; want ErrNotFound", key, info, err)
	}
	if keys := list(ctx, t, s, key, ""); slices.Contains(keys, key) {
		t.Errorf("List shows %q, which is absent", key)
	}
}

// list returns the listed keys, or ends the test. It checks what must hold of every list.
func list(ctx context.Context, t testing.TB, s blob.Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	for info, err := range s.List(ctx, prefix, after) {
		if err != nil {
			t.Fatalf("List(%q, %q) after %d keys: %v", prefix, after, len(keys), err)
		}
		if len(keys) > 0 && info.Key <= keys[len(keys)-1] {
			t.Fatalf("List(%q, %q): %q comes after %q", prefix, after, info.Key, keys[len(keys)-1])
		}
		if info.Size < 0 || info.ModTime.IsZero() {
			t.Fatalf("List(%q, %q) describes %q as %+v", prefix, after, info.Key, info)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// wantList fails the test unless the list is exactly keys.
func wantList(ctx context.Context, t testing.TB, s blob.Store, prefix, after string, keys ...string) {
	t.Helper()
	if got := list(ctx, t, s, prefix, after); !slices.Equal(got, keys) {
		t.Errorf("List(%q, %q) = %q; want %q", prefix, after, got, keys)
	}
}

// brief shortens a body for messages.
func brief(body string) string {
	if len(body) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", body[:40], len(body))
	}
	return fmt.Sprintf("%q", body)
}
