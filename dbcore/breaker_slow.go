package dbcore

import "time"

// slowWindow counts calls, and slow ones among them, over the last len(buckets) periods, as gobreaker does failures.
type slowWindow struct {
	period  time.Duration
	start   time.Time
	age     int64 // of the current bucket, in periods since start
	buckets []slowBucket
	total   slowBucket
}

type slowBucket struct{ calls, slow uint32 }

func (w *slowWindow) clear(now time.Time) {
	w.start, w.age, w.total = now, 0, slowBucket{}
	clear(w.buckets)
}

// roll forgets what is too old.
func (w *slowWindow) roll(now time.Time) {
	age := int64(now.Sub(w.start) / w.period)
	for steps := min(age-w.age, int64(len(w.buckets))); steps > 0; steps-- {
		oldest := &w.buckets[(age-steps+1)%int64(len(w.buckets))]
		w.total.calls -= oldest.calls
		w.total.slow -= oldest.slow
		*oldest = slowBucket{}
	}
	w.age = max(w.age, age)
}

// add counts a call that ends now and returns the totals.
func (w *slowWindow) add(now time.Time, slow bool) slowBucket {
	w.roll(now)
	current := &w.buckets[w.age%int64(len(w.buckets))]
	current.calls++
	w.total.calls++
	if slow {
		current.slow++
		w.total.slow++
	}
	return w.total
}
