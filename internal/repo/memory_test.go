package repo_test

import (
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// bottomless takes packs of data and forgets them, after a pause that makes uploads overlap.
type bottomless struct {
	*mem.Store
	taken atomic.Int64
}

func (s *bottomless) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if !strings.Contains(key, "/data/") {
		return s.Store.PutIfAbsent(ctx, key, body, size)
	}
	<-time.After(time.Millisecond)
	s.taken.Add(size)
	return nil
}

// endless gives size bytes that compress about 3 times, no two chunks of them equal.
type endless struct {
	block      []byte
	size, done int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.done == e.size {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), e.size-e.done)], e.block[e.done%int64(len(e.block)):])
	for i := 0; i+8 <= n; i += 4096 {
		binary.LittleEndian.PutUint64(p[i:], uint64(e.done)+uint64(i))
	}
	e.done += int64(n)
	return n, nil
}

// peakHeap samples the heap (objects, dead ones not yet swept, and their fragments) until stopped.
func peakHeap() (stop func() uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	done, result := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		for {
			metrics.Read(samples)
			peak = max(peak, samples[0].Value.Uint64()+samples[1].Value.Uint64())
			select {
			case <-done:
				result <- peak
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(done); return <-result }
}

// TestMemory_OfAWriter stores a stream of 512 MiB with defaults, and with as many workers as a large host has.
func TestMemory_OfAWriter(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	for _, tt := range []struct {
		name    string
		workers int
		size    int64
		most    uint64 // MiB
	}{
		{"defaults", 0, 512 << 20, 200},
		{"32 workers", 32, 256 << 20, 256},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &bottomless{Store: mem.New()}
			r, err := repo.OpenOrCreate(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			source := &endless{block: pattern(1, 16<<20), size: tt.size / int64(raceFactor())}
			runtime.GC()
			stop := peakHeap()
			w := newWriter(t, r, repo.WriterOptions{Workers: tt.workers, CheckpointEvery: 50 * time.Millisecond})
			fw, err := w.File(t.Context(), repo.Entry{Path: "f"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fw.ReadFrom(source); err != nil {
				t.Fatal(err)
			}
			if err := fw.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Finish(); err != nil {
				t.Fatal(err)
			}
			peak, stats := stop(), w.Stats()
			if stats.SourceBytes != source.size || stats.NewChunks != stats.Chunks || store.taken.Load() < source.size/6 {
				t.Errorf("statistics %+v, %d bytes taken: the stream was not stored", stats, store.taken.Load())
			}
			t.Logf("peak heap %d MiB for %d MiB of source, %d MiB stored", peak>>20, source.size>>20, stats.StoredBytes>>20)
			if peak > tt.most<<20 {
				t.Errorf("peak heap %d MiB, want at most %d", peak>>20, tt.most)
			}
		})
	}
}

// TestMemory_OfManyFiles measures what a backup keeps of each file until it ends.
func TestMemory_OfManyFiles(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	r, _ := newRepo(t)
	w := newWriter(t, r, repo.WriterOptions{CheckpointEvery: time.Hour})
	const files = 100_000
	before := heapInUse()
	for i := range files {
		e := repo.Entry{Path: "base/16384/" + strings.Repeat("1", i%7) + string(rune('a'+i%26)) + time.Duration(i).String(), Type: repo.TypeDir}
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	each := (heapInUse() - before) / files
	runtime.KeepAlive(w)
	t.Logf("%d bytes a file", each)
	if each > 260 {
		t.Errorf("%d bytes a file, the package comment says about 250", each)
	}
}

// TestMemory_OfCheckpoints measures what a taken-over attempt's checkpoints take.
func TestMemory_OfCheckpoints(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	r, _ := newRepo(t)
	id := repo.NewBackupID(time.Now(), repo.Full)
	w := newWriter(t, r, repo.WriterOptions{BackupID: id, CheckpointEvery: time.Hour})
	const files = 20_000
	for i := range files {
		if err := writeFile(t.Context(), w, "base/16384/"+strconv.Itoa(16384+i), binary.AppendVarint(nil, int64(i))); err != nil {
			t.Fatal(err)
		}
	}
	repo.Checkpoint(t, w)
	w.Close()
	load := func() repo.Baseline {
		base, err := r.ResumeBaseline(t.Context(), "c1", id)
		if err != nil {
			t.Fatal(err)
		}
		return base
	}
	load() // the decoder keeps memory of its own
	before := heapInUse()
	base := load()
	each := (heapInUse() - before) / files
	for _, i := range []int{0, 1, files / 2, files - 1} {
		path := "base/16384/" + strconv.Itoa(16384+i)
		if e, ok, err := base.Lookup(t.Context(), path); !ok || err != nil || e.Path != path {
			t.Errorf("Lookup %s: %+v, %v, %v", path, e, ok, err)
		}
	}
	if e, ok, err := base.Lookup(t.Context(), "base/16384/1"); ok || err != nil {
		t.Errorf("Lookup of a missing file: %+v, %v", e, err)
	}
	t.Logf("%d bytes an entry", each)
	if each > 130 {
		t.Errorf("%d bytes an entry, the code says about 100", each)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
