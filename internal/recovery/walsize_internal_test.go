package recovery

import (
	"maps"
	"testing"

	"lifeboat/internal/pg"
)

func TestFitWALSize(t *testing.T) {
	for size, want := range map[pg.SegmentSize]map[string]int32{
		1 << 20:    {},
		16 << 20:   {},
		32 << 20:   {},
		64 << 20:   {"min_wal_size": 128},
		1024 << 20: {"min_wal_size": 2048, "max_wal_size": 2048},
	} {
		got := map[string]int32{}
		if fitWALSize(got, size); !maps.Equal(got, want) {
			t.Errorf("segments of %d bytes: %v, want %v", size, got, want)
		}
	}
}
