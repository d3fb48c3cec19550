package schedule

import (
	"strings"
	"testing"
	"time"
)

func TestParseCron(t *testing.T) {
	for text, want := range map[string]string{
		"0 2 * * *":           "0 2 * * *",
		"0 */6 * * *":         "0 0,6,12,18 * * *",
		"*/20 5-7 * * *":      "0,20,40 5,6,7 * * *",
		"0 4 * * 7":           "0 4 * * 0",
		"0 4 * * Sun":         "0 4 * * 0",
		"0 4 * * 5-7":         "0 4 * * 0,5,6",
		"0 4 * * 0-7":         "0 4 * * *",
		"0 4 * * */2":         "0 4 * * 0,2,4,6",
		"0 4 * * mon-fri":     "0 4 * * 1,2,3,4,5",
		"0 6 1 1,4,7,10 *":    "0 6 1 1,4,7,10 *",
		"0 6 1 JAN-mar/2 *":   "0 6 1 1,3 *",
		"59 23 31 12 *":       "59 23 31 12 *",
		"50/5 0 * * *":        "50,55 0 * * *",
		"5,1,3 0 29 2 *":      "1,3,5 0 29 2 *",
		" 0\t2  1-31  1-12 *": "0 2 * * *",
	} {
		c, err := ParseCron(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if c.String() != want {
			t.Errorf("%q is %q, want %q", text, c, want)
		}
	}
}

func TestParseCron_Refuses(t *testing.T) {
	for text, says := range map[string]string{
		"0 2 * *":       "4 fields",
		"0 0 2 * * *":   "6 fields",
		"@daily":        "1 fields",
		"60 2 * * *":    `minute "60": must be from 0 to 59`,
		"0 24 * * *":    "hour",
		"0 2 0 * *":     "day of month",
		"0 2 * 13 *":    "month",
		"0 2 * * 8":     "day of week",
		"0 2 * * x":     "day of week",
		"-1 2 * * *":    "minute",
		"5-1 2 * * *":   "backwards",
		"*/0 2 * * *":   "step",
		"*/60 2 * * *":  "step",
		"*/x 2 * * *":   "step",
		", 2 * * *":     "minute",
		"1- 2 * * *":    "minute",
		"0 4 1 * 0":     "both",
		"0 4 30 2 *":    "no month has",
		"0 4 31 4,6 *":  "no month has",
		"?\x00 2 * * *": "minute",
	} {
		if c, err := ParseCron(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is %v, %v; want an error with %q", text, c, err, says)
		}
	}
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Before looks back over months, leap days and changes of the clock.
func TestCalendar_Before(t *testing.T) {
	for _, c := range []struct{ cron, zone, at, want string }{
		{"0 2 * * *", "UTC", "2026-11-26T02:00:00Z", "2026-11-26T02:00:00Z"},
		{"0 2 * * *", "UTC", "2026-11-26T01:59:59Z", "2026-11-25T02:00:00Z"},
		{"0 */6 * * *", "UTC", "2026-11-26T17:59:00Z", "2026-11-26T12:00:00Z"},
		{"0 4 * * 0", "UTC", "2026-11-26T02:00:00Z", "2026-11-22T04:00:00Z"},
		{"0 5 1 * *", "UTC", "2026-11-01T04:59:00Z", "2026-10-01T05:00:00Z"},
		{"0 5 31 * *", "UTC", "2026-05-01T00:00:00Z", "2026-03-31T05:00:00Z"},
		{"0 6 1 1,4,7,10 *", "UTC", "2026-01-01T05:00:00Z", "2025-10-01T06:00:00Z"},
		{"0 6 29 2 *", "UTC", "2026-01-01T05:00:00Z", "2024-02-29T06:00:00Z"},
		{"0 6 29 2 *", "UTC", "2104-02-29T05:59:00Z", "2096-02-29T06:00:00Z"},
		{"0 2 * * *", "Europe/Berlin", "2026-07-01T00:30:00Z", "2026-07-01T00:00:00Z"},
		{"0 2 * * *", "Europe/Berlin", "2026-12-01T00:30:00Z", "2026-11-30T01:00:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T01:30:00Z"}, // no 02:30 that day
		{"30 0 * * *", "Asia/Beirut", "2026-03-29T12:00:00Z", "2026-03-27T22:30:00Z"},   // no midnight that day
		{"* * * * *", "Asia/Kathmandu", "2026-03-29T12:00:59Z", "2026-03-29T12:00:00Z"},
	} {
		cal, err := ParseCron(c.cron)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := cal.Before(at(t, c.at), zone(t, c.zone))
		if !ok || !got.Equal(at(t, c.want)) {
			t.Errorf("%s in %s before %s is %s (%v), want %s", c.cron, c.zone, c.at, got.UTC().Format(time.RFC3339), ok, c.want)
		}
	}
}

func TestCalendar_ShortestGap(t *testing.T) {
	for cron, want := range map[string]time.Duration{
		"0 2 * * *": 24 * time.Hour, "0 5 1 * *": 24 * time.Hour, "0 */6 * * *": 6 * time.Hour, "*/7 * * * *": 4 * time.Minute,
		"0 23,1 * * *": 2 * time.Hour, "* * * * *": time.Minute, "59,0 0 * * *": 59 * time.Minute, "59,0 0,23 * * *": time.Minute,
	} {
		cal, err := ParseCron(cron)
		if err != nil {
			t.Fatal(err)
		}
		if got := cal.shortestGap(); got != want {
			t.Errorf("%s: %v, want %v", cron, got, want)
		}
	}
}
