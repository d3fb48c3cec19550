// Package dbcoreprom gives what dbcore has to tell to Prometheus.
//
//	metrics := dbcoreprom.New("orders")
//	db, err := dbcore.Open(ctx, cfg, dbcore.WithMetrics(metrics))
//	...
//	metrics.Watch(db)
//	prometheus.MustRegister(metrics)
//
// # Names
//
// All begin with dbcore_ and have a label db, the name given to New, so that a program with several pools needs no
// prefixes. Units are base units, counters end in _total. The label op is the name given to DB.Op, "(unnamed)" for the
// DB's own methods; no text of a statement and no error gets into a label. What is one of several (a breaker's state, a
// server's role) has a series for each, with the value 1 or 0, so that alerts need no table of numbers.
//
// Alerts that are worth having:
//
//	rate(dbcore_requests_total{outcome="ambiguous"}[5m]) > 0           nobody knows whether these took effect
//	dbcore_breaker_state{state="open"} == 1
//	rate(dbcore_pool_wait_seconds_total[5m]) > 1                       more than one request waits, on average
//	dbcore_retry_budget_left < 10                                      (of 100) soon nothing is repeated any more
//	dbcore_server_state{state="down"} == 1
package dbcoreprom

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/dbcore"
)

// unnamed is the label of the DB's own methods. Prometheus takes an empty label for none.
const unnamed = "(unnamed)"

// buckets are the upper bounds of the histogram of durations, in seconds: from a primary key lookup over a unix socket to
// dbcore.DefaultCommitTimeout, about as far apart as one can tell causes apart.
var buckets = []float64{0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// The values of labels that are known beforehand. They begin at 0, so that a rate sees the first of them.
var (
	outcomes = []string{"ok", "error", "rejected", "ambiguous"}
	classes  = []dbcore.Class{dbcore.ClassNone, dbcore.ClassTransient, dbcore.ClassThrottle, dbcore.ClassSerialization}
)

// Metrics counts what happens in one DB. It is a dbcore.Metrics, for dbcore.WithMetrics, and a prometheus.Collector, to
// be registered. Make one by New, for one DB. All methods are safe for concurrent use.
type Metrics struct {
	requests    *prometheus.CounterVec
	durations   *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	delays      *prometheus.CounterVec
	transitions *prometheus.CounterVec
	commits     *prometheus.CounterVec

	watched descriptions
	db      atomic.Pointer[dbcore.DB]
	health  atomic.Pointer[dbcore.HealthMonitor]
}

var (
	_ dbcore.Metrics       = (*Metrics)(nil)
	_ prometheus.Collector = (*Metrics)(nil)
)

// New makes the metrics of a DB. The name is their label db, and must be another for each DB of a program.
func New(name string) *Metrics {
	labels := prometheus.Labels{"db": name}
	counter := func(name, help string, variable ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, variable)
	}
	return &Metrics{
		requests: counter("dbcore_requests_total",
			"Requests that have ended, with all their attempts: ok, error, rejected by an open circuit breaker, or ambiguous, of which it is not known whether they took effect.", "op", "outcome"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dbcore_request_duration_seconds", Buckets: buckets, ConstLabels: labels,
			Help: "How long requests took, waits for a connection and between attempts included. Those that a breaker rejected are not in it.",
		}, []string{"op"}),
		retries: counter("dbcore_retries_total",
			"Failed attempts that were repeated, by the class of what they failed with.", "op", "class"),
		delays: counter("dbcore_retry_delay_seconds_total",
			"Time that requests waited before they were repeated.", "op"),
		transitions: counter("dbcore_breaker_transitions_total",
			"Changes of a circuit breaker's state, by the new state.", "op", "to"),
		commits: counter("dbcore_uncertain_commits_total",
			"COMMITs without an answer that were verified (verified_committed, verified_rolled_back), could not be (undecided), or whose wait for a synchronous standby was broken off (not_replicated).", "op", "outcome"),
		watched: newDescriptions(labels),
	}
}

// Watch adds the pool, the circuit breakers and the retry budget of the DB that has the metrics.
func (m *Metrics) Watch(db *dbcore.DB) { m.db.Store(db) }

// WatchHealth adds what a health monitor of the DB finds.
func (m *Metrics) WatchHealth(h *dbcore.HealthMonitor) { m.health.Store(h) }

// Request is one of dbcore.Metrics.
func (m *Metrics) Request(op, outcome string, took time.Duration) {
	op = opLabel(op)
	m.requests.WithLabelValues(op, label(outcome)).Inc()
	if outcome != "rejected" { // an open breaker would make the database look fast
		m.durations.WithLabelValues(op).Observe(took.Seconds())
	}
}

// Retry is one of dbcore.Metrics.
func (m *Metrics) Retry(op string, class dbcore.Class, delay time.Duration) {
	op = opLabel(op)
	m.retries.WithLabelValues(op, label(class.String())).Inc()
	m.delays.WithLabelValues(op).Add(delay.Seconds())
}

// Breaker is one of dbcore.Metrics.
func (m *Metrics) Breaker(op string, _, to dbcore.BreakerState) {
	m.transitions.WithLabelValues(opLabel(op), label(to.String())).Inc()
}

// Commit is one of dbcore.Metrics.
func (m *Metrics) Commit(op, outcome string) {
	m.commits.WithLabelValues(opLabel(op), label(outcome)).Inc()
}

func opLabel(op string) string {
	if op == "" {
		return unnamed
	}
	return strings.ToValidUTF8(op, "?") // Prometheus would panic
}

// label is a word of dbcore's as a label is spelt.
func label(s string) string { return toLabel.Replace(s) }

var toLabel = strings.NewReplacer(" ", "_", "-", "_")
