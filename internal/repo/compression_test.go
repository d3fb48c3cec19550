package repo

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var dataDirectory = flag.String("data-directory", "", "a stopped server's data directory, for BenchmarkChunkSize")

// BenchmarkChunkSize compresses the relation files of a real data directory in chunks of several sizes, as writers
// would. Decision 0001 quotes its ratios:
//
//	go test ./internal/repo -run '^$' -bench ChunkSize -benchtime 1x -data-directory DIR
func BenchmarkChunkSize(b *testing.B) {
	if *dataDirectory == "" {
		b.Skip("no -data-directory")
	}
	files := relationFiles(b, *dataDirectory)
	for _, how := range []Compression{Zstd, S2} {
		for _, size := range []int{32 << 10, 64 << 10, 128 << 10, 512 << 10, 1 << 20, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%dK", how, size>>10), func(b *testing.B) {
				comp, err := newCompressor(how, size)
				if err != nil {
					b.Fatal(err)
				}
				var plain, stored int64
				var best time.Duration
				for b.Loop() {
					plain, stored = 0, 0
					start := time.Now()
					for _, data := range files {
						for len(data) > 0 {
							n := min(size, len(data))
							plain += int64(n)
							stored += int64(len(comp.payload(data[:n]))) + tagSize + lengthSize
							data = data[n:]
						}
					}
					if d := time.Since(start); best == 0 || d < best {
						best = d
					}
				}
				b.SetBytes(plain)
				b.ReportMetric(float64(plain)/float64(stored), "ratio")
				b.ReportMetric(float64(plain)/best.Seconds()/1e6, "bestMB/s")
			})
		}
	}
}

// relationFiles reads all files below base and global, leaving out those that are only zeros.
func relationFiles(b *testing.B, dir string) map[string][]byte {
	b.Helper()
	files := map[string][]byte{}
	for _, sub := range []string{"base", "global"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if len(bytes.Trim(data, "\x00")) > 0 {
				files[path] = data
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return files
}
