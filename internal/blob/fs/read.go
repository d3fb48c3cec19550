package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"lifeboat/internal/blob"
)

// Get is blob.Store.Get. ErrNotFound and ErrRange come from Get itself. The reader keeps the file that it opened: an
// object that is replaced or deleted meanwhile is still read whole, as it was.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.get(ctx, key, offset, length)
	if err != nil {
		return nil, s.fail("get", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.checkRead(ctx, key); err != nil {
		return nil, err
	}
	// Objects are files; a link or a device was put there by somebody else, and opening a FIFO must not hang.
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, s.absent(err)
	}
	info, err := f.Stat()
	if err == nil {
		err = checkType(info)
	}
	if err == nil {
		length, err = blob.ResolveRange(info.Size(), offset, length)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &reader{ctx: ctx, store: s, key: key, file: f, offset: offset, end: offset + length}, nil
}

// Stat is blob.Store.Stat. ModTime is when the body was complete, just before it got its name.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	info, err := s.stat(ctx, key)
	if err != nil {
		return blob.Info{}, s.fail("stat", key, err)
	}
	return blob.Info{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil
}

func (s *Store) stat(ctx context.Context, key string) (fs.FileInfo, error) {
	if err := s.checkRead(ctx, key); err != nil {
		return nil, err
	}
	info, err := os.Lstat(s.path(key))
	if err != nil {
		return nil, s.absent(err)
	}
	return info, checkType(info)
}

func (s *Store) checkRead(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

// absent turns the error of a missing file into ErrNotFound, if the repository itself is still there.
func (s *Store) absent(err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	if err := s.present(); err != nil {
		return err
	}
	return blob.ErrNotFound
}

// checkType tells objects from folders, which are nothing, and from what only a foreign hand can have made, which is
// reported rather than passed over (List does the same).
func checkType(info fs.FileInfo) error {
	switch {
	case info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return blob.ErrNotFound
	}
	return fmt.Errorf("not a regular file (%s)", info.Mode().Type())
}

// reader gives the bytes from offset to end of one object.
type reader struct {
	ctx         context.Context
	store       *Store
	key         string
	file        *os.File
	offset, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.store.fail("read", r.key, err)
	}
	if r.offset == r.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.end-r.offset)]
	n, err := r.file.ReadAt(p, r.offset)
	r.offset += int64(n)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		// Objects never change, so a foreign hand has cut this one.
		err = io.ErrUnexpectedEOF
	}
	return n, r.store.fail("read", r.key, err)
}

func (r *reader) Close() error { return r.file.Close() }
