package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadAll_HoldsNoMoreThanItsCallerAllows(t *testing.T) {
	s := mem.New()
	for _, c := range []struct {
		body string
		max  int64
		err  error
	}{
		{"12345", 6, nil}, {"12345", 5, nil}, {"12345", 4, blob.ErrTooLarge}, {"", 0, nil}, {"1", 0, blob.ErrTooLarge},
	} {
		if err := blob.PutBytes(t.Context(), s, "k", []byte(c.body)); err != nil {
			t.Fatal(err)
		}
		got, err := blob.ReadAll(t.Context(), s, "k", c.max)
		if !errors.Is(err, c.err) || (c.err == nil && string(got) != c.body) {
			t.Errorf("ReadAll of %d bytes with bound %d = %q, %v; want error %v", len(c.body), c.max, got, err, c.err)
		}
	}
	if _, err := blob.ReadAll(t.Context(), s, "absent", 1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("ReadAll of an absent key: %v", err)
	}
}

func TestReadAll_ReturnsErrorsOfTheBody(t *testing.T) {
	s := fault.New(mem.New(), fault.Rule{Op: fault.GetRead, At: 3, Do: fault.Fail(nil)})
	if err := blob.PutBytes(t.Context(), s, "k", []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if got, err := blob.ReadAll(t.Context(), s, "k", 10); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("ReadAll = %q, %v; want the error of the body", got, err)
	}
}

func TestResolveRange(t *testing.T) {
	for _, c := range []struct {
		size, offset, length, want int64
		ok                         bool
	}{
		{10, 0, -1, 10, true},
		{10, 3, -1, 7, true},
		{10, 10, -1, 0, true},
		{10, 10, 0, 0, true},
		{10, 0, 10, 10, true},
		{0, 0, 0, 0, true},
		{0, 0, -1, 0, true},
		{10, 11, -1, 0, false},
		{10, 11, 0, 0, false},
		{10, 10, 1, 0, false},
		{10, 1, 10, 0, false},
		{0, 0, 1, 0, false},
		{10, -1, 1, 0, false},
		{10, 0, -2, 0, false},
		{10, 5, math.MaxInt64, 0, false},
		{10, math.MaxInt64, 1, 0, false},
	} {
		got, err := blob.ResolveRange(c.size, c.offset, c.length)
		if got != c.want || (err == nil) != c.ok || (!c.ok && !errors.Is(err, blob.ErrRange)) {
			t.Errorf("ResolveRange(%d, %d, %d) = %d, %v; want %d, ok %t", c.size, c.offset, c.length, got, err, c.want, c.ok)
		}
	}
}

func TestCopyBody(t *testing.T) {
	errWrite := errors.New("disk on fire")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		body string
		size int64
		w    io.Writer
		want string
		err  error
	}{
		{"in pieces", t.Context(), "0123456789", 10, nil, "0123456789", nil},
		{"a part", t.Context(), "0123456789", 7, nil, "0123456", nil},
		{"nothing", t.Context(), "", 0, nil, "", nil},
		{"short", t.Context(), "01234", 6, nil, "0123", io.ErrUnexpectedEOF},
		{"short at a piece's end", t.Context(), "0123", 6, nil, "0123", io.ErrUnexpectedEOF},
		{"cancelled", cancelled, "0123", 4, nil, "", context.Canceled},
		{"cancelled with nothing to do", cancelled, "", 0, nil, "", context.Canceled},
		{"write fails", t.Context(), "0123", 4, failingWriter{errWrite}, "", errWrite},
	} {
		var buf bytes.Buffer
		if c.w == nil {
			c.w = &buf
		}
		err := blob.CopyBody(c.ctx, c.w, strings.NewReader(c.body), c.size, make([]byte, 4))
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || buf.String() != c.want {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, buf.String(), err, c.want, c.err)
		}
	}
	if err := blob.CopyBody(t.Context(), io.Discard, strings.NewReader(""), -1, make([]byte, 4)); err == nil {
		t.Error("a negative size is taken")
	}
}

// TestCopyBody_BodyThatEndsWithEOF has io.EOF come with the last bytes, as io.ReaderAt allows.
func TestCopyBody_BodyThatEndsWithEOF(t *testing.T) {
	for size := range int64(10) {
		var buf bytes.Buffer
		if err := blob.CopyBody(t.Context(), &buf, eagerEOF("0123456789"[:size]), size, make([]byte, 4)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if buf.String() != "0123456789"[:size] {
			t.Errorf("%d bytes: %q", size, &buf)
		}
	}
}

type eagerEOF string

func (b eagerEOF) ReadAt(p []byte, offset int64) (int, error) {
	n := copy(p, b[offset:])
	if int(offset)+n == len(b) {
		return n, io.EOF
	}
	return n, nil
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
