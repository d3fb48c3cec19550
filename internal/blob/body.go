package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge says that ReadAll met an object of more bytes than its caller is willing to hold in memory.
var ErrTooLarge = errors.New("object is larger than expected")

// PutBytes is Store.Put for a body that is in memory.
func PutBytes(ctx context.Context, s Store, key string, body []byte) error {
	return s.Put(ctx, key, bytes.NewReader(body), int64(len(body)))
}

// PutBytesIfAbsent is Store.PutIfAbsent for a body that is in memory.
func PutBytesIfAbsent(ctx context.Context, s Store, key string, body []byte) error {
	return s.PutIfAbsent(ctx, key, bytes.NewReader(body), int64(len(body)))
}

// ReadAll returns the whole object, or fails with ErrNotFound, or with ErrTooLarge if it has more than maxBytes bytes.
// The bound is the caller's: an object is written by others, and memory must not depend on what they wrote.
func ReadAll(ctx context.Context, s Store, key string, maxBytes int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// One byte more than allowed tells an object of maxBytes from a larger one.
	body, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", key, s, err)
	}
	if int64(len(body)) > maxBytes {
		return nil, fmt.Errorf("read %s from %s: %w: more than %d bytes", key, s, ErrTooLarge, maxBytes)
	}
	return body, nil
}

// ResolveRange tells how many bytes a Get of length bytes from offset gives of an object of size bytes, where length
// -1 means to the end. A range that is not wholly inside the object fails with ErrRange; the empty range at the end
// is inside. It is for providers.
func ResolveRange(size, offset, length int64) (int64, error) {
	switch {
	case offset < 0 || length < -1 || offset > size:
		return 0, fmt.Errorf("%w: offset %d, length %d of %d bytes", ErrRange, offset, length, size)
	case length == -1:
		return size - offset, nil
	case length > size-offset: // not offset+length > size, which can overflow
		return 0, fmt.Errorf("%w: offset %d, length %d of %d bytes", ErrRange, offset, length, size)
	}
	return length, nil
}

// CopyBody writes the first size bytes of body to w through buf, looking at ctx before each piece. A body that ends
// early fails with io.ErrUnexpectedEOF. It is for providers; buf must not be empty.
func CopyBody(ctx context.Context, w io.Writer, body io.ReaderAt, size int64, buf []byte) error {
	if size < 0 {
		return fmt.Errorf("body size %d is negative", size)
	}
	for offset := int64(0); offset < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buf[:min(int64(len(buf)), size-offset)]
		n, err := body.ReadAt(piece, offset)
		if n < len(piece) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read body at %d of %d bytes: %w", offset+int64(n), size, err)
		}
		// An error beside a full piece is io.EOF at the end of the body (io.ReaderAt): the piece is whole.
		if _, err := w.Write(piece); err != nil {
			return err
		}
		offset += int64(n)
	}
	return ctx.Err()
}
