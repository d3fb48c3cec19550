package dbcore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These benchmarks answer what dbcore costs beside bare pgxpool. On a machine that does other things, too, single figures
// mean little, so the contenders take turns in small blocks, forwards and backwards (A B C C B A), and what counts is the
// difference from pgxpool within such a round: whatever drifts slowly falls out of it. Beside each there is the 95 %
// confidence interval of its median, by bootstrap, and beside all of them that of pgxpool against itself, which says how
// far the figures can be trusted.

// BenchmarkOverheadStub measures processor time on connections that cost nothing: what is left is the client.
func BenchmarkOverheadStub(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			all := stubContenders(b)
			t := compare(b, all, func(c contender) float64 { return float64(perOp(b, processorTime, 100, k.of(c))) })
			b.Logf("%s on a stub connection, processor time and allocations:\n%s", k.name, t.differences(func(i int) string {
				return fmt.Sprintf("%3.0f allocs", allocations(b, k.of(all[i])))
			}))
			b.ReportMetric(t.median(2), "dbcore-extra-ns")
			b.ReportMetric(t.median(1), "noise-ns")
		})
	}
}

// BenchmarkOverheadSocket measures how long one caller waits, over a unix socket.
func BenchmarkOverheadSocket(b *testing.B) {
	all := socketContenders(b)
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			t := compare(b, all, func(c contender) float64 { return float64(perOp(b, wallTime, 20, k.of(c))) })
			b.Logf("%s over a unix socket, time of one caller:\n%s", k.name, t.differences(nil))
			b.ReportMetric(t.median(2), "dbcore-extra-ns")
			b.ReportMetric(t.median(1), "noise-ns")
		})
	}
}

// BenchmarkOverheadThroughput has 16 connections and as many callers.
func BenchmarkOverheadThroughput(b *testing.B) {
	all := socketContenders(b)
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			t := compare(b, all, func(c contender) float64 { return throughput(b, 20*time.Millisecond, k.of(c)) })
			b.Logf("%s at %d connections over a unix socket, requests a second:\n%s", k.name, parallelConns, t.ratios())
			b.ReportMetric(100*(t.ratio(2)-1), "dbcore-percent")
			b.ReportMetric(100*(t.ratio(1)-1), "noise-percent")
		})
	}
}

// table has the measurements of all contenders in each round. The first is what the others are compared with.
type table struct {
	names  []string
	rounds [][]float64
}

// compare runs a round per iteration. Each contender is measured twice in it.
func compare(b *testing.B, all []contender, measure func(contender) float64) table {
	var t table
	for _, c := range all {
		t.names = append(t.names, c.name)
		measure(c) // connections, prepared statements
	}
	for b.Loop() {
		round := make([]float64, len(all))
		for i, c := range all {
			round[i] += measure(c) / 2
		}
		for i := range slices.Backward(all) {
			round[i] += measure(all[i]) / 2
		}
		t.rounds = append(t.rounds, round)
	}
	return t
}

func (t table) column(of func(round []float64) float64) []float64 {
	values := make([]float64, len(t.rounds))
	for i, r := range t.rounds {
		values[i] = of(r)
	}
	return values
}

func (t table) extra(i int) []float64 {
	return t.column(func(r []float64) float64 { return r[i] - r[0] })
}

func (t table) relative(i int) []float64 {
	return t.column(func(r []float64) float64 { return r[i] / r[0] })
}

func (t table) median(i int) float64 { return median(t.extra(i)) }
func (t table) ratio(i int) float64  { return median(t.relative(i)) }

// differences tells nanoseconds beside the first; more adds to a line.
func (t table) differences(more func(i int) string) string {
	var s strings.Builder
	for i, name := range t.names {
		if i == 0 {
			fmt.Fprintf(&s, "  %-14s %9.0f ns                      ", name, median(t.column(func(r []float64) float64 { return r[0] })))
		} else {
			lo, hi := bootstrap(t.extra(i))
			fmt.Fprintf(&s, "  %-14s %+9.0f ns  [%+7.0f, %+7.0f]  ", name, t.median(i), lo, hi)
		}
		if more != nil {
			s.WriteString(more(i))
		}
		s.WriteByte('\n')
	}
	fmt.Fprintf(&s, "  median of %d rounds, 95 %% confidence", len(t.rounds))
	return s.String()
}

// ratios tells percent of the first.
func (t table) ratios() string {
	var s strings.Builder
	for i, name := range t.names {
		if i == 0 {
			fmt.Fprintf(&s, "  %-14s %9.0f /s\n", name, median(t.column(func(r []float64) float64 { return r[0] })))
			continue
		}
		lo, hi := bootstrap(t.relative(i))
		fmt.Fprintf(&s, "  %-14s %+8.1f %%   [%+6.1f, %+6.1f]\n", name, 100*(t.ratio(i)-1), 100*(lo-1), 100*(hi-1))
	}
	fmt.Fprintf(&s, "  median of %d rounds, 95 %% confidence", len(t.rounds))
	return s.String()
}

// bootstrap is the 95 % confidence interval of the median.
func bootstrap(values []float64) (lo, hi float64) {
	const resamples = 1000
	random := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	return medians[resamples*25/1000], medians[resamples*975/1000]
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func wallTime() time.Duration { return time.Since(processStart) }

var processStart = time.Now()

// processorTime is what this process has used, to the nanosecond; cpuTime knows it to the microsecond.
func processorTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// perOp is the time of one of n calls.
func perOp(tb testing.TB, clock func() time.Duration, n int, fn func(context.Context) error) time.Duration {
	ctx := context.Background()
	began := clock()
	for range n {
		if err := fn(ctx); err != nil {
			tb.Fatal(err)
		}
	}
	return (clock() - began) / time.Duration(n)
}

// throughput is how many calls a second parallelConns callers make in about d.
func throughput(tb testing.TB, d time.Duration, fn func(context.Context) error) float64 {
	ctx := context.Background()
	var done sync.WaitGroup
	var calls atomic.Int64
	began := time.Now()
	for range parallelConns {
		done.Go(func() {
			n := int64(0)
			for time.Since(began) < d {
				if err := fn(ctx); err != nil {
					tb.Error(err)
					return
				}
				n++
			}
			calls.Add(n)
		})
	}
	done.Wait()
	return float64(calls.Load()) / time.Since(began).Seconds()
}

func allocations(tb testing.TB, fn func(context.Context) error) float64 {
	ctx := context.Background()
	return testing.AllocsPerRun(1000, func() {
		if err := fn(ctx); err != nil {
			tb.Fatal(err)
		}
	})
}
