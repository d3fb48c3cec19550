package dbcore

import "time"

type (
	BreakerConfig    struct{ OnStateChange func(BreakerEvent) }
	BreakerEvent     struct{ Name string; From, To BreakerState }
	BreakerState     int
	Breaker          struct{}
	Permit           struct{}
	BreakerOpenError struct{ Until time.Time }
	breakerSet       struct{}
)

func (BreakerState) String() string          { return "" }
func (b *Breaker) Enter() (Permit, error)     { return Permit{}, nil }
func (p Permit) Leave(Health, time.Duration)  {}
func (e *BreakerOpenError) Error() string     { return "open" }
func newBreakerSet(BreakerConfig) (*breakerSet, error) { return &breakerSet{}, nil }
func (s *breakerSet) get(string) *Breaker     { return &Breaker{} }
