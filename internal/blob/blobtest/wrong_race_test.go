package blobtest

import (
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"lifeboat/internal/blob"
)

// wrongInRaces are stores that break the contract when they are called concurrently or are cancelled.
var wrongInRaces = []wrong{
	{"looks, then creates", "one of 32 racers creates", func(b *broken) {
		b.putIfAbsent = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			if _, err := b.Store.Stat(ctx, key); err == nil {
				return blob.ErrExists
			}
			time.Sleep(time.Millisecond)
			return b.Store.Put(ctx, key, body, size)
		}
	}},
	{"the last racer's body stays", "one of 32 racers creates", func(b *broken) {
		b.putIfAbsent = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			err := b.Store.PutIfAbsent(ctx, key, body, size)
			return errors.Join(err, b.Store.Put(ctx, key, body, size))
		}
	}},
	{"says exists before it does", "one of 32 racers creates", func(b *broken) {
		var mu sync.Mutex
		claimed := map[string]bool{}
		b.putIfAbsent = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			mu.Lock()
			taken := claimed[key]
			claimed[key] = true
			mu.Unlock()
			if taken {
				return blob.ErrExists
			}
			time.Sleep(5 * time.Millisecond)
			return b.Store.PutIfAbsent(ctx, key, body, size)
		}
	}},
	{"writes in two halves", "readers see whole bodies under concurrent writers", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			_ = b.Store.Put(ctx, key, body, size/2)
			time.Sleep(time.Millisecond)
			return b.Store.Put(ctx, key, body, size)
		}
	}},
	{"removes before it replaces", "readers see whole bodies under concurrent writers", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			_ = b.Store.Delete(ctx, key)
			time.Sleep(time.Millisecond)
			return b.Store.Put(ctx, key, body, size)
		}
	}},
	{"two cannot make one folder", "concurrent writers in new folders", func(b *broken) {
		var mu sync.Mutex
		folders := map[string]bool{}
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			folder := key[:strings.LastIndexByte(key, '/')]
			mu.Lock()
			made := folders[folder]
			folders[folder] = true
			mu.Unlock()
			if made {
				return errors.New("folder exists")
			}
			return b.Store.Put(ctx, key, body, size)
		}
	}},
	{"shows writes later", "a write is seen by all when it returns", func(b *broken) {
		b.listed(func(all []blob.Info) []blob.Info {
			return slices.DeleteFunc(all, func(i blob.Info) bool { return time.Since(i.ModTime) < 20*time.Millisecond })
		})
	}},
	{"shows deletes later", "a write is seen by all when it returns", func(b *broken) {
		b.del = func(ctx context.Context, key string) error { return blob.CheckKey(key) }
	}},
	{"pages by number", "list while others write", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			return func(yield func(blob.Info, error) bool) {
				for n := 0; ; n += 10 {
					var all []blob.Info
					for info, err := range b.Store.List(ctx, prefix, after) {
						if err != nil {
							yield(blob.Info{}, err)
							return
						}
						all = append(all, info)
					}
					runtime.Gosched()
					for _, info := range all[min(n, len(all)):min(n+10, len(all))] {
						if !yield(info, nil) {
							return
						}
					}
					if n+10 >= len(all) {
						return
					}
				}
			}
		}
	}},
	{"ignores the context of writes", "a cancelled context stops every call", func(b *broken) {
		b.put = func(_ context.Context, key string, body io.ReaderAt, size int64) error {
			return b.Store.Put(context.Background(), key, body, size)
		}
	}},
	{"ignores the context while it writes", "a cancelled write leaves nothing or all", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return b.Store.Put(context.Background(), key, body, size)
		}
	}},
	{"keeps half of a cancelled write", "a cancelled write leaves nothing or all", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			err := b.Store.Put(ctx, key, body, size)
			if err != nil {
				_ = b.Store.Put(context.Background(), key, body, size/2)
			}
			return err
		}
	}},
	{"ignores the context of reads", "a cancelled read fails", func(b *broken) {
		b.get = func(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			return b.Store.Get(context.Background(), key, offset, length)
		}
	}},
	{"ends a cancelled list without a word", "a cancelled list fails", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			return func(yield func(blob.Info, error) bool) {
				for info, err := range b.Store.List(ctx, prefix, after) {
					if err != nil || !yield(info, nil) {
						return
					}
				}
			}
		}
	}},
}
