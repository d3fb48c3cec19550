package dbcore_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// breakerRun drives a breaker and its model through the same random requests and compares all that can be seen.
type breakerRun struct {
	t      *testing.T
	rnd    *rand.Rand
	b      *dbcore.Breaker
	m      *breakerModel
	cfg    dbcore.BreakerConfig
	events []dbcore.BreakerEvent // since the last comparison
	seen   map[string]int
	held   []heldPermit
	trace  []string
}

type heldPermit struct {
	p dbcore.Permit
	m *modelPermit
}

// TestBreakerAgainstModel: the same seed gives the same requests, but not the same jitter.
func TestBreakerAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	seen := map[string]int{}
	for i := range uint64(150 * pgtest.Scale(t)) {
		synctest.Test(t, func(t *testing.T) {
			r := newBreakerRun(t, rand.New(rand.NewPCG(seed, i)), seen)
			for range 400 {
				r.step()
			}
			c := r.b.Counts()
			seen["rejected"] += int(c.Rejected)
			seen["would reject"] += int(c.WouldReject)
			seen["probes lost"] += int(c.ProbesLost)
		})
	}
	t.Logf("seen: %v", seen)
	for _, what := range []string{
		"closed to open", "open to half-open", "half-open to open", "half-open to closed", "open to closed",
		"rejected", "would reject", "probes lost", "closed by late probes",
	} {
		if seen[what] == 0 {
			t.Errorf("%q was never seen: the test has lost its sense", what)
		}
	}
}

func newBreakerRun(t *testing.T, rnd *rand.Rand, seen map[string]int) *breakerRun {
	r := &breakerRun{t: t, rnd: rnd, seen: seen}
	cfg := dbcore.BreakerConfig{
		Mode:                dbcore.BreakerMode(rnd.IntN(2)),
		ConsecutiveFailures: 1 + rnd.Uint32N(6),
		FailureRate:         []float64{0, 0.3, 0.5, 1}[rnd.IntN(4)],
		MinimumCalls:        1 + rnd.Uint32N(10),
		Interval:            10 * time.Second,
		Buckets:             []int{2, 3, 5, 10}[rnd.IntN(4)],
		OpenFor:             time.Duration(1+rnd.IntN(5)) * time.Second,
		HalfOpenRequests:    1 + rnd.Uint32N(3),
		ProbeTimeout:        time.Duration(1+rnd.IntN(5)) * time.Second,
	}
	if rnd.IntN(2) == 0 {
		cfg.SlowCallRate, cfg.SlowCall = 0.2+0.8*rnd.Float64(), time.Second
	}
	r.cfg = cfg
	r.m = newBreakerModel(cfg, time.Now())
	cfg.OnStateChange = func(e dbcore.BreakerEvent) { r.events = append(r.events, e) }
	r.b = newBreaker(t, cfg)
	return r
}

func (r *breakerRun) step() {
	switch n := r.rnd.IntN(100); {
	case n < 20:
		d := []time.Duration{1, time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 12 * time.Second}[r.rnd.IntN(6)]
		r.note("pass %s", d)
		passTime(d)
		r.m.passed(time.Now())
	case n < 60:
		r.enter()
	case n < 94:
		r.leave()
	case n < 96 && len(r.held) > 0: // lose one
		i := r.rnd.IntN(len(r.held))
		r.note("lose %+v", *r.held[i].m)
		r.held[i] = r.held[len(r.held)-1]
		r.held = r.held[:len(r.held)-1]
	case n < 98:
		mode := dbcore.BreakerMode(r.rnd.IntN(4))
		r.note("force %s", mode)
		force(r.t, r.b, mode)
		r.m.force(mode, time.Now())
	case n < 99:
		r.note("reset")
		r.b.Reset()
		r.m.reset(time.Now())
	}
	r.compareEvents()
	r.b.State() // so that both have been asked at this time
	r.m.ask(time.Now())
	r.compareEvents()
	r.compareState()
}

func (r *breakerRun) enter() {
	p, err := r.b.Enter()
	m, ok := r.m.enter(time.Now())
	r.note("enter: %v, model %+v", err, m)
	if (err == nil) != ok {
		r.fail("Enter says %v, the model lets it pass: %t", err, ok)
	}
	if err == nil {
		r.held = append(r.held, heldPermit{p, m})
	}
}

func (r *breakerRun) leave() {
	if len(r.held) == 0 {
		return
	}
	i := r.rnd.IntN(len(r.held))
	held := r.held[i]
	if r.rnd.IntN(10) > 0 { // otherwise it stays, to be given back once more
		r.held[i] = r.held[len(r.held)-1]
		r.held = r.held[:len(r.held)-1]
	}
	h := []dbcore.Health{hAlive, hAlive, hAlive, hFailure, hFailure, hUnknown}[r.rnd.IntN(6)]
	elapsed := []time.Duration{0, time.Second - 1, time.Second}[r.rnd.IntN(3)]
	r.note("leave %+v: health %d after %s", *held.m, h, elapsed)
	held.p.Leave(h, elapsed)
	r.m.leave(held.m, h, elapsed, time.Now())
}

// compareEvents also tells the model how long the breaker is open.
func (r *breakerRun) compareEvents() {
	synctest.Wait()
	if len(r.events) != len(r.m.moves) {
		r.fail("events %+v, the model has %+v", r.events, r.m.moves)
	}
	for i, want := range r.m.moves {
		e := r.events[i]
		r.seen[fmt.Sprintf("%s to %s", e.From, e.To)]++
		if strings.HasSuffix(e.Reason, "late") {
			r.seen["closed by late probes"]++
		}
		if e.From != want.from || e.To != want.to || !e.At.Equal(want.at) {
			r.fail("event %+v, the model has %+v", e, want)
		}
		if d := e.Until.Sub(e.At); e.To == dbcore.BreakerOpen && e.Mode != dbcore.ModeForceOpen {
			if d <= r.cfg.OpenFor || d > r.cfg.OpenFor*6/5+1 {
				r.fail("open for %s, want %s and up to a fifth more", d, r.cfg.OpenFor)
			}
			r.m.until = e.Until
		}
	}
	r.m.moves, r.events = nil, nil
}

func (r *breakerRun) compareState() {
	if got, want := r.b.State(), r.m.visible(); got != want {
		r.fail("%s, the model is %s", got, want)
	}
	if got, want := r.b.Counts(), r.m.counts(time.Now()); got != want {
		r.fail("counts\n%+v, the model has\n%+v", got, want)
	}
}

func (r *breakerRun) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

func (r *breakerRun) fail(format string, args ...any) {
	r.t.Helper()
	for _, line := range r.trace[max(0, len(r.trace)-40):] {
		r.t.Log(line)
	}
	r.t.Fatalf("config %+v:\n%s", r.cfg, fmt.Sprintf(format, args...))
}
