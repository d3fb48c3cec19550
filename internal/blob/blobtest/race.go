package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/blob"
)

// raceChecks need many callers at once.
var raceChecks = []check{
	{"one of 32 racers creates", checkRacers},
	{"readers see whole bodies under concurrent writers", checkAtomic},
	{"concurrent writers in new folders", checkNewFolders},
	{"a write is seen by all when it returns", checkReadYourWrites},
	{"list while others write", checkListWhileWriting},
}

// writer is one of the two ways to write.
type writer struct {
	name string
	do   func(ctx context.Context, key string, body io.ReaderAt, size int64) error
}

func writers(s blob.Store) []writer {
	return []writer{{"Put", s.Put}, {"PutIfAbsent", s.PutIfAbsent}}
}

func checkRacers(ctx context.Context, t testing.TB, s blob.Store) {
	const racers, rounds = 32, 12
	for round := range rounds {
		key := fmt.Sprintf("race/%d/%d", round%3, round) // every third in a folder that is new
		start, results := make(chan struct{}), make([]error, racers)
		var group sync.WaitGroup
		for i := range racers {
			group.Go(func() {
				<-start
				body := sealed(uint64(i), 100+i*1000)
				results[i] = blob.PutBytesIfAbsent(ctx, s, key, body)
				if errors.Is(results[i], blob.ErrExists) {
					// The loser sees the winner's body at once.
					if err := readWhole(ctx, s, key); err != nil {
						results[i] = fmt.Errorf("after ErrExists: %w", err)
					}
				}
			})
		}
		close(start)
		group.Wait()
		winner := -1
		for i, err := range results {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("%s: racers %d and %d both created it", key, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, blob.ErrExists):
				t.Errorf("%s: racer %d: %v; want ErrExists", key, i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody created it", key)
		}
		want(ctx, t, s, key, string(sealed(uint64(winner), 100+winner*1000)))
	}
}

func readWhole(ctx context.Context, s blob.Store, key string) error {
	body, err := get(ctx, s, key, 0, -1)
	if err != nil {
		return err
	}
	return whole([]byte(body))
}

func checkAtomic(ctx context.Context, t testing.TB, s blob.Store) {
	const key, writersCount, writes = "hot/key", 4, 25
	if err := blob.PutBytes(ctx, s, key, sealed(0, 1000)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	var done atomic.Bool
	writing, writeCtx := errgroup.WithContext(ctx)
	for w := range writersCount {
		writing.Go(func() error {
			for i := range writes {
				seed := uint64(w*writes + i)
				if err := blob.PutBytes(writeCtx, s, key, sealed(seed, 8+int(mix(seed)%(1<<19)))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	reading, readCtx := errgroup.WithContext(ctx)
	for range 4 {
		reading.Go(func() error {
			for !done.Load() {
				if err := readWhole(readCtx, s, key); err != nil {
					return err
				}
				info, err := s.Stat(readCtx, key)
				if err != nil {
					return fmt.Errorf("stat: %w", err)
				}
				if info.Size < 8 {
					return fmt.Errorf("stat: %+v is shorter than any body", info)
				}
			}
			return nil
		})
	}
	if err := writing.Wait(); err != nil {
		t.Errorf("Put: %v", err)
	}
	done.Store(true)
	if err := reading.Wait(); err != nil {
		t.Errorf("reader: %v", err)
	}
}

func checkNewFolders(ctx context.Context, t testing.TB, s blob.Store) {
	group, groupCtx := errgroup.WithContext(ctx)
	var keys []string
	for i := range 64 {
		key := fmt.Sprintf("n/%d/%d/%d/%02d", i%2, i%4, i%8, i)
		keys = append(keys, key)
		group.Go(func() error { return writers(s)[i%2].do(groupCtx, key, strings.NewReader(key), int64(len(key))) })
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("write: %v", err)
	}
	for _, key := range keys {
		want(ctx, t, s, key, key)
	}
	slices.Sort(keys)
	wantList(ctx, t, s, "", "", keys...)
}

// checkReadYourWrites lets several writers at once write, look and delete, each its own keys in a shared folder.
func checkReadYourWrites(ctx context.Context, t testing.TB, s blob.Store) {
	group, groupCtx := errgroup.WithContext(ctx)
	for w := range 8 {
		group.Go(func() error {
			for i := range 10 {
				if err := oneLife(groupCtx, s, fmt.Sprintf("shared/%d-%d", w, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func oneLife(ctx context.Context, s blob.Store, key string) error {
	if err := blob.PutBytesIfAbsent(ctx, s, key, []byte(key)); err != nil {
		return err
	}
	if body, err := get(ctx, s, key, 0, -1); err != nil {
		return fmt.Errorf("get of the new object %s = %s: %w", key, brief(body), err)
	} else if body != key {
		return fmt.Errorf("get of the new object %s = %s", key, brief(body))
	}
	if listed, err := isListed(ctx, s, key); err != nil {
		return fmt.Errorf("list for the new object %s: %w", key, err)
	} else if !listed {
		return fmt.Errorf("the new object %s is not listed", key)
	}
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	if _, err := s.Stat(ctx, key); err == nil {
		return fmt.Errorf("stat of the deleted object %s finds it", key)
	} else if !errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("stat of the deleted object %s: %w", key, err)
	}
	if listed, err := isListed(ctx, s, key); err != nil {
		return fmt.Errorf("list for the deleted object %s: %w", key, err)
	} else if listed {
		return fmt.Errorf("the deleted object %s is listed", key)
	}
	return nil
}

func isListed(ctx context.Context, s blob.Store, key string) (bool, error) {
	for info, err := range s.List(ctx, key, "") {
		if err != nil || info.Key == key {
			return err == nil, err
		}
	}
	return false, nil
}

func checkListWhileWriting(ctx context.Context, t testing.TB, s blob.Store) {
	var stable []string
	for i := range 120 {
		key := fmt.Sprintf("l/%d/stable-%03d", i/60, i)
		put(ctx, t, s, key, key)
		stable = append(stable, key)
	}
	writing, writeCtx := errgroup.WithContext(ctx)
	var done atomic.Bool
	for w := range 3 {
		writing.Go(func() error {
			for i := 0; !done.Load(); i++ {
				// Before, between and behind the stable ones; each is deleted some rounds later.
				key := fmt.Sprintf("l/%d/%s-%d-%d", i%2, []string{"new", "stable-05", "z"}[i%3], w, i)
				if err := blob.PutBytes(writeCtx, s, key, []byte("x")); err != nil {
					return err
				}
				if err := s.Delete(writeCtx, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	defer func() {
		done.Store(true)
		if err := writing.Wait(); err != nil {
			t.Errorf("write: %v", err)
		}
	}()
	for range 25 {
		seen := map[string]bool{}
		for _, key := range list(ctx, t, s, "l/", "") {
			seen[key] = true
		}
		for _, key := range stable {
			if !seen[key] {
				t.Errorf("List misses %q, which was there all the time", key)
			}
		}
	}
}
