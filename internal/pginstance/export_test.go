package pginstance

import (
	"testing"
	"time"
)

// SetPickPort replaces the choice of ports until the test ends.
func SetPickPort(t *testing.T, pick func() (int, error)) {
	old := pickPort
	pickPort = pick
	t.Cleanup(func() { pickPort = old })
}

// SetImmediateTimeout replaces the time that an immediate shutdown gets until the test ends.
func SetImmediateTimeout(t *testing.T, d time.Duration) {
	old := immediateTimeout
	immediateTimeout = d
	t.Cleanup(func() { immediateTimeout = old })
}

// PrivateSocketName is privateSocketName.
var PrivateSocketName = privateSocketName
