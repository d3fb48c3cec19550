// Package fault decorates a blob.Store with scripted faults, so that a test can say what goes wrong, where and when.
//
// A test states rules. Each call on the store is offered to the rules in the order in which they were given. A rule
// that matches the operation and the key counts the call; the first one whose turn it is takes the call and acts, and
// the rules behind it neither see nor count it. So two rules for the same key with Nth 1 act on the first and on the
// second call, and a list of rules reads like a script.
//
// Unused returns the rules that never did anything. A test ends by asserting that there are none: otherwise it passes
// although the fault it is about did not happen.
//
//	store := fault.New(inner,
//		fault.Rule{Op: fault.PutIfAbsent, Key: fault.Prefix("wal/"), Nth: 2, Do: fault.FailAfter(nil)}, // lost reply
//		fault.Rule{Op: fault.GetRead, Key: fault.Contains("/pack/"), At: 4096, Do: fault.Flip()},       // bit rot
//	)
//	...
//	if unused := store.Unused(); len(unused) > 0 { t.Errorf("faults that did not happen: %v", unused) }
//
// It is for tests only. Rules that cannot work (a Flip of a Put) panic when they are given.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ErrInjected is the error of Fail(nil) and FailAfter(nil).
var ErrInjected = errors.New("injected fault")

// Op is one operation of a store, or several joined by "|".
type Op uint8

// The operations. A call of Get is offered to rules for Get when the object is opened, and, once it is open, to rules
// for GetRead, which act on the body.
const (
	Put Op = 1 << iota
	PutIfAbsent
	Get
	GetRead
	Stat
	List
	Delete

	Writes = Put | PutIfAbsent
	Any    = Put | PutIfAbsent | Get | GetRead | Stat | List | Delete
)

var opNames = []string{"put", "put if absent", "get", "read", "stat", "list", "delete"}

// String names the operations.
func (o Op) String() string {
	var names []string
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Forever is the Rule.Count that means every matching call.
const Forever = -1

// Rule is one fault: which calls it meets, and what it does to them.
type Rule struct {
	// Name tells the rule in messages. Empty: made up from the other fields.
	Name string
	// Op is the operation that it meets, or several. It must not be 0.
	Op Op
	// Key tells whether it meets a key; for List it is asked about the prefix. nil meets every key. It may be called
	// concurrently and must not call the store.
	Key func(key string) bool
	// Nth is the first matching call on which it acts, counted from 1; 0 means 1.
	Nth int
	// Count is on how many matching calls from the Nth on it acts; 0 means 1, Forever all.
	Count int
	// At is the place inside a body or a list where it acts; it must be 0 for the other operations.
	// For GetRead it is an offset in the object, whatever range is read: a range that ends at or before it is not
	// met, and one that begins behind it is met at its first byte (but not by Flip, which needs the very byte).
	// For List it is the number of entries given before.
	At int64
	// Do is what it does.
	Do Action
}

// Exactly meets one key.
func Exactly(key string) func(string) bool { return func(k string) bool { return k == key } }

// Prefix meets keys that begin with prefix.
func Prefix(prefix string) func(string) bool {
	return func(k string) bool { return strings.HasPrefix(k, prefix) }
}

// Contains meets keys that contain part.
func Contains(part string) func(string) bool {
	return func(k string) bool { return strings.Contains(k, part) }
}

// String tells the rule for messages.
func (r Rule) String() string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("%s of %s (nth %d, count %d, at %d)", r.Do.name, r.Op, r.Nth, r.Count, r.At)
}

// Call is what a hook is told about the call that it is in.
type Call struct {
	Op  Op
	Key string // the prefix, for List
}

// Action is what a rule does. The functions below make them; the zero value is not one.
type Action struct {
	name string
	ops  Op // where it makes sense
	// One of these is set. before and after run around the effect of a call, or at Rule.At and at the end of a body
	// or list. Their error, if any, becomes that of the call.
	before, after  func(ctx context.Context, c Call) error
	flip, truncate bool
}

// Fail makes the call fail with err (nil: ErrInjected) and have no effect. A body or list fails at Rule.At.
func Fail(err error) Action {
	return Action{name: "fail", ops: Any, before: failWith(err)}
}

// FailAfter lets the call have its effect and then reports err (nil: ErrInjected), as when a reply is lost. A body or
// list fails at its end, after everything was given. A call that fails by itself keeps its own error.
func FailAfter(err error) Action {
	return Action{name: "fail after", ops: Any, after: failWith(err)}
}

func failWith(err error) func(context.Context, Call) error {
	if err == nil {
		err = ErrInjected
	}
	return func(_ context.Context, c Call) error { return fmt.Errorf("%s %s: %w", c.Op, c.Key, err) }
}

// Truncate ends a body at Rule.At without an error. It has acted only if that took bytes away.
func Truncate() Action { return Action{name: "truncate", ops: GetRead, truncate: true} }

// Flip inverts the lowest bit of the byte at Rule.At of the object in each read that covers it.
func Flip() Action { return Action{name: "flip", ops: GetRead, flip: true} }

// Delay waits for d, or until ctx is done, which is then the call's error, and lets the call go on.
func Delay(d time.Duration) Action {
	return Action{name: "delay", ops: Any, before: func(ctx context.Context, _ Call) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// Hang waits until ctx is done and fails with its error.
func Hang() Action {
	return Action{name: "hang", ops: Any, before: func(ctx context.Context, _ Call) error {
		<-ctx.Done()
		return ctx.Err()
	}}
}

// Before calls hook before the effect of the call, or at Rule.At of a body or list, so that a test can block, kill or
// change something at that place. An error becomes that of the call, which then has no effect; nil lets it go on.
// The hook may use the store.
func Before(hook func(ctx context.Context, c Call) error) Action {
	return Action{name: "before", ops: Any, before: hook}
}

// After is Before, but after the effect: the hook is not called if the call failed by itself.
func After(hook func(ctx context.Context, c Call) error) Action {
	return Action{name: "after", ops: Any, after: hook}
}

// rule is a Rule with its counters, which the script's lock guards.
type rule struct {
	Rule
	seen, taken, acted int
}

// script is the list of rules.
type script struct {
	mu    sync.Mutex
	rules []*rule
}

func (s *script) add(rules []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		if problem := r.problem(); problem != "" {
			panic(fmt.Sprintf("fault: rule %q: %s", r, problem))
		}
		r.Nth = max(r.Nth, 1)
		if r.Count == 0 {
			r.Count = 1
		}
		s.rules = append(s.rules, &rule{Rule: r})
	}
}

// problem tells why a rule cannot work, or "".
func (r Rule) problem() string {
	switch {
	case r.Op == 0 || r.Op&^Any != 0:
		return "Op is not an operation"
	case r.Do.ops == 0:
		return "Do is not set"
	case r.Op&^r.Do.ops != 0:
		return fmt.Sprintf("%s is for %s only", r.Do.name, r.Do.ops)
	case r.At != 0 && r.Op&^(GetRead|List) != 0:
		return "At is for GetRead and List only"
	case r.At != 0 && r.Do.after != nil:
		return "what comes after the effect has no At"
	case r.At < 0 || r.Nth < 0 || r.Count < Forever:
		return "a number is negative"
	}
	return ""
}

// take returns the rule whose turn it is to act on a call, or nil. covers, unless nil, excludes rules by their place.
func (s *script) take(op Op, key string, covers func(Rule) bool) *rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.Op&op == 0 || (r.Key != nil && !r.Key(key)) || (covers != nil && !covers(r.Rule)) {
			continue
		}
		r.seen++
		if r.seen >= r.Nth && (r.Count == Forever || r.taken < r.Count) {
			r.taken++
			return r
		}
	}
	return nil
}

// mark records that a rule has really done something.
func (s *script) mark(r *rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.acted++
}

func (s *script) unused() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unused []Rule
	for _, r := range s.rules {
		if r.acted == 0 {
			unused = append(unused, r.Rule)
		}
	}
	return unused
}
