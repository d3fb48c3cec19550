package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"

	"lifeboat/internal/blob"
)

// wrong breaks a store in one way, which the named check must notice.
type wrong struct {
	name, check string
	do          func(b *broken)
}

// wrongAlone are stores that one caller finds out.
var wrongAlone = []wrong{
	{"refuses long keys", "valid keys are held", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			if len(key) > 500 {
				return errors.New("name too long")
			}
			return b.Store.Put(ctx, key, body, size)
		}
	}},
	{"takes any key to delete", "invalid keys are refused by every call", func(b *broken) {
		b.del = func(context.Context, string) error { return nil }
	}},
	{"drops the last byte", "what was put is got", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			return b.Store.Put(ctx, key, body, max(0, size-1))
		}
	}},
	{"overwrites only the beginning", "put replaces the whole body", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			old, _ := get(ctx, b.Store, key, 0, -1)
			fresh := make([]byte, size)
			_, _ = body.ReadAt(fresh, 0)
			if len(old) > len(fresh) {
				fresh = append(fresh, old[len(fresh):]...)
			}
			return b.Store.Put(ctx, key, bytes.NewReader(fresh), int64(len(fresh)))
		}
	}},
	{"put if absent replaces", "put if absent keeps what is there", func(b *broken) { b.putIfAbsent = b.Store.Put }},
	{"put if absent says exists but replaces", "put if absent keeps what is there", func(b *broken) {
		b.putIfAbsent = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			err := b.Store.PutIfAbsent(ctx, key, body, size)
			if err != nil {
				_ = b.Store.Put(ctx, key, body, size)
			}
			return err
		}
	}},
	{"cuts bodies at 32 MiB", "a body above 32 MiB is streamed", func(b *broken) {
		b.putIfAbsent = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			return b.Store.PutIfAbsent(ctx, key, body, min(size, 32<<20))
		}
	}},
	{"writes the whole body", "only size bytes of a longer body are written", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, _ int64) error {
			all, _ := io.ReadAll(io.NewSectionReader(body, 0, 1<<30))
			return b.Store.Put(ctx, key, bytes.NewReader(all), int64(len(all)))
		}
	}},
	{"delete of nothing fails", "delete", func(b *broken) {
		b.del = func(ctx context.Context, key string) error {
			if _, err := b.Store.Stat(ctx, key); err != nil {
				return err
			}
			return b.Store.Delete(ctx, key)
		}
	}},
	{"delete takes the folder", "delete", func(b *broken) {
		b.del = func(ctx context.Context, key string) error {
			for info, err := range b.Store.List(ctx, key, "") {
				if err != nil {
					return err
				}
				_ = b.Store.Delete(ctx, info.Key)
			}
			return nil
		}
	}},
	{"delete does nothing", "delete", func(b *broken) { b.del = func(context.Context, string) error { return nil } }},
	{"has no name", "the store has a name", func(b *broken) { b.name = func() string { return "" } }},
	{"keeps what it got of a failing body", "a body that fails leaves nothing", keepsParts},
	{"keeps what it got of a short body", "a body that ends early leaves nothing", keepsParts},
	{"takes a short body", "a body that ends early leaves nothing", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			all, err := io.ReadAll(io.NewSectionReader(body, 0, size))
			return errors.Join(err, b.Store.Put(ctx, key, bytes.NewReader(all), int64(len(all))))
		}
	}},
	{"takes a negative size for 0", "a negative size is refused", func(b *broken) {
		b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
			return b.Store.Put(ctx, key, body, max(size, 0))
		}
	}},
	{"stat of a folder succeeds", "absent keys are not found", func(b *broken) {
		b.stat = func(ctx context.Context, key string) (blob.Info, error) {
			for _, err := range b.Store.List(ctx, key+"/", "") {
				return blob.Info{Key: key}, err
			}
			return b.Store.Stat(ctx, key)
		}
	}},
	{"shortens ranges beyond the end", "ranges", func(b *broken) {
		b.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			r, err := b.Store.Get(ctx, key, offset, length)
			if errors.Is(err, blob.ErrRange) {
				return b.Store.Get(ctx, key, offset, -1)
			}
			return r, err
		}
	}},
	{"takes length 0 for all", "ranges", func(b *broken) {
		b.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			if length == 0 {
				length = -1
			}
			return b.Store.Get(ctx, key, offset, length)
		}
	}},
	{"cannot read ranges of empty objects", "ranges of an empty object", func(b *broken) {
		b.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			if info, err := b.Store.Stat(ctx, key); err == nil && info.Size == 0 && length == 0 {
				return nil, blob.ErrRange
			}
			return b.Store.Get(ctx, key, offset, length)
		}
	}},
	{"reads what is there now", "a reader keeps its object or fails", func(b *broken) {
		b.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			return io.NopCloser(&lateReader{ctx, b.Store, key, offset}), nil
		}
	}},
	{"lists folder by folder", "list is in byte order of whole keys", func(b *broken) {
		b.listed(func(all []blob.Info) []blob.Info {
			slices.SortFunc(all, func(x, y blob.Info) int {
				return slices.Compare(strings.Split(x.Key, "/"), strings.Split(y.Key, "/"))
			})
			return all
		})
	}},
	{"lists folders only", "prefix is not a folder", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			return b.Store.List(ctx, prefix[:strings.LastIndexByte(prefix, '/')+1], after)
		}
	}},
	{"begins at after", "after is exclusive and need not exist", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			if after != "" {
				after = after[:len(after)-1]
			}
			return b.Store.List(ctx, prefix, after)
		}
	}},
	{"lists wrong sizes", "list describes objects as stat does", func(b *broken) {
		b.listed(func(all []blob.Info) []blob.Info {
			for i := range all {
				all[i].Size++
			}
			return all
		})
	}},
	{"fails on an unknown prefix", "an unknown prefix yields nothing", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			if prefix == "c/d/e/" {
				return func(yield func(blob.Info, error) bool) { yield(blob.Info{}, blob.ErrNotFound) }
			}
			return b.Store.List(ctx, prefix, after)
		}
	}},
	{"skips what lies below after", "list agrees with a model", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			return func(yield func(blob.Info, error) bool) {
				for info, err := range b.Store.List(ctx, prefix, after) {
					if after != "" && strings.HasPrefix(info.Key, after) {
						continue
					}
					if !yield(info, err) {
						return
					}
				}
			}
		}
	}},
	{"lists one page", "list of more than a thousand keys", func(b *broken) {
		b.listed(func(all []blob.Info) []blob.Info { return all[:min(len(all), 1000)] })
	}},
	{"repeats the last key of a page", "list of more than a thousand keys", func(b *broken) {
		b.listed(func(all []blob.Info) []blob.Info {
			if len(all) > 1000 {
				all = slices.Insert(all, 1000, all[999])
			}
			return all
		})
	}},
	{"lists once", "list may be left early", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			used := false
			return func(yield func(blob.Info, error) bool) {
				if !used {
					used = true
					b.Store.List(ctx, prefix, after)(yield)
				}
			}
		}
	}},
	{"skips the next when one is deleted", "what is listed may be deleted", func(b *broken) {
		b.list = func(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
			return func(yield func(blob.Info, error) bool) {
				index := 0
				for {
					var all []blob.Info
					for info, err := range b.Store.List(ctx, prefix, after) {
						if err != nil {
							yield(blob.Info{}, err)
							return
						}
						all = append(all, info)
					}
					if index >= len(all) || !yield(all[index], nil) {
						return
					}
					index++
				}
			}
		}
	}},
}

// keepsParts stores whatever of a body could be read when the rest could not.
func keepsParts(b *broken) {
	b.put = func(ctx context.Context, key string, body io.ReaderAt, size int64) error {
		err := b.Store.Put(ctx, key, body, size)
		if err != nil {
			part, _ := io.ReadAll(io.NewSectionReader(body, 0, size))
			_ = b.Store.Put(ctx, key, bytes.NewReader(part), int64(len(part)))
		}
		return err
	}
}

// lateReader looks the object up again for each read.
type lateReader struct {
	ctx    context.Context
	s      blob.Store
	key    string
	offset int64
}

func (r *lateReader) Read(p []byte) (int, error) {
	body, err := r.s.Get(r.ctx, r.key, r.offset, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return 0, io.EOF
	}
	if err != nil {
		return 0, err
	}
	n, err := body.Read(p)
	r.offset += int64(n)
	return n, err
}
