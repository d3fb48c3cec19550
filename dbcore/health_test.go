package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// watched is a running monitor and what it told.
type watched struct {
	*dbcore.HealthMonitor
	mu     sync.Mutex
	events []dbcore.HealthEvent
}

func watch(t testing.TB, db *dbcore.DB, interval time.Duration, thresholds dbcore.HealthThresholds) *watched {
	t.Helper()
	m, err := dbcore.NewHealthMonitor(db, interval, thresholds)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{HealthMonitor: m}
	m.OnChange(func(e dbcore.HealthEvent) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return w
}

// await waits for an event after the moment began, and returns it.
func (w *watched) await(t testing.TB, what string, began time.Time, ok func(dbcore.HealthEvent) bool) (found dbcore.HealthEvent) {
	t.Helper()
	pgtest.Eventually(t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		i := slices.IndexFunc(w.events, func(e dbcore.HealthEvent) bool { return e.At.After(began) && ok(e) })
		if i >= 0 {
			found = w.events[i]
		}
		return i >= 0
	})
	return found
}

func (w *watched) awaitState(t testing.TB, began time.Time, s dbcore.HealthState) dbcore.HealthEvent {
	t.Helper()
	return w.await(t, "the server is "+s.String(), began, func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventState && e.To == s })
}

func (w *watched) seen(ok func(dbcore.HealthEvent) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, ok)
}

// relay stands between a monitor and a server, and can lose everything.
type relay struct {
	net.Listener
	server    func() (net.Conn, error)
	swallow   atomic.Bool // takes everything and passes nothing on
	deafToFIN atomic.Bool // does not pass the end of one direction on, as some middleboxes
	wg        sync.WaitGroup
	mu        sync.Mutex
	conns     []net.Conn
}

func newRelay(t testing.TB, server func() (net.Conn, error)) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, server: server}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.reset()
		r.wg.Wait()
	})
	return r
}

func (r *relay) config() dbcore.Config {
	cfg := socketConfig()
	cfg.Host, cfg.Port, cfg.SSLMode = "127.0.0.1", r.Addr().(*net.TCPAddr).Port, "disable"
	return cfg
}

// reset breaks all connections by RST.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
	r.conns = nil
}

func (r *relay) serve(client net.Conn) {
	server, err := r.server()
	if err != nil {
		client.Close()
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, client, server)
	r.mu.Unlock()
	r.wg.Go(func() { r.copy(server, client, true) })
	r.copy(client, server, false)
}

func (r *relay) copy(to, from net.Conn, fromClient bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if r.swallow.Load() || fromClient && errors.Is(err, io.EOF) && r.deafToFIN.Load() {
				return // until the test ends
			}
			to.Close()
			return
		}
		if !r.swallow.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func toMainServer() (net.Conn, error) {
	return net.Dial("unix", fmt.Sprintf("%s/.s.PGSQL.%d", srv.socket, srv.port))
}

// detections is how often each kind of failure is caused.
func detections(t testing.TB) int { return 2 * pgtest.Scale(t) }

// measure causes a failure again and again at any point of the monitor's interval, and prints how long it took to notice.
func measure(t *testing.T, w *watched, fail, mend func(t *testing.T)) {
	var suspects, downs []time.Duration
	for range detections(t) {
		pgtest.Eventually(t, "the server is up", func() bool { return w.Snapshot().State == dbcore.ServerUp })
		<-time.After(rand.N(dbcore.DefaultHealthInterval))
		began := time.Now()
		fail(t)
		suspects = append(suspects, w.awaitState(t, began, dbcore.ServerSuspect).At.Sub(began))
		downs = append(downs, w.awaitState(t, began, dbcore.ServerDown).At.Sub(began))
		mend(t)
	}
	for _, d := range [][]time.Duration{suspects, downs} {
		slices.Sort(d)
	}
	n := len(suspects)
	t.Logf("%s, %d times: suspect after median %s, max %s; down after median %s, max %s", t.Name(), n, suspects[n/2].Round(time.Millisecond),
		suspects[n-1].Round(time.Millisecond), downs[n/2].Round(time.Millisecond), downs[n-1].Round(time.Millisecond))
	// 1.5 s and 3.5 s by design; the rest is for a machine under load.
	if suspects[n-1] > 2*time.Second || downs[n-1] > 5*time.Second {
		t.Errorf("too slow: suspect %v, down %v", suspects, downs)
	}
}

// The promise: suspect within 2 s, whatever way the server goes.
func TestHealthDetection(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		s := pgtest.New(t, pgtest.Options{})
		w := watch(t, s.DB(t, ""), 0, dbcore.HealthThresholds{})
		measure(t, w, func(t *testing.T) { s.Kill(t) }, func(t *testing.T) { s.Start(t) })
	})
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		// The connections are reset and new ones are, too.
		var dead atomic.Bool
		r := newRelay(t, func() (net.Conn, error) {
			if dead.Load() {
				return nil, errors.New("dead")
			}
			return toMainServer()
		})
		w := watch(t, openDB(t, r.config()), 0, dbcore.HealthThresholds{})
		measure(t, w, func(*testing.T) { dead.Store(true); r.reset() }, func(*testing.T) { dead.Store(false) })
	})
	t.Run("hung network", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, toMainServer)
		w := watch(t, openDB(t, r.config()), 0, dbcore.HealthThresholds{})
		measure(t, w, func(*testing.T) { r.swallow.Store(true) }, func(*testing.T) { r.swallow.Store(false) })
	})
	t.Run("hung postmaster", func(t *testing.T) {
		t.Parallel()
		// Its backends live on and answer: only new connections tell.
		s := pgtest.New(t, pgtest.Options{})
		w := watch(t, s.DB(t, ""), 0, dbcore.HealthThresholds{})
		pgtest.Eventually(t, "a few probes", func() bool { return w.Snapshot().Ping > 0 })
		pid := s.Instance().PID()
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		signal := func(sig syscall.Signal) func(*testing.T) {
			return func(t *testing.T) {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Fatal(err)
				}
			}
		}
		measure(t, w, signal(syscall.SIGSTOP), signal(syscall.SIGCONT))
	})
}

// After a restart the monitor finds the server by itself, and the pool has no connection left to the dead one.
func TestHealthRecoversAfterARestart(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	db := s.DB(t, "")
	w := watch(t, db, 50*time.Millisecond, dbcore.HealthThresholds{})
	w.awaitState(t, time.Time{}, dbcore.ServerUp)
	began := time.Now()
	s.Kill(t)
	w.awaitState(t, began, dbcore.ServerDown)
	if s := w.Snapshot(); s.Err == nil || s.State != dbcore.ServerDown || s.Role != dbcore.RolePrimary {
		t.Errorf("while down: %+v, want an error and the last role", s)
	}
	s.Start(t)
	w.awaitState(t, began, dbcore.ServerUp)
	w.await(t, "the pool is recycled", began, func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventRecycled })
	if got := one[int](t, db, "select 1"); got != 1 {
		t.Error(got)
	}
	if s := w.Snapshot(); s.Err != nil || s.State != dbcore.ServerUp || s.Ping <= 0 || s.Query <= 0 || s.WAL == 0 || s.Lag != nil {
		t.Errorf("when back: %+v", s)
	}
}

// A request's lost connection is looked into at once, long before the interval ends.
func TestHealthProbesAtOnceOnALostConnection(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	db := s.DB(t, "")
	w := watch(t, db, 9*time.Second, dbcore.HealthThresholds{})
	w.awaitState(t, time.Time{}, dbcore.ServerUp)
	began := time.Now()
	s.Kill(t)
	_, _ = db.Exec(context.Background(), "select 1")
	if took := w.awaitState(t, began, dbcore.ServerSuspect).At.Sub(began); took > 5*time.Second {
		t.Errorf("suspect after %s, want at once", took)
	}
}

// A full pool is no dead server; that requests wait is an alert, and it ends when they do not.
func TestHealthOfAFullPool(t *testing.T) {
	cfg := socketConfig()
	cfg.MaxOpenConns = 2
	db := openDB(t, cfg)
	w := watch(t, db, 20*time.Millisecond, dbcore.HealthThresholds{Wait: 50 * time.Millisecond, RaiseAfter: 2, ClearAfter: 2})
	var held []*dbcore.Conn
	for range 2 {
		c, err := db.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := db.Exec(context.Background(), "select 1"); err != nil {
				t.Error(err)
			}
		})
	}
	isWait := func(kind dbcore.HealthEventKind) func(dbcore.HealthEvent) bool {
		return func(e dbcore.HealthEvent) bool { return e.Kind == kind && e.Alert.Kind == dbcore.AlertWait }
	}
	w.await(t, "an alert of the waits", began, isWait(dbcore.EventRaised))
	if s := w.Snapshot(); s.State != dbcore.ServerUp || s.Pool.InUse != 2 || s.Pool.Open != 2 || s.Pool.Idle != 0 || s.Pool.Waiting != 3 || s.Pool.MaxOpen != 2 || s.Pool.Wait < 50*time.Millisecond {
		t.Errorf("state %s, pool %+v; want up, and 2 of 2 in use with 3 waiting", s.State, s.Pool)
	}
	for _, c := range held {
		c.Close()
	}
	wg.Wait()
	w.await(t, "the alert is cleared", began, isWait(dbcore.EventCleared))
	if p := w.Snapshot().Pool; p.Waits < 3 || p.WaitTime <= 0 || p.Waiting != 0 {
		t.Errorf("pool %+v, want 3 waits on the record and none now", p)
	}
	if w.seen(func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventState && e.To != dbcore.ServerUp }) {
		t.Error("the full pool was taken for a dead server")
	}
}

func TestHealthRecycle(t *testing.T) {
	db := openDB(t, socketConfig())
	w := watch(t, db, 0, dbcore.HealthThresholds{})
	before := one[int](t, db, "select pg_backend_pid()")
	began := time.Now()
	w.Recycle("credentials changed")
	if after := one[int](t, db, "select pg_backend_pid()"); after == before {
		t.Error("the connection is the one from before")
	}
	if e := w.await(t, "the event", began, func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventRecycled }); e.Text != "credentials changed" {
		t.Errorf("reason %q", e.Text)
	}
}

// Probes leave no trace in the server's log, and use no more than one session.
func TestHealthProbesAreQuiet(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		s := pgtest.New(t, pgtest.Options{Major: major})
		db := s.DB(t, "")
		before, err := os.ReadFile(s.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t, db, 5*time.Millisecond, dbcore.HealthThresholds{})
		first := w.awaitState(t, time.Time{}, dbcore.ServerUp)
		pgtest.Eventually(t, "half a second of probes", func() bool { return w.Snapshot().At.After(first.At.Add(500 * time.Millisecond)) })
		if n := one[int](t, db, "select count(*)::int from pg_stat_activity where application_name = 'dbcore health'"); n != 1 {
			t.Errorf("%d sessions of the monitor, want 1", n)
		}
		w.Stop()
		after, err := os.ReadFile(s.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		if added := strings.TrimPrefix(string(after), string(before)); added != "" {
			t.Errorf("the server's log has grown by:\n%s", added)
		}
		if w.seen(func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventState && e.To != dbcore.ServerUp }) {
			t.Errorf("%+v", w.events)
		}
	})
}

// Something in between may hold the half-closed connection by which the monitor knocks. The full connection beside it
// says that the server lives, and there is no suspicion: neither from the beginning nor when it begins to.
func TestHealthBehindAMiddleboxThatHoldsKnocks(t *testing.T) {
	const limit = 400 * time.Millisecond
	for _, later := range []bool{false, true} {
		r := newRelay(t, toMainServer)
		r.deafToFIN.Store(!later)
		w := watch(t, openDB(t, r.config()), 20*time.Millisecond, dbcore.HealthThresholds{ProbeLimit: limit, DownAfter: 5})
		w.awaitState(t, time.Time{}, dbcore.ServerUp)
		if later {
			r.deafToFIN.Store(true)
			// It may take two suspicions to understand: one for each connection made anew.
			pgtest.Eventually(t, "no more knocks", func() bool { s := w.Snapshot(); return s.State == dbcore.ServerUp && time.Since(s.Since) > 3*limit })
			continue
		}
		pgtest.Eventually(t, "probes without a knock", func() bool { s := w.Snapshot(); return s.At.After(s.Since.Add(3 * limit)) })
		if w.seen(func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventState && e.To != dbcore.ServerUp }) {
			t.Errorf("suspicion without a reason: %+v", w.events)
		}
	}
}

func TestNewHealthMonitorRefusesSlowDetection(t *testing.T) {
	_, err := dbcore.NewHealthMonitor(openDB(t, socketConfig()), time.Minute, dbcore.DefaultHealthThresholds())
	if !errors.Is(err, dbcore.ErrInvalidConfig) || !strings.Contains(err.Error(), "30s") {
		t.Errorf("%v, want ErrInvalidConfig that names the bound", err)
	}
}
