package basebackup

import "time"

// SetLeaseTTL changes how long a silent backup keeps others out, and returns the former value. No backup may run.
func SetLeaseTTL(d time.Duration) time.Duration {
	old := leaseTTL
	leaseTTL = d
	return old
}

// WithoutSecrets is for its test.
var WithoutSecrets = withoutSecrets
