package dbcore

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func newTestRegistry(t *testing.T, cfg BreakerConfig) *breakers {
	t.Helper()
	r, err := newBreakers(cfg)
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

func TestBreakersGivesOnePerName(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
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

func TestBreakersAreBounded(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
	for i := range 10 * maxBreakers {
		r.get(fmt.Sprint("customer ", i))
		if n := len(r.byName); n > maxBreakers {
			t.Fatalf("%d breakers, want at most %d", n, maxBreakers)
		}
	}
}

func TestBreakersKeepThoseThatAreUsedOrOpen(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
	used, open := r.get("used"), r.get("open")
	openByFailures(t, open)
	r.get("used")
	for i := range 10 * maxBreakers {
		r.get(fmt.Sprint("customer ", i))
	}
	if r.get("open") != open {
		t.Error("an open breaker was dropped, and its outage forgotten")
	}
	if r.get("used") != used {
		t.Error("a breaker in use was dropped for names that came once")
	}
}

func TestBreakersMakeRoomWhenAllAreUsed(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
	for range 2 {
		for i := range maxBreakers {
			r.get(fmt.Sprint("operation ", i))
		}
	}
	if b := r.get("one more"); b.Name() != "one more" || len(r.byName) != maxBreakers {
		t.Errorf("got %q, %d breakers", b.Name(), len(r.byName))
	}
}

func TestBreakersShareOneWhenAllAreOpen(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
	for i := range maxBreakers {
		openByFailures(t, r.get(fmt.Sprint("operation ", i)))
	}
	shared := r.get("one more")
	if shared != r.get("and another") || shared.Name() != overflowBreaker {
		t.Errorf("new names got %q, want the shared breaker", shared.Name())
	}
	openByFailures(t, shared)
	if list := r.all(); len(list) != maxBreakers+1 {
		t.Errorf("all gives %d, want the shared one too", len(list))
	}
	r.get("operation 7").Reset()
	if b := r.get("one more"); b == shared || b.Name() != "one more" {
		t.Error("there is room again, and the new name still shares")
	}
}

func TestBreakersForceReachesThoseToCome(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
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

func TestBreakersCloseReachesThoseToCome(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{OnStateChange: func(e BreakerEvent) { t.Errorf("told of %+v after close", e) }})
	before := r.get("before")
	r.close()
	for _, b := range []*Breaker{before, r.get("after"), r.other} {
		openByFailures(t, b)
		if b.events.running {
			t.Error("a goroutine was started after close")
		}
	}
}

func TestBreakersRefuseWrongSettings(t *testing.T) {
	if _, err := newBreakers(BreakerConfig{FailureRate: 2}); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "FailureRate") {
		t.Errorf("%v", err)
	}
}

func TestBreakersConcurrently(t *testing.T) {
	r := newTestRegistry(t, BreakerConfig{})
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
	if len(r.byName) > maxBreakers {
		t.Errorf("%d breakers", len(r.byName))
	}
}

func BenchmarkBreakersGet(b *testing.B) {
	r, err := newBreakers(BreakerConfig{})
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
