package pgtest

import (
	"testing"
	"time"
)

// eventuallyTimeout is how long Eventually waits: long enough for a machine under load, so that only a condition that
// never comes true fails a test.
const eventuallyTimeout = time.Minute

// Eventually waits until f is true, looking every 5 ms, and fails the test if it is not within a minute. what says what
// was waited for.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	if !poll(eventuallyTimeout, f) {
		t.Fatalf("not within %v: %s", eventuallyTimeout, what)
	}
}

// poll looks every 5 ms whether f is true, for at most limit, and tells whether it was.
func poll(limit time.Duration, f func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-timeout.C:
			return f()
		}
	}
	return true
}
