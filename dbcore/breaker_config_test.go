package dbcore_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

func TestNewBreakerRefuses(t *testing.T) {
	for _, tc := range []struct {
		field string
		cfg   dbcore.BreakerConfig
	}{
		{"Mode", dbcore.BreakerConfig{Mode: 4}},
		{"Mode", dbcore.BreakerConfig{Mode: -1}},
		{"FailureRate", dbcore.BreakerConfig{FailureRate: 1.01}},
		{"FailureRate", dbcore.BreakerConfig{FailureRate: math.NaN()}},
		{"SlowCallRate", dbcore.BreakerConfig{SlowCallRate: -0.1, SlowCall: 1}},
		{"SlowCall", dbcore.BreakerConfig{SlowCallRate: 0.5}},
		{"SlowCall", dbcore.BreakerConfig{SlowCall: time.Second}},
		{"SlowCall", dbcore.BreakerConfig{SlowCall: -1}},
		{"Buckets", dbcore.BreakerConfig{Buckets: 1}},
		{"Buckets", dbcore.BreakerConfig{Buckets: 1001}},
		{"Interval", dbcore.BreakerConfig{Interval: time.Millisecond}},
		{"Interval", dbcore.BreakerConfig{Interval: math.MaxInt64}},
		{"OpenFor", dbcore.BreakerConfig{OpenFor: -1}},
		{"OpenFor", dbcore.BreakerConfig{OpenFor: math.MaxInt64}},
		{"ProbeTimeout", dbcore.BreakerConfig{ProbeTimeout: -1}},
		{"ProbeTimeout", dbcore.BreakerConfig{ProbeTimeout: math.MaxInt64}},
	} {
		_, err := dbcore.NewBreaker("orders", tc.cfg)
		if !errors.Is(err, dbcore.ErrInvalidConfig) || !strings.Contains(fmt.Sprint(err), tc.field) {
			t.Errorf("%+v: %v, want ErrInvalidConfig that names %s", tc.cfg, err, tc.field)
		}
	}
}
