package dbcoreprom_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"lifeboat/dbcore"
	"lifeboat/dbcore/dbcoreprom"
	"lifeboat/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// scrape is what Prometheus would read: the values by series.
func scrape(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() == "db" {
					if l.GetValue() != "orders" {
						t.Errorf("%s: label db is %q", f.GetName(), l.GetValue())
					}
					continue
				}
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.GetCounter() != nil:
				values[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				values[name] = m.GetGauge().GetValue()
			case m.GetHistogram() != nil:
				values[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, pgtest.Options{})
	cfg, err := dbcore.ParseDSN(server.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	metrics := dbcoreprom.New("orders")
	reg := prometheus.NewPedanticRegistry() // it checks each metric against its description
	if err := reg.Register(metrics); err != nil {
		t.Fatal(err)
	}
	cfg.MaxOpenConns = 7
	db, err := dbcore.Open(ctx, cfg, dbcore.WithMetrics(metrics),
		dbcore.WithBreaker(dbcore.BreakerConfig{ConsecutiveFailures: 1, OpenFor: time.Hour}), dbcore.WithRetry(dbcore.RetryConfig{TransientBase: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := scrape(t, reg); len(got) != 0 {
		t.Errorf("before anything happened: %v", got)
	}
	metrics.Watch(db)
	health, err := dbcore.NewHealthMonitor(db, 50*time.Millisecond, dbcore.HealthThresholds{})
	if err != nil {
		t.Fatal(err)
	}
	if err := health.Start(); err != nil {
		t.Fatal(err)
	}
	defer health.Stop()
	metrics.WatchHealth(health)
	pgtest.Eventually(t, "the server is up", func() bool { return health.Snapshot().State == dbcore.ServerUp })

	write, read := db.Op("order.write"), db.Op("order.read").Idempotent()
	for range 3 {
		if _, err := write.Exec(ctx, "select 1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write.Exec(ctx, "select 1/0"); err == nil {
		t.Fatal("a division by zero passed")
	}
	if _, err := db.Exec(ctx, "select 1"); err != nil {
		t.Fatal(err)
	}
	// A session that is ended in the middle: the breaker opens, the repetition is rejected.
	_, err = read.Exec(ctx, "select pg_terminate_backend(pg_backend_pid())")
	if !errors.Is(err, dbcore.ErrConnectionLost) && dbcore.SQLState(err) != "57P01" {
		t.Fatal(err)
	}
	if _, err := read.Exec(ctx, "select 1"); !errors.Is(err, dbcore.ErrBreakerOpen) {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the breaker's change is told", func() bool {
		return scrape(t, reg)["dbcore_breaker_transitions_total{op=order.read,to=open}"] == 1
	})

	got := scrape(t, reg)
	for series, want := range map[string]float64{
		"dbcore_requests_total{op=order.write,outcome=ok}":        3,
		"dbcore_requests_total{op=order.write,outcome=error}":     1,
		"dbcore_requests_total{op=order.write,outcome=ambiguous}": 0,
		"dbcore_requests_total{op=(unnamed),outcome=ok}":          1,
		"dbcore_requests_total{op=order.read,outcome=rejected}":   1,
		"dbcore_request_duration_seconds{op=order.write}":         4,
		"dbcore_retries_total{class=transient,op=order.read}":     1,
		"dbcore_retries_total{class=transient,op=order.write}":    0,
		"dbcore_breaker_state{op=order.read,state=open}":          1,
		"dbcore_breaker_state{op=order.read,state=closed}":        0,
		"dbcore_breaker_state{op=order.write,state=closed}":       1,
		"dbcore_breaker_rejected_total{op=order.read}":            2,
		"dbcore_pool_max_connections{}":                           7,
		"dbcore_pool_connections{state=in_use}":                   0,
		"dbcore_server_state{state=up}":                           1,
		"dbcore_server_role{role=primary}":                        1,
		"dbcore_server_role{role=standby}":                        0,
		"dbcore_health_alert{kind=pool_wait}":                     0,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", series, v, ok, want)
		}
	}
	if got["dbcore_retry_budget_left{}"] >= dbcore.DefaultBudget {
		t.Errorf("the budget is untouched: %v", got["dbcore_retry_budget_left{}"])
	}
	if got["dbcore_pool_acquires_total{}"] < 5 || got["dbcore_pool_opened_connections_total{}"] < 1 || got["dbcore_server_ping_seconds{}"] <= 0 {
		t.Errorf("the pool and the server have done nothing: %v", got)
	}
	if t.Failed() {
		for _, k := range slices.Sorted(maps.Keys(got)) {
			t.Log(k, got[k])
		}
	}
	checkNames(t, reg)
}

// checkNames holds all that is exported against Prometheus's conventions and this package's own.
func checkNames(t *testing.T, reg *prometheus.Registry) {
	t.Helper()
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	name, value := regexp.MustCompile(`^dbcore_[a-z_]+$`), regexp.MustCompile(`^[a-z0-9_.()]+$`)
	for _, f := range families {
		if !name.MatchString(f.GetName()) || !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: %q", f.GetName(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !value.MatchString(l.GetValue()) {
					t.Errorf("%s: label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
}

// All that a Metrics can be told, promlint included: an uncertain COMMIT takes a server that dies at the right moment.
func TestEveryReport(t *testing.T) {
	metrics := dbcoreprom.New("orders")
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(metrics)
	metrics.Request("", "ambiguous", time.Second)
	metrics.Request("w", "rejected", 0)
	metrics.Retry("w", dbcore.ClassThrottle, 1500*time.Millisecond)
	metrics.Breaker("w", dbcore.BreakerOpen, dbcore.BreakerHalfOpen)
	metrics.Commit("w", "verified committed")
	metrics.Commit("not\xffUTF-8", "undecided")
	got := scrape(t, reg)
	want := map[string]float64{
		"dbcore_requests_total{op=(unnamed),outcome=ambiguous}":           1,
		"dbcore_requests_total{op=w,outcome=rejected}":                    1,
		"dbcore_request_duration_seconds{op=(unnamed)}":                   1,
		"dbcore_retries_total{class=throttle,op=w}":                       1,
		"dbcore_retry_delay_seconds_total{op=w}":                          1.5,
		"dbcore_breaker_transitions_total{op=w,to=half_open}":             1,
		"dbcore_uncertain_commits_total{op=w,outcome=verified_committed}": 1,
		"dbcore_uncertain_commits_total{op=not?UTF-8,outcome=undecided}":  1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	problems, err := promlint.NewWithMetricFamilies(must(reg.Gather())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

// Two DBs of a program are told apart by the label alone.
func TestTwoDBs(t *testing.T) {
	reg := prometheus.NewRegistry()
	if err := errors.Join(reg.Register(dbcoreprom.New("orders")), reg.Register(dbcoreprom.New("users"))); err != nil {
		t.Error(err)
	}
	if err := reg.Register(dbcoreprom.New("users")); err == nil {
		t.Error("two DBs of one name were taken")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func BenchmarkRequest(b *testing.B) {
	metrics := dbcoreprom.New("orders")
	b.ReportAllocs()
	for b.Loop() {
		metrics.Request("order.write", "ok", time.Millisecond)
	}
}

func ExampleNew() {
	metrics := dbcoreprom.New("orders")
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	// dbcore.Open(ctx, cfg, dbcore.WithMetrics(metrics)), then metrics.Watch(db). From then on dbcore does this:
	metrics.Request("order.write", "ok", 3*time.Millisecond)
	metrics.Retry("order.write", dbcore.ClassSerialization, 4*time.Millisecond)

	families, err := registry.Gather()
	fmt.Println(err)
	for _, f := range families {
		fmt.Println(f.GetName())
	}
	// Output:
	// <nil>
	// dbcore_request_duration_seconds
	// dbcore_requests_total
	// dbcore_retries_total
	// dbcore_retry_delay_seconds_total
}
