package dbcore

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestDetectionBound(t *testing.T) {
	for _, tc := range []struct {
		interval, limit time.Duration
		failures        int
		want            time.Duration
	}{
		{500 * time.Millisecond, time.Second, 1, 1500 * time.Millisecond}, // suspect
		{500 * time.Millisecond, time.Second, 3, 3500 * time.Millisecond}, // down
		{5 * time.Second, time.Second, 3, 16 * time.Second},
		{time.Second, 10 * time.Second, 3, 31 * time.Second},
		{time.Duration(1 << 60), time.Second, 20, 1 << 62}, // no overflow
	} {
		if got := detectionBound(tc.interval, tc.limit, tc.failures); got != tc.want {
			t.Errorf("detectionBound(%s, %s, %d) = %s, want %s", tc.interval, tc.limit, tc.failures, got, tc.want)
		}
	}
}

func TestHealthThresholdsThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		interval time.Duration
		t        HealthThresholds
		refused  bool
	}{
		"defaults":            {DefaultHealthInterval, HealthThresholds{}, false},
		"exactly 30 s":        {time.Second, HealthThresholds{ProbeLimit: 29 * time.Second, DownAfter: 1}, false},
		"just above 30 s":     {time.Second, HealthThresholds{ProbeLimit: 29*time.Second + 1, DownAfter: 1}, true},
		"rare probes":         {11 * time.Second, HealthThresholds{}, true},
		"many failures":       {time.Second, HealthThresholds{DownAfter: 30}, true},
		"a huge interval":     {1 << 62, HealthThresholds{}, true},
		"negative interval":   {-1, HealthThresholds{}, true},
		"negative limit":      {time.Second, HealthThresholds{ProbeLimit: -1}, true},
		"negative DownAfter":  {time.Second, HealthThresholds{DownAfter: -1}, true},
		"negative hysteresis": {time.Second, HealthThresholds{RaiseAfter: -1}, true},
		"80 instead of 0.8":   {time.Second, HealthThresholds{IdleShare: 80}, true},
		"alerts off":          {time.Second, HealthThresholds{IdleShare: -1, MinOpen: -1, Wait: -1, Ping: -1, Query: -1, Lag: -1}, false},
	} {
		err := tc.t.withDefaults().validate(tc.interval)
		if refused := errors.Is(err, ErrInvalidConfig); refused != tc.refused || err != nil && !refused {
			t.Errorf("%s: %v, want refused %t", name, err, tc.refused)
		}
	}
	d := DefaultHealthThresholds()
	if d.IdleShare != 0.8 || d.MinOpen != 1 || d.Wait != time.Second || d.Ping != 2*time.Second || d.Query != 3*time.Second || d.ProbeLimit != time.Second {
		t.Errorf("defaults are %+v", d)
	}
}

func TestStateJudge(t *testing.T) {
	thresholds := HealthThresholds{DownAfter: 3, UpAfter: 2}
	outcomes := map[rune]outcome{'p': probePassed, 'r': probeRefused, 'f': probeFailed}
	letters := map[HealthState]string{ServerUp: "U", ServerSuspect: "S", ServerDown: "D", ServerUnknown: "?"}
	for _, tc := range []struct{ probes, want string }{
		{"ppp", "UUU"},
		{"pfp", "USU"},
		{"pffp", "USSU"},
		{"pfff", "USSD"},
		{"fff", "SSD"},
		{"pffpffp", "USSUSSU"},       // not in a row
		{"pfffpp", "USSDDU"},         // back only after two
		{"pfffpfpp", "USSDDDDU"},     // in a row
		{"pfffpfpfpp", "USSDDDDDDU"}, // flapping stays down
		{"prrrrr", "USSSSS"},         // it answers: never down
		{"pffrff", "USSSSS"},         // an answer begins the count anew
		{"pfffrpp", "USSDSUU"},       // it lives again
	} {
		var j stateJudge
		var got strings.Builder
		for _, p := range tc.probes {
			got.WriteString(letters[j.step(outcomes[p], thresholds)])
		}
		if got.String() != tc.want {
			t.Errorf("%s gives %s, want %s", tc.probes, got.String(), tc.want)
		}
	}
}

func TestAlarmHysteresis(t *testing.T) {
	thresholds := HealthThresholds{RaiseAfter: 3, ClearAfter: 2}
	for _, tc := range []struct{ samples, want string }{
		{"xx.xx.xx", "........"},
		{"xxx", "..^"},
		{"xxxxx", "..^.."},         // raised once
		{"xxx.x.x..", "..^.....v"}, // cleared only after two in a row
		{"xxx..xx", "..^.v.."},
		{"xxx..xxx", "..^.v..^"},
	} {
		var a alarm
		var got strings.Builder
		for _, s := range tc.samples {
			switch changed := a.step(s == 'x', thresholds); {
			case changed && a.open:
				got.WriteByte('^')
			case changed:
				got.WriteByte('v')
			default:
				got.WriteByte('.')
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s gives %s, want %s", tc.samples, got.String(), tc.want)
		}
	}
}

func TestBreaches(t *testing.T) {
	fine := HealthSnapshot{Pool: PoolStats{MaxOpen: 25, Open: 5, Idle: 4, InUse: 1, Wait: time.Second}, Ping: 2 * time.Second, Query: 3 * time.Second, Lag: &Lag{Delay: 30 * time.Second}}
	off := HealthThresholds{IdleShare: -1, MinOpen: -1, Wait: -1, Ping: -1, Query: -1, Lag: -1}
	for _, tc := range []struct {
		name string
		edit func(*HealthSnapshot)
		want AlertKind
	}{
		{"all at their thresholds", func(*HealthSnapshot) {}, ""},
		{"all idle", func(s *HealthSnapshot) { s.Pool.Idle, s.Pool.InUse = 5, 0 }, AlertIdle},
		{"the only one idle", func(s *HealthSnapshot) { s.Pool.Open, s.Pool.Idle, s.Pool.InUse = 1, 1, 0 }, ""},
		{"none open", func(s *HealthSnapshot) { s.Pool.Open, s.Pool.Idle, s.Pool.InUse = 0, 0, 0 }, AlertMinOpen},
		{"long waits", func(s *HealthSnapshot) { s.Pool.Wait++ }, AlertWait},
		{"slow ping", func(s *HealthSnapshot) { s.Ping++ }, AlertPing},
		{"slow query", func(s *HealthSnapshot) { s.Query++ }, AlertQuery},
		{"behind", func(s *HealthSnapshot) { s.Lag.Delay++ }, AlertLag},
		{"a primary", func(s *HealthSnapshot) { s.Lag, s.Role = nil, RolePrimary }, ""},
	} {
		s := fine
		lag := *fine.Lag
		s.Lag = &lag
		tc.edit(&s)
		var got []AlertKind
		for _, b := range breaches(s, DefaultHealthThresholds()) {
			if b.passed {
				got = append(got, b.kind)
			}
		}
		if tc.want == "" && len(got) != 0 || tc.want != "" && (len(got) != 1 || got[0] != tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, got, tc.want)
		}
		for _, b := range breaches(s, off) {
			if b.passed {
				t.Errorf("%s: %s though it is switched off", tc.name, b.kind)
			}
		}
	}
	for _, b := range breaches(HealthSnapshot{}, DefaultHealthThresholds()) {
		if b.kind == AlertLag {
			t.Error("a lag that nobody has measured is judged")
		}
	}
}

func TestPoolWatchKnowsOfWaitsThatDoNotEnd(t *testing.T) {
	var w poolWatch
	now := time.Now()
	step := func(after time.Duration, s PoolStats) time.Duration {
		now = now.Add(after)
		w.step(now, &s)
		return s.Wait
	}
	for _, tc := range []struct {
		what  string
		stats PoolStats
		want  time.Duration
	}{
		{"nobody waits", PoolStats{}, 0},
		{"two waited", PoolStats{Waits: 2, WaitTime: 4 * time.Second}, 2 * time.Second},
		{"not since", PoolStats{Waits: 2, WaitTime: 4 * time.Second}, 0},
		{"one waits", PoolStats{Waits: 2, WaitTime: 4 * time.Second, Waiting: 1}, 0},
		{"and waits", PoolStats{Waits: 2, WaitTime: 4 * time.Second, Waiting: 3}, time.Second},
		{"and waits", PoolStats{Waits: 2, WaitTime: 4 * time.Second, Waiting: 3}, 2 * time.Second},
		{"one got through", PoolStats{Waits: 3, WaitTime: 7 * time.Second, Waiting: 2}, 3 * time.Second},
		{"the others wait", PoolStats{Waits: 3, WaitTime: 7 * time.Second, Waiting: 2}, 0},
		{"no more", PoolStats{Waits: 5, WaitTime: 9 * time.Second}, time.Second},
	} {
		if got := step(time.Second, tc.stats); got != tc.want {
			t.Errorf("%s: wait %s, want %s", tc.what, got, tc.want)
		}
	}
}

func TestLagWatch(t *testing.T) {
	streaming := func(receive, replay LSN) standbyStatus {
		return standbyStatus{receive: receive, replay: replay, hasReceiver: true, receiverStatus: "streaming"}
	}
	gone := func(receive, replay LSN) standbyStatus { return standbyStatus{receive: receive, replay: replay} }
	type step struct {
		at      time.Duration
		s       standbyStatus
		primary LSN // known as of now; 0: not known
		known   bool
		bytes   int64
		delay   time.Duration
	}
	sec := time.Second
	for name, steps := range map[string][]step{
		"up to date":              {{0, streaming(100, 100), 0, true, 0, 0}, {sec, streaming(200, 200), 0, true, 0, 0}, {9 * sec, streaming(200, 200), 0, true, 0, 0}},
		"replay behind receive":   {{0, streaming(100, 100), 0, true, 0, 0}, {sec, streaming(300, 100), 0, true, 200, 0}, {3 * sec, streaming(400, 200), 0, true, 200, 2 * sec}, {4 * sec, streaming(400, 300), 0, true, 100, sec}, {5 * sec, streaming(400, 400), 0, true, 0, 0}},
		"receive behind primary":  {{0, streaming(100, 100), 100, true, 0, 0}, {sec, streaming(100, 100), 500, true, 400, 0}, {6 * sec, streaming(100, 100), 900, true, 800, 5 * sec}, {7 * sec, streaming(900, 900), 900, true, 0, 0}},
		"severed, nobody knows":   {{0, streaming(100, 100), 0, true, 0, 0}, {sec, gone(100, 100), 0, false, 0, sec}, {60 * sec, gone(100, 100), 0, false, 0, 60 * sec}, {61 * sec, streaming(100, 100), 0, true, 0, 0}},
		"severed, primary known":  {{0, streaming(100, 100), 100, true, 0, 0}, {sec, gone(100, 100), 100, true, 0, sec}, {4 * sec, gone(100, 100), 700, true, 600, 4 * sec}},
		"cut off with a backlog":  {{0, streaming(300, 100), 0, true, 200, 0}, {sec, gone(0, 100), 0, false, 200, sec}, {2 * sec, gone(0, 300), 0, false, 0, 2 * sec}},
		"never in touch":          {{0, gone(0, 100), 0, false, 0, 0}, {30 * sec, gone(0, 100), 0, false, 0, 30 * sec}},
		"a new, shorter timeline": {{0, streaming(900, 800), 0, true, 100, 0}, {sec, gone(900, 800), 0, false, 100, sec}, {2 * sec, streaming(820, 820), 0, true, 0, 0}, {3 * sec, streaming(840, 820), 0, true, 20, 0}},
	} {
		var w lagWatch
		began := time.Now()
		for i, st := range steps {
			now := began.Add(st.at)
			var primary primaryPosition
			if st.primary != 0 {
				primary = primaryPosition{st.primary, now.Add(-sec)}
			}
			l := w.step(now, st.s, primary)
			if l.Known != st.known || l.Bytes != st.bytes || l.Delay != st.delay {
				t.Errorf("%s, step %d: known %t, %d bytes, delay %s; want %t, %d, %s", name, i, l.Known, l.Bytes, l.Delay, st.known, st.bytes, st.delay)
			}
			if (l.Reason == "up to date") != (st.known && st.delay == 0 && st.bytes == 0) {
				t.Errorf("%s, step %d: reason %q", name, i, l.Reason)
			}
		}
	}
}

func TestLagOfWhatIsNotKnown(t *testing.T) {
	now := time.Now()
	old := primaryPosition{100, now.Add(-primaryFresh - 1)}
	for name, tc := range map[string]struct {
		s        standbyStatus
		primary  primaryPosition
		receiver ReceiverState
		known    bool
	}{
		"streaming":                         {standbyStatus{hasReceiver: true, receiverStatus: "streaming", silence: receiverSilence}, primaryPosition{}, ReceiverStreaming, true},
		"streaming, seen without the right": {standbyStatus{hasReceiver: true}, primaryPosition{}, ReceiverStreaming, true},
		"silent":                            {standbyStatus{hasReceiver: true, receiverStatus: "streaming", silence: receiverSilence + 1}, primaryPosition{}, ReceiverSilent, false},
		"silent, primary known":             {standbyStatus{hasReceiver: true, receiverStatus: "streaming", silence: receiverSilence + 1}, primaryPosition{100, now}, ReceiverSilent, true},
		"starting":                          {standbyStatus{hasReceiver: true, receiverStatus: "starting"}, primaryPosition{}, ReceiverGone, false},
		"gone, old word of the primary":     {standbyStatus{}, old, ReceiverGone, false},
	} {
		if l := new(lagWatch).step(now, tc.s, tc.primary); l.Receiver != tc.receiver || l.Known != tc.known {
			t.Errorf("%s: receiver %s, known %t; want %s, %t", name, l.Receiver, l.Known, tc.receiver, tc.known)
		}
	}
}

func TestLagWatchIsBounded(t *testing.T) {
	var w lagWatch
	began := time.Now()
	var l Lag
	for i := range 10 * maxSeen {
		s := standbyStatus{hasReceiver: true, receive: LSN(100 + i), replay: 100}
		l = w.step(began.Add(time.Duration(i)*time.Second), s, primaryPosition{})
	}
	// The first position beyond replay came at second 1. Thinning may lose it, and no more than its neighbours.
	if want := (10*maxSeen - 2) * time.Second; len(w.seen) > maxSeen || l.Delay > want || l.Delay < want-40*time.Second {
		t.Errorf("%d positions kept, delay %s, want at most %d and about %s", len(w.seen), l.Delay, maxSeen, want)
	}
}
