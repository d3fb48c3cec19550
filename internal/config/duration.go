package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var errDuration = errors.New("write a duration such as 90s, 15m, 1h30m, 30d or 1d12h")

// ParseDuration reads a duration of the configuration: one of Go's ("90s", "1h30m"), behind any whole number of days
// ("30d", "1d12h"), where a day is 24 hours. Negative durations and numbers without a unit are refused.
func ParseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	var total time.Duration
	if number, rest, ok := strings.Cut(s, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 32)
		if err != nil || days > uint64(math.MaxInt64/day) {
			return 0, errDuration
		}
		total, s = time.Duration(days)*day, rest
		if s == "" {
			return total, nil
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || rest < 0 || strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") || rest > math.MaxInt64-total {
		return 0, errDuration
	}
	return total + rest, nil
}

// formatDuration writes a duration for ParseDuration to read, without the zero units that Go appends ("1h0m0s").
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
