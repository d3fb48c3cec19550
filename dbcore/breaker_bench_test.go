package dbcore_test

import (
	"testing"
	"time"

	"lifeboat/dbcore"
)

func TestBreakerSuccessAllocatesNothing(t *testing.T) {
	for name, cfg := range breakerBenchmarks {
		b := newBreaker(t, cfg)
		if n := testing.AllocsPerRun(1000, func() {
			p, _ := b.Enter()
			p.Leave(hAlive, time.Microsecond)
		}); n > 0 {
			t.Errorf("%s: %v allocations a request, want none", name, n)
		}
	}
}

var breakerBenchmarks = map[string]dbcore.BreakerConfig{
	"default":   {},
	"all-rates": {FailureRate: 0.5, SlowCallRate: 0.5, SlowCall: time.Second},
	"monitor":   {Mode: dbcore.ModeMonitor},
	"disabled":  {Mode: dbcore.ModeDisabled},
}

func BenchmarkBreaker(b *testing.B) {
	for name, cfg := range breakerBenchmarks {
		breaker, err := dbcore.NewBreaker("orders", cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, _ := breaker.Enter()
				p.Leave(hAlive, time.Microsecond)
			}
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p, _ := breaker.Enter()
					p.Leave(hAlive, time.Microsecond)
				}
			})
		})
	}
	b.Run("do", func(b *testing.B) {
		breaker, _ := dbcore.NewBreaker("orders", dbcore.BreakerConfig{})
		b.ReportAllocs()
		for b.Loop() {
			_ = breaker.Do(func() error { return nil }, nil)
		}
	})
	b.Run("rejected", func(b *testing.B) {
		breaker, _ := dbcore.NewBreaker("orders", dbcore.BreakerConfig{OpenFor: time.Hour})
		for range 5 {
			p, _ := breaker.Enter()
			p.Leave(hFailure, 0)
		}
		b.ReportAllocs()
		for b.Loop() {
			_, _ = breaker.Enter()
		}
	})
}
