package contract

import "time"

// ProgressReport is what ProgressSignal carries: for people, never something to decide on.
type ProgressReport struct {
	// Activity is one of the activity names, Attempt counts from 1.
	Activity string `json:"activity"`
	Attempt  int32  `json:"attempt"`
	Host     string `json:"host,omitempty"`
	// At is when it was so, by the clock of the host that works.
	At       time.Time `json:"at"`
	Progress Progress  `json:"progress"`
}

// Share is the part that is done, from 0 to 1; ok is false while the total is not known.
func (p Progress) Share() (share float64, ok bool) {
	if p.Total <= 0 {
		return 0, false
	}
	return min(1, max(0, float64(p.Done)/float64(p.Total))), true
}

// Left is how long the rest of the phase takes at the present rate; ok is false while that cannot be told.
func (p Progress) Left() (left time.Duration, ok bool) {
	if p.Total <= 0 || p.Rate <= 0 || p.Done >= p.Total {
		return 0, false
	}
	return time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second)), true
}
