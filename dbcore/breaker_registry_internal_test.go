package dbcore

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func newTestBreakerSet(t *testing.T, cfg BreakerConfig) *breakerSet {
	t.Helper()
	r, err := newBreakerSet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openByFailures(t *testing.T, b *Breaker) {
	t.Helper()
	for range 5 {
		p, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		p.Leave(HealthFailure, 0)
	}
	if b.State() != BreakerOpen {
		t.Fatalf("%q is %s", b.Name(), b.State())
	}
}

func TestBreakerSetGivesOneForEachName(t *testing.T) {
	r := newTestBreakerSet(t, BreakerConfig{})
	read, write := r.get("read"), r.get("write")
	if read == write || r.get("read") != read || read.Name() != "read" {
		t.Fatal("want one breaker a name, always the same")
	}
	openByFailures(t, write)
	if read.State() != BreakerClosed {
		t.Error("the failures of one operation opened the breaker of another")
	}
	if list := r.all(); len(list) != 2 || list[0] != read || list[1] != write {
		t.Errorf("all gives %v", list)
	}
}

func TestBreakerSetIsBounded(t *testing.T) {
	r := newTestBreakerSet(t, BreakerConfig{})
	first := r.get("first")
	for i := range 4 * maxBreakers {
		r.get(fmt.Sprint("customer ", i))
	}
	if list := r.all(); len(list) != maxBreakers+1 {
		t.Errorf("%d breakers, want %d and the one that names beyond share", len(list), maxBreakers)
	}
	if r.get("first") != first {
		t.Error("a breaker was dropped for another name")
	}
	shared := r.get("one more")
	if shared != r.get("and another") || shared.Name() != overflowBreaker {
		t.Errorf("names that are too many got %q, want the shared breaker", shared.Name())
	}
	openByFailures(t, shared)
	if list := r.all(); list[0] != shared {
		t.Errorf("the first of all is %q, want the shared one", list[0].Name())
	}
	if first.State() != BreakerClosed {
		t.Error("the shared breaker's failures opened another")
	}
}

func TestBreakerSetForceReachesThoseToCome(t *testing.T) {
	r := newTestBreakerSet(t, BreakerConfig{})
	before := r.get("before")
	if err := r.force(BreakerMode(9)); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("force(9): %v", err)
	}
	if err := r.force(ModeForceOpen); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Breaker{before, r.get("after"), r.other} {
		if b.Mode() != ModeForceOpen {
			t.Errorf("%q has mode %s", b.Name(), b.Mode())
		}
	}
}

func TestBreakerSetCloseReachesThoseToCome(t *testing.T) {
	r := newTestBreakerSet(t, BreakerConfig{OnStateChange: func(e BreakerEvent) { t.Errorf("told of %+v after close", e) }})
	before := r.get("before")
	r.close()
	for _, b := range []*Breaker{before, r.get("after"), r.other} {
		openByFailures(t, b)
		if b.events.running {
			t.Error("a goroutine was started after close")
		}
	}
}

func TestBreakerSetRefusesWrongSettings(t *testing.T) {
	if _, err := newBreakerSet(BreakerConfig{FailureRate: 2}); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "FailureRate") {
		t.Errorf("%v", err)
	}
}

func TestBreakerSetConcurrently(t *testing.T) {
	r := newTestBreakerSet(t, BreakerConfig{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				b := r.get(fmt.Sprint((g*31 + i*7) % (2 * maxBreakers)))
				if p, err := b.Enter(); err == nil {
					p.Leave(Health(i%3), 0)
				}
				switch i % 100 {
				case 50:
					r.all()
				case 99:
					_ = r.force(BreakerMode(i / 100 % 2))
				}
			}
		})
	}
	wg.Wait()
	if n := len(r.byName); n != maxBreakers {
		t.Errorf("%d breakers, want %d", n, maxBreakers)
	}
}

func BenchmarkBreakerSetGet(b *testing.B) {
	r, err := newBreakerSet(BreakerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 50 {
		r.get(fmt.Sprint("operation ", i))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.get("operation 7")
		}
	})
}
