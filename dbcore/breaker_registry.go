package dbcore

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxBreakers is how many named breakers a registry keeps. A program has some dozens of operations; more names than this
// mean that something that varies, such as a customer's number, got into them.
const maxBreakers = 256

// overflowBreaker is the name of the breaker that new names share when no other can be dropped for them.
const overflowBreaker = "(other)"

// breakers is a registry: a Breaker for each operation, made when it is first asked for.
//
// The number of names is bounded. A new name beyond the bound takes the place of a closed breaker that was asked for once
// only, or failing that of any closed one, after which all must be asked for again to count as used (the CLOCK algorithm,
// which needs neither time stamps nor an exclusive lock when a breaker is used). What a
// closed breaker knows is at most Interval old and of little worth if nobody uses it; a request still under way keeps its
// Breaker, only its outcome counts no more. A breaker that is open or half-open is never dropped: it would come back
// closed, and an outage under many names would let everything pass. When there is no closed one, new names share one
// breaker.
type breakers struct {
	cfg BreakerConfig

	mu     sync.RWMutex
	byName map[string]*registered
	other  *Breaker
	mode   BreakerMode // of those that are made from now on
	closed bool
}

type registered struct {
	*Breaker
	used atomic.Bool // again since it was made, and since the last time that all were
}

// newBreakers checks cfg, so that get cannot fail. Errors: ErrInvalidConfig.
func newBreakers(cfg BreakerConfig) (*breakers, error) {
	other, err := NewBreaker(overflowBreaker, cfg)
	if err != nil {
		return nil, err
	}
	return &breakers{cfg: other.cfg, byName: map[string]*registered{}, other: other, mode: cfg.Mode}, nil
}

// get is the breaker of an operation. It is cheap for a name that exists: a shared lock and a map.
func (r *breakers) get(name string) *Breaker {
	r.mu.RLock()
	found := r.byName[name]
	r.mu.RUnlock()
	if found == nil {
		return r.add(name)
	}
	if !found.used.Load() { // not written each time, which would move its cache line between processors
		found.used.Store(true)
	}
	return found.Breaker
}

func (r *breakers) add(name string) *Breaker {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.byName[name]; found != nil {
		return found.Breaker
	}
	if len(r.byName) >= maxBreakers && !r.dropOne() {
		return r.other
	}
	cfg := r.cfg
	cfg.Mode = r.mode
	b, err := NewBreaker(name, cfg)
	if err != nil { // cannot be: newBreakers has checked cfg, and force the mode
		return r.other
	}
	if r.closed {
		b.Close()
	}
	r.byName[name] = &registered{Breaker: b} // not yet used: a flood of names that come once drops its own
	return b
}

// dropOne makes room for a name. The order of the map is random, which is what makes the search fair.
func (r *breakers) dropOne() bool {
	var victim string
	found := false
	for name, b := range r.byName {
		if b.State() != BreakerClosed {
			continue
		}
		if !b.used.Load() {
			delete(r.byName, name)
			return true
		}
		victim, found = name, true
	}
	for _, b := range r.byName {
		b.used.Store(false)
	}
	delete(r.byName, victim)
	return found
}

// all are the breakers, sorted by name, and the shared one if it was used.
func (r *breakers) all() []*Breaker {
	r.mu.RLock()
	list := make([]*Breaker, 0, len(r.byName)+1)
	for _, b := range r.byName {
		list = append(list, b.Breaker)
	}
	r.mu.RUnlock()
	if c := r.other.Counts(); c != (BreakerCounts{}) {
		list = append(list, r.other)
	}
	slices.SortFunc(list, func(a, b *Breaker) int { return strings.Compare(a.name, b.name) })
	return list
}

// force sets the mode of all breakers, those to come included. Errors: ErrInvalidConfig, and nothing is changed.
func (r *breakers) force(mode BreakerMode) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.other.Force(mode); err != nil {
		return err
	}
	r.mode = mode
	for _, b := range r.byName {
		if err := b.Force(mode); err != nil {
			return err
		}
	}
	return nil
}

// close ends the callbacks of all breakers, those to come included: see Breaker.Close.
func (r *breakers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.other.Close()
	for _, b := range r.byName {
		b.Close()
	}
}
