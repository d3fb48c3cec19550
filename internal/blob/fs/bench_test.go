package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"lifeboat/internal/blob"
)

// BenchmarkPut writes packs of 16 MiB, durable, by several writers. LIFEBOAT_BENCH_DIR names a folder on the disk to
// be measured.
func BenchmarkPut(b *testing.B) {
	const size = 16 << 20
	body := make([]byte, size)
	for i := 0; i < size; i += 8 {
		copy(body[i:], fmt.Sprint(rand.Uint64()))
	}
	for _, writers := range []int{1, 4} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := benchStore(b)
			b.SetBytes(size)
			b.ReportAllocs()
			var next atomic.Int64
			var group sync.WaitGroup
			for range writers {
				group.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						// A bounded number of names, so that a long run does not fill the disk.
						key := fmt.Sprintf("packs/%02x/%d", i%16, i%64)
						if err := s.Put(b.Context(), key, bytes.NewReader(body), size); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
		})
	}
}

// BenchmarkPutSmall writes small durable objects: what is left is the price of the fsyncs.
func BenchmarkPutSmall(b *testing.B) {
	s := benchStore(b)
	i := 0
	for b.Loop() {
		if err := blob.PutBytes(b.Context(), s, fmt.Sprintf("small/%d", i%1000), []byte("x")); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkList lists 100,000 keys in one folder and in 256.
func BenchmarkList(b *testing.B) {
	const keys = 100_000
	for _, folders := range []int{1, 256} {
		b.Run(fmt.Sprintf("folders=%d", folders), func(b *testing.B) {
			s := benchStore(b)
			for i := range keys {
				dir := filepath.Join(s.root, "packs", fmt.Sprintf("%02x", i%folders))
				if i < folders {
					if err := os.MkdirAll(dir, 0o750); err != nil {
						b.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%032x", i*7919%keys)), nil, 0o600); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range s.List(b.Context(), "packs/", "") {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != keys {
					b.Fatalf("%d of %d keys", n, keys)
				}
			}
			b.ReportMetric(float64(keys)*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

func benchStore(b *testing.B) *Store {
	b.Helper()
	root, err := os.MkdirTemp(os.Getenv("LIFEBOAT_BENCH_DIR"), "lifeboat-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(root) })
	return mustOpen(b, root, Options{Create: true})
}
