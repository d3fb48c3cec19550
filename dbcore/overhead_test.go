package dbcore_test

import (
	"testing"
	"time"
)

// The bounds of processor time are a multiple of what BenchmarkOverheadStub measures on a quiet machine (about 0.3 µs for
// a statement, 1.4 µs for a transaction), for the race detector and for neighbours. Allocations are the same everywhere.
func TestOverhead(t *testing.T) {
	bounds := map[string]struct {
		allocations float64
		time        time.Duration
	}{
		"exec":  {allocations: 0, time: 15 * time.Microsecond},
		"query": {allocations: 1, time: 15 * time.Microsecond},
		"tx":    {allocations: 12, time: 50 * time.Microsecond},
	}
	all := stubContenders(t)
	bare, core := all[0], all[2]
	for _, k := range kinds {
		bound := bounds[k.name]
		before := allocations(t, k.of(bare))
		if extra := allocations(t, k.of(core)) - before; extra > bound.allocations {
			t.Errorf("%s: %v allocations more than pgxpool's %v, want at most %v", k.name, extra, before, bound.allocations)
		}
		least := func(c contender) time.Duration {
			least := time.Hour
			for range 20 {
				least = min(least, perOp(t, processorTime, 100, k.of(c)))
			}
			return least
		}
		if extra := least(core) - least(bare); extra > bound.time {
			t.Errorf("%s: %s more than pgxpool, want at most %s", k.name, extra, bound.time)
		}
	}
}
