package dbcore

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// ClusterEvent tells that another node is the primary, or none, or one again, or that there are two.
type ClusterEvent struct {
	// At is when the Cluster noticed.
	At time.Time
	// From and To are the names of the primary before and after; "" is none.
	From, To string
	// Err is why there is none: ErrNoPrimary, perhaps ErrSplitBrain. nil if there is one.
	Err error
}

// OnChange has fn called with every change of the primary, in order, outside of locks and in the goroutine that noticed,
// which may be that of a request: it should be quick. fn may call the Cluster's methods, but for Close.
func (c *Cluster) OnChange(fn func(ClusterEvent)) (remove func()) { return c.events.add(fn) }

// announce notes what has changed and logs it. Under the Cluster's lock.
func (c *Cluster) announce(before, after *view) {
	name := func(v *view) string {
		if v.election.primary < 0 {
			return ""
		}
		return c.nodes[v.election.primary].name
	}
	from, to := name(before), name(after)
	if from == to && (to != "" || reasonOf(before) == reasonOf(after)) {
		return
	}
	if to == "" {
		c.policy.logger.Error("cluster has no primary", "was", from, "error", after.election.err)
	} else {
		c.policy.logger.Warn("cluster has a primary", "primary", to, "was", from, "timeline", after.election.timeline)
	}
	if from != to || errors.Is(before.election.err, ErrSplitBrain) != errors.Is(after.election.err, ErrSplitBrain) {
		c.events.queue(ClusterEvent{At: time.Now(), From: from, To: to, Err: after.election.err})
	}
}

func reasonOf(v *view) string {
	if v.election.err == nil {
		return ""
	}
	return v.election.err.Error()
}

// clusterEvents delivers events one by one and in order, without a goroutine of its own.
type clusterEvents struct {
	mu         sync.Mutex
	hooks      []*func(ClusterEvent)
	waiting    []ClusterEvent
	delivering bool
}

func (e *clusterEvents) add(fn func(ClusterEvent)) (remove func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hooks = append(e.hooks, &fn)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.hooks = slices.DeleteFunc(e.hooks, func(h *func(ClusterEvent)) bool { return h == &fn })
	}
}

func (e *clusterEvents) queue(ev ClusterEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(e.waiting, ev)
}

// deliver calls the hooks, unless somebody does so already, who then goes on to these events.
func (e *clusterEvents) deliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.delivering {
		return
	}
	e.delivering = true
	defer func() { e.delivering = false }()
	for len(e.waiting) > 0 {
		ev, hooks := e.waiting[0], slices.Clone(e.hooks)
		e.waiting = e.waiting[1:]
		func() {
			e.mu.Unlock()
			defer e.mu.Lock() // also when a hook panics
			for _, h := range hooks {
				(*h)(ev)
			}
		}()
	}
}
