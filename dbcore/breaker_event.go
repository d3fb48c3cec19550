package dbcore

import "sync"

// maxPendingEvents bounds what waits for a callback that hangs. A breaker changes its state a few times a minute.
const maxPendingEvents = 256

// eventQueue calls fn with events one at a time, in the order in which they were pushed, on a goroutine that lives only
// while there are any. push never waits for fn, so it may be called with a lock held that fn wants.
type eventQueue struct {
	fn func(BreakerEvent)

	mu      sync.Mutex
	pending []BreakerEvent
	running bool
	closed  bool
	dropped uint64
	panics  uint64
}

func (q *eventQueue) push(e BreakerEvent) {
	if q.fn == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.pending) >= maxPendingEvents {
		q.pending = q.pending[1:] // the newest tell where the breaker stands
		q.dropped++
	}
	q.pending = append(q.pending, e)
	if !q.running {
		q.running = true
		go q.run()
	}
}

func (q *eventQueue) run() {
	done := false
	defer func() {
		if !done { // fn has ended the goroutine by runtime.Goexit
			go q.run()
		}
	}()
	for {
		e, ok := q.next()
		if !ok {
			done = true
			return
		}
		q.call(e)
	}
}

// next takes the next event. Without one the goroutine has ended as far as push can see.
func (q *eventQueue) next() (BreakerEvent, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		q.pending = nil
		q.running = false
		return BreakerEvent{}, false
	}
	e := q.pending[0]
	q.pending = q.pending[1:]
	return e, true
}

// call survives a panic of fn: what watches the breaker must not end the program that it is there to keep alive.
func (q *eventQueue) call(e BreakerEvent) {
	returned := false
	defer func() {
		if returned {
			return
		}
		_ = recover()
		q.mu.Lock()
		q.panics++
		q.mu.Unlock()
	}()
	q.fn(e)
	returned = true
}

func (q *eventQueue) losses() (panics, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.panics, q.dropped
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.pending = nil
}
