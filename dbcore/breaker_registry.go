package dbcore

import (
	"slices"
	"strings"
	"sync"
)

// maxBreakers is how many named breakers a breakerSet makes, some kilobytes each. A program has some dozens of
// operations; more names than this mean that something that varies, such as a customer's number, got into them.
const maxBreakers = 512

// overflowBreaker is the name of the breaker that all names beyond maxBreakers share.
const overflowBreaker = "(other)"

// breakerSet has a Breaker for each named operation, made when it is first asked for.
//
// The number of names is bounded, and names beyond the bound share one breaker. None is ever dropped to make room for
// another. Whoever holds an Op holds its breaker, so a dropped one would go on to work where force and all do not reach
// it, and the name would come back with a second breaker beside it. An open one would even come back closed, and an
// outage under ever new names would let everything pass. Sharing is coarser and always safe: what it costs is that one
// operation's outage may hold up others of the names that are too many, and the name "(other)" in metrics says so.
type breakerSet struct {
	mu     sync.RWMutex
	cfg    BreakerConfig // of those that are made from now on
	byName map[string]*Breaker
	other  *Breaker
	closed bool
}

// newBreakerSet checks cfg, so that get cannot fail. Errors: ErrInvalidConfig.
func newBreakerSet(cfg BreakerConfig) (*breakerSet, error) {
	other, err := NewBreaker(overflowBreaker, cfg)
	if err != nil {
		return nil, err
	}
	return &breakerSet{cfg: other.cfg, byName: map[string]*Breaker{}, other: other}, nil
}

// get is the breaker of an operation, always the same for a name. It is cheap for one that was asked for before: a
// shared lock and a map.
func (s *breakerSet) get(name string) *Breaker {
	s.mu.RLock()
	b := s.byName[name]
	full := len(s.byName) >= maxBreakers
	s.mu.RUnlock()
	switch {
	case b != nil:
		return b
	case full:
		return s.other
	}
	return s.add(name)
}

func (s *breakerSet) add(name string) *Breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.byName[name]; b != nil {
		return b
	}
	if len(s.byName) >= maxBreakers {
		return s.other
	}
	b, err := NewBreaker(name, s.cfg)
	if err != nil { // cannot be: newBreakerSet has checked the settings, and force the mode
		return s.other
	}
	if s.closed {
		b.Close()
	}
	s.byName[name] = b
	return b
}

// all are the breakers that there are, sorted by name; the shared one is among them when the others are as many as may be.
func (s *breakerSet) all() []*Breaker {
	s.mu.RLock()
	list := make([]*Breaker, 0, len(s.byName)+1)
	for _, b := range s.byName {
		list = append(list, b)
	}
	if len(list) >= maxBreakers {
		list = append(list, s.other)
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Breaker) int { return strings.Compare(a.name, b.name) })
	return list
}

// force sets the mode of all breakers, those to come included. Errors: ErrInvalidConfig, and nothing is changed.
func (s *breakerSet) force(mode BreakerMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.other.Force(mode); err != nil {
		return err
	}
	s.cfg.Mode = mode
	for _, b := range s.byName {
		if err := b.Force(mode); err != nil {
			return err
		}
	}
	return nil
}

// close ends the callbacks of all breakers, those to come included: see Breaker.Close.
func (s *breakerSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.other.Close()
	for _, b := range s.byName {
		b.Close()
	}
}
