package config

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"90s", 90 * time.Second, true},
		{"1h30m", 90 * time.Minute, true},
		{"30d", 30 * day, true},
		{"1d12h", 36 * time.Hour, true},
		{"0d", 0, true},
		{"0", 0, true},
		{"1.5h", 90 * time.Minute, true},
		{"106751d", 106751 * day, true},
		{"", 0, false},
		{"5", 0, false},
		{"d", 0, false},
		{"1.5d", 0, false},
		{"-5m", 0, false},
		{"-0s", 0, false},
		{"-1d", 0, false},
		{"+5m", 0, false},
		{"1d-5m", 0, false},
		{"1d1d", 0, false},
		{"1h1d", 0, false},
		{"106752d", 0, false},
		{"106751d24h", 0, false},
		{"1 hour", 0, false},
		{"30 d", 0, false},
	}
	for _, test := range tests {
		got, err := ParseDuration(test.text)
		if (err == nil) != test.ok || got != test.want {
			t.Errorf("ParseDuration(%q) is %v, %v; want %v, ok %t", test.text, got, err, test.want, test.ok)
		}
	}
}

func TestFormatDuration_IsReadBack(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 15 * time.Minute: "15m", 90 * time.Minute: "1h30m", 36 * time.Hour: "36h", 10 * time.Second: "10s",
		0: "0s", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s", 100 * time.Minute: "1h40m", 20 * time.Hour: "20h",
	} {
		got := formatDuration(d)
		if back, err := ParseDuration(got); got != want || err != nil || back != d {
			t.Errorf("formatDuration(%v) is %q (read back %v, %v), want %q", d, got, back, err, want)
		}
	}
}
