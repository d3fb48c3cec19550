package dbcore

import "testing"

func TestBreakerKeepsLittleOfABurst(t *testing.T) {
	b, err := NewBreaker("orders", BreakerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var burst []Permit
	for range 10 * maxFreePermits {
		p, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		burst = append(burst, p)
	}
	for _, p := range burst {
		p.Leave(HealthAlive, 0)
	}
	if len(b.free) != maxFreePermits {
		t.Errorf("%d permits kept, want %d", len(b.free), maxFreePermits)
	}
}
