package dbcore

import (
	"slices"
	"sync"
)

// maxEvents is how many events may wait for a slow callback.
const maxEvents = 1000

// healthQueue hands events to callbacks on a goroutine of its own, so that a slow callback does not stop the probes.
type healthQueue struct {
	mu      sync.Mutex
	hooks   []*func(HealthEvent)
	waiting []HealthEvent
	arrived chan struct{} // has one token if events may be waiting; nil while nobody delivers
}

func (q *healthQueue) subscribe(fn func(HealthEvent)) (remove func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hooks = append(q.hooks, &fn)
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.hooks = slices.DeleteFunc(q.hooks, func(h *func(HealthEvent)) bool { return h == &fn })
	}
}

func (q *healthQueue) publish(e HealthEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.hooks) == 0 {
		return
	}
	if len(q.waiting) == maxEvents {
		q.waiting = slices.Delete(q.waiting, 0, 1)
	}
	q.waiting = append(q.waiting, e)
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// start begins to deliver; the function it returns delivers what is still waiting and ends that.
func (q *healthQueue) start() (stop func()) {
	arrived := make(chan struct{}, 1)
	arrived <- struct{}{} // what was published before
	q.mu.Lock()
	q.arrived = arrived
	q.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range arrived {
			q.deliver()
		}
	}()
	return func() {
		q.mu.Lock()
		q.arrived = nil
		q.mu.Unlock()
		close(arrived)
		<-ended
		q.deliver()
	}
}

func (q *healthQueue) deliver() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.mu.Unlock()
			return
		}
		e := q.waiting[0]
		q.waiting = q.waiting[1:]
		hooks := slices.Clone(q.hooks)
		q.mu.Unlock()
		for _, h := range hooks {
			(*h)(e)
		}
	}
}
