package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/blob"
)

// putOnce stores body under a key that holds nothing yet. It returns nil if the store took it, blob.ErrExists if the
// key was taken, and any other error if it is unknown whether body is there.
//
// After an unclear error it asks once more by writing once more: the first reply may have been lost (R14), and only a
// write that returns proves that what is there is also durable (a file system store may show a name that it could not
// fsync).
func (r *Repository) putOnce(ctx context.Context, key string, body []byte) error {
	err := r.store.PutIfAbsent(ctx, key, bytes.NewReader(body), int64(len(body)))
	if err == nil || errors.Is(err, blob.ErrExists) || ctx.Err() != nil {
		return err
	}
	again := r.store.PutIfAbsent(ctx, key, bytes.NewReader(body), int64(len(body)))
	if again == nil || errors.Is(again, blob.ErrExists) {
		return again
	}
	return err
}

// putSealed is putOnce for a body with a salt of its own: if the key is taken by these very bytes, then an earlier
// reply of this call was lost, and the call has succeeded.
func (r *Repository) putSealed(ctx context.Context, key string, body []byte) error {
	err := r.putOnce(ctx, key, body)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	ours, rerr := r.holds(ctx, key, body)
	if rerr != nil {
		return fmt.Errorf("%w, and what is there cannot be read: %w", err, rerr)
	}
	if !ours {
		return err
	}
	return nil
}

// holds tells whether the object under key is exactly body.
func (r *Repository) holds(ctx context.Context, key string, body []byte) (bool, error) {
	rc, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer rc.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(rc, buf)
		if n > len(body) || !bytes.Equal(buf[:n], body[:n]) {
			return false, nil
		}
		body = body[n:]
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return len(body) == 0, nil
		case err != nil:
			return false, err
		}
	}
}

// putJSONIfAbsent stores v once. If the key is taken, the plain bytes decide (R14): equal is success, whoever wrote
// them; others are blob.ErrExists.
func (r *Repository) putJSONIfAbsent(ctx context.Context, kind Kind, key string, v any) error {
	plain, err := encodeJSON(key, v)
	if err != nil {
		return err
	}
	comp, err := newCompressor(Zstd, frameSize)
	if err != nil {
		return err
	}
	err = r.putOnce(ctx, key, r.sealBytes(kind, key, plain, comp))
	if !errors.Is(err, blob.ErrExists) {
		if err != nil {
			return fmt.Errorf("store %s: %w", key, err)
		}
		return nil
	}
	have, rerr := r.readAll(ctx, kind, key)
	switch {
	case rerr != nil:
		return fmt.Errorf("store %s: %w, and what is there cannot be read: %w", key, err, rerr)
	case !bytes.Equal(have, plain):
		return fmt.Errorf("store %s: other content is there: %w", key, blob.ErrExists)
	}
	return nil
}
