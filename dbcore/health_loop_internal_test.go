package dbcore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// scriptedProber stands for the network, so that the monitor's timing can be told to the nanosecond on synctest's clock.
// What a real server does is for the tests in health_test.go.
type scriptedProber struct {
	mode   atomic.Value // string: up, standby, hung, refused, full
	probes atomic.Int64
	closed atomic.Bool
}

func (p *scriptedProber) probe(ctx context.Context) probeResult {
	p.probes.Add(1)
	switch p.mode.Load() {
	case "hung":
		<-ctx.Done()
		return probeResult{err: ctx.Err(), outcome: probeFailed}
	case "refused":
		return probeResult{err: errors.New("refused"), outcome: probeFailed}
	case "full":
		return probeResult{err: errors.New("too many clients"), outcome: probeRefused}
	case "standby":
		return probeResult{role: RoleStandby, ping: time.Millisecond, query: time.Millisecond, standby: standbyStatus{hasReceiver: true}}
	}
	return probeResult{role: RolePrimary, ping: time.Millisecond, query: time.Millisecond, wal: 100}
}

func (p *scriptedProber) close() { p.closed.Store(true) }

// runScript runs a monitor in a bubble. Events are noted as they come, with their time since the bubble's beginning.
func runScript(t *testing.T, thresholds HealthThresholds, f func(m *HealthMonitor, p *scriptedProber, log func() []string)) {
	synctest.Test(t, func(t *testing.T) {
		p := &scriptedProber{}
		p.mode.Store("up")
		open := PoolStats{MaxOpen: 25, Open: 2, InUse: 1, Idle: 1}
		m := newHealthMonitor(DefaultHealthInterval, thresholds.withDefaults(), func() prober { return p }, func() PoolStats { return open }, func(string) {})
		began := time.Now()
		var mu sync.Mutex // waiting for a time orders nothing, to the race detector
		var lines []string
		m.OnChange(func(e HealthEvent) {
			mu.Lock()
			defer mu.Unlock()
			switch e.Kind {
			case EventState:
				lines = append(lines, fmt.Sprintf("%s %s", time.Since(began), e.To))
			case EventRole:
				lines = append(lines, fmt.Sprintf("%s %s", time.Since(began), e.ToRole))
			case EventRaised, EventCleared:
				lines = append(lines, fmt.Sprintf("%s %s %s", time.Since(began), e.Kind, e.Alert.Kind))
			default:
				lines = append(lines, fmt.Sprintf("%s %s", time.Since(began), e.Kind))
			}
		})
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(); !errors.Is(err, ErrMonitorRunning) {
			t.Errorf("second Start: %v", err)
		}
		if err := m.Run(t.Context()); !errors.Is(err, ErrMonitorRunning) {
			t.Errorf("Run beside Start: %v", err)
		}
		synctest.Wait()
		f(m, p, func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			l := slices.Clone(lines)
			lines = nil
			return l
		})
		m.Stop()
		m.Stop()
		if !p.closed.Load() {
			t.Error("the probe's connection is left open")
		}
	})
}

func wantLog(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("events\n%q, want\n%q", got, want)
	}
}

// A hung server is suspect after at most interval + limit, and down within the bound that settings are judged by.
func TestMonitorDetectsAHungServer(t *testing.T) {
	runScript(t, HealthThresholds{}, func(_ *HealthMonitor, p *scriptedProber, log func() []string) {
		wantLog(t, log(), "0s primary", "0s up")
		<-time.After(time.Millisecond) // right after a probe is the worst moment
		p.mode.Store("hung")
		<-time.After(5 * time.Second)
		// The ping is unanswered since the last answer, at 0 s: 2 s are passed with the second failure at 2.5 s, the
		// query's 3 s with the third at 3.5 s. Three in a row raise.
		wantLog(t, log(), "1.5s suspect", "3.5s down", "4.5s raised ping")
		p.mode.Store("standby")
		<-time.After(5 * time.Second)
		// The probe that hangs at the change ends at 5.5 s, the third in a row whose query is overdue.
		wantLog(t, log(), "5.5s raised query", "5.5s standby", "5.5s recycled", "6s up", "6s recycled", "7.5s cleared ping", "7.5s cleared query")
	})
}

func TestMonitorDetectsARefusal(t *testing.T) {
	runScript(t, HealthThresholds{}, func(_ *HealthMonitor, p *scriptedProber, log func() []string) {
		wantLog(t, log(), "0s primary", "0s up")
		<-time.After(time.Millisecond)
		p.mode.Store("refused")
		<-time.After(1700 * time.Millisecond)
		wantLog(t, log(), "500ms suspect", "1.5s down")
	})
}

// A suspicion is looked into at once, and a crowd of them by one probe per 20 ms.
func TestMonitorLooksAtOnceWhenSomethingIsSuspected(t *testing.T) {
	runScript(t, HealthThresholds{}, func(m *HealthMonitor, p *scriptedProber, log func() []string) {
		log()
		<-time.After(100 * time.Millisecond)
		p.mode.Store("refused")
		m.Probe()
		wantLog(t, log(), "100ms suspect")
		p.mode.Store("up")
		before := p.probes.Load()
		for range 1000 {
			m.Probe()
			<-time.After(100 * time.Microsecond)
		}
		if n := p.probes.Load() - before; n < 4 || n > 6 {
			t.Errorf("%d probes in 100 ms of suspicion, want about 5", n)
		}
	})
}

// A server that answers and turns the monitor away is never down for that.
func TestMonitorDoesNotCallAFullServerDown(t *testing.T) {
	runScript(t, HealthThresholds{}, func(m *HealthMonitor, p *scriptedProber, log func() []string) {
		log()
		p.mode.Store("full")
		<-time.After(time.Minute)
		if s := m.Snapshot(); s.State != ServerSuspect || s.Err == nil {
			t.Errorf("%s, %v, want suspect with its reason", s.State, s.Err)
		}
	})
}

// A change of role replaces the pool's connections: those that wrote to the old primary must not go on (25006).
func TestMonitorRecyclesAfterADemotion(t *testing.T) {
	runScript(t, HealthThresholds{}, func(_ *HealthMonitor, p *scriptedProber, log func() []string) {
		log()
		p.mode.Store("standby")
		<-time.After(600 * time.Millisecond)
		wantLog(t, log(), "500ms standby", "500ms recycled")
		p.mode.Store("up")
		<-time.After(600 * time.Millisecond)
		wantLog(t, log(), "1s primary")
	})
}

// A callback that hangs costs no probe, and a monitor that is stopped meanwhile still tells everything.
func TestMonitorProbesBehindASlowCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scriptedProber{}
		p.mode.Store("up")
		m := newHealthMonitor(DefaultHealthInterval, DefaultHealthThresholds(), func() prober { return p }, func() PoolStats { return PoolStats{Open: 1} }, func(string) {})
		var told int
		remove := m.OnChange(func(HealthEvent) { <-time.After(time.Hour); told++ })
		_ = m.Start()
		<-time.After(10*time.Second + 1)
		if n := p.probes.Load(); n != 21 {
			t.Errorf("%d probes in 10 s, want 21", n)
		}
		m.Stop()
		if told != 2 {
			t.Errorf("%d events told, want 2 (role and state)", told)
		}
		remove()
	})
}

// The lag of a standby that does not answer is unknown and grows; it is never the last one known.
func TestMonitorLagOfASilentStandby(t *testing.T) {
	runScript(t, HealthThresholds{}, func(m *HealthMonitor, p *scriptedProber, _ func() []string) {
		p.mode.Store("standby")
		<-time.After(2 * time.Second)
		if l := m.Snapshot().Lag; l == nil || !l.Known || l.Delay != 0 {
			t.Fatalf("lag %+v, want a known 0", l)
		}
		p.mode.Store("refused")
		<-time.After(40 * time.Second)
		s := m.Snapshot()
		if l := s.Lag; l == nil || l.Known || l.Delay < 39*time.Second {
			t.Errorf("lag %+v after 40 s of silence, want unknown and 40 s", l)
		}
		if !slices.ContainsFunc(s.Alerts, func(a HealthAlert) bool { return a.Kind == AlertLag }) {
			t.Errorf("no alert of the lag in %v", s.Alerts)
		}
	})
}

func TestHealthQueueDropsTheOldest(t *testing.T) {
	var q healthQueue
	var got []HealthEvent
	q.subscribe(func(e HealthEvent) { got = append(got, e) })
	for i := range maxEvents + 5 {
		q.publish(HealthEvent{From: HealthState(i)})
	}
	q.start()()
	if len(got) != maxEvents || got[0].From != 5 || got[maxEvents-1].From != maxEvents+4 {
		t.Errorf("%d events, first %d, last %d", len(got), got[0].From, got[len(got)-1].From)
	}
}
