// Package blob is the contract that Lifeboat demands of an object store.
//
// A Store maps keys to immutable byte strings. Everything above it (packs, manifests, WAL, leases) is safe only
// because of the five promises below, so each provider proves them by the suite in package blobtest:
//
//   - Atomic: a key holds either nothing or one complete body. A reader never sees part of a write, and a write that
//     failed leaves either nothing or the complete body (see "lost replies").
//   - Create-if-absent: of any number of concurrent PutIfAbsent calls on one key exactly one succeeds; all others
//     return ErrExists, and the body stays the winner's.
//   - Durable on return: when Put or PutIfAbsent returns nil, the object survives the loss of power.
//   - Read your writes: after a write returns, Get, Stat and List by anyone see it; after Delete returns, nobody does.
//   - List order: List yields keys in ascending byte order (as strings compare in Go), each once, and includes
//     every key that existed during the whole call.
//
// Lost replies: an error from a write does not prove that nothing was written. A caller that must know asks again
// (rule R14: equal content is success, different content is an error that pages).
//
// The package imports no provider's SDK: providers live in fs, mem and s3, and decorators (fault) wrap any Store.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Errors that callers decide on. Providers wrap them; test with errors.Is.
var (
	// ErrNotFound says that the key holds no object.
	ErrNotFound = errors.New("object not found")
	// ErrExists says that PutIfAbsent found an object under the key.
	ErrExists = errors.New("object exists already")
	// ErrInvalidKey says that a key breaks the rules of CheckKey; retrying cannot help.
	ErrInvalidKey = errors.New("invalid object key")
	// ErrRange says that Get asked for bytes beyond the end of the object.
	ErrRange = errors.New("range beyond the end of the object")
)

// Info describes one stored object.
type Info struct {
	// Key is the full key, as given to Put.
	Key string
	// Size is the length of the body in bytes.
	Size int64
	// ModTime is when the store recorded the object, by the store's own clock. Nothing but age margins of clean-up
	// may depend on it: recovery never does (R15).
	ModTime time.Time
}

// Store is an object store. Implementations are safe for concurrent use. All methods honour ctx.
type Store interface {
	// Put writes size bytes of body under key, replacing what was there. body is read by ReadAt, possibly more than
	// once and concurrently, so that a provider may retry; it must not change before Put returns.
	Put(ctx context.Context, key string, body io.ReaderAt, size int64) error
	// PutIfAbsent is Put, but fails with ErrExists (and changes nothing) if the key holds an object.
	PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error
	// Get opens length bytes of the object from offset; length -1 means to the end. A missing key is ErrNotFound, and
	// a range that is not wholly inside the object is ErrRange, both from Get itself or from the first Read. The
	// caller closes the reader.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes the object, or fails with ErrNotFound.
	Stat(ctx context.Context, key string) (Info, error)
	// List yields the objects whose keys begin with prefix and are greater than after ("" for all), in ascending
	// order. It stops at the first error, which is yielded with a zero Info. An unknown prefix yields nothing.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
	// Delete removes the object; removing what is not there succeeds.
	Delete(ctx context.Context, key string) error
	// String names the store for people, as a URL without secrets.
	String() string
}

// MaxKeyLength is the longest key in bytes that every provider must take, and MaxSegmentLength the longest part of it
// between two slashes (a file name on most file systems holds 255 bytes, of which providers need some).
const (
	MaxKeyLength     = 512
	MaxSegmentLength = 200
)

// CheckKey tells whether key is one that every provider can hold: segments of [A-Za-z0-9._@=+-] joined by single
// slashes, none of them "." or "..", none beginning with a dot, within the two length limits. A key must never be a
// proper prefix of another at a slash ("a" and "a/b" together): POSIX stores cannot hold both.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyLength {
		return fmt.Errorf("%w %q: length must be 1 to %d bytes", ErrInvalidKey, key, MaxKeyLength)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > MaxSegmentLength {
			return fmt.Errorf("%w %q: segment %q is empty, begins with a dot or is longer than %d bytes",
				ErrInvalidKey, key, part, MaxSegmentLength)
		}
		for _, c := range []byte(part) {
			if !keyByte(c) {
				return fmt.Errorf("%w %q: character %q is not allowed", ErrInvalidKey, key, c)
			}
		}
	}
	return nil
}

func keyByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("._@=+-", c) >= 0
}
