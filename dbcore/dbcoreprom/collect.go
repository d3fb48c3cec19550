package dbcoreprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/dbcore"
)

// descriptions are of what is not counted here but read when Prometheus asks.
type descriptions struct {
	connections, maxConnections, opened, expired, acquires, waits, waitTime, gaveUp *prometheus.Desc

	budget                                                            *prometheus.Desc
	breakerState, rejected, wouldReject, wouldRejectAlive, probesLost *prometheus.Desc

	serverState, serverRole, alert, ping, query, lagTime, lagBytes *prometheus.Desc
}

func newDescriptions(labels prometheus.Labels) descriptions {
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("dbcore_"+name, help, variable, labels)
	}
	return descriptions{
		connections:    desc("pool_connections", "Connections of the pool: idle, in_use, or connecting.", "state"),
		maxConnections: desc("pool_max_connections", "How many connections the pool may have."),
		opened:         desc("pool_opened_connections_total", "Connections that were made. Many more than expired ones are due to ended contexts, MaxIdleConns or lost connections."),
		expired:        desc("pool_expired_connections_total", "Connections that were closed for their age (lifetime) or because they were not used (idle).", "reason"),
		acquires:       desc("pool_acquires_total", "Connections that requests were given."),
		waits:          desc("pool_waits_total", "Requests that found no idle connection and had to wait for one, given back or new."),
		waitTime:       desc("pool_wait_seconds_total", "Time that those requests waited."),
		gaveUp:         desc("pool_canceled_acquires_total", "Requests that gave up waiting for a connection."),

		budget:           desc("retry_budget_left", "How many repetitions the retry budget would pay for. None are made when it is used up."),
		breakerState:     desc("breaker_state", "1 for the state in which the circuit breaker is, 0 for the others.", "op", "state"),
		rejected:         desc("breaker_rejected_total", "Requests that the circuit breaker rejected, each attempt counted.", "op"),
		wouldReject:      desc("breaker_would_reject_total", "Requests that the circuit breaker would have rejected but for the monitor mode.", "op"),
		wouldRejectAlive: desc("breaker_would_reject_alive_total", "Those among them that the server then answered: what enforcing would have broken.", "op"),
		probesLost:       desc("breaker_lost_probes_total", "Probes of a half-open circuit breaker that were not back in time.", "op"),

		serverState: desc("server_state", "1 for what the health monitor thinks of the server, 0 for the others.", "state"),
		serverRole:  desc("server_role", "1 for the server's role at its last answer, 0 for the others.", "role"),
		alert:       desc("health_alert", "1 while the alert is raised.", "kind"),
		ping:        desc("server_ping_seconds", "How long the last empty round trip took; without an answer, for how long there has been none."),
		query:       desc("server_query_seconds", "How long the last small query took; without an answer, for how long there has been none."),
		lagTime:     desc("replication_lag_seconds", "How old the data of a standby may be. At least so old, and growing, while that cannot be known."),
		lagBytes:    desc("replication_lag_bytes", "How much of the WAL a standby has not replayed."),
	}
}

// Describe is one of prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counted() {
		c.Describe(ch)
	}
	w := &m.watched
	for _, d := range []*prometheus.Desc{
		w.connections, w.maxConnections, w.opened, w.expired, w.acquires, w.waits, w.waitTime, w.gaveUp,
		w.budget, w.breakerState, w.rejected, w.wouldReject, w.wouldRejectAlive, w.probesLost,
		w.serverState, w.serverRole, w.alert, w.ping, w.query, w.lagTime, w.lagBytes,
	} {
		ch <- d
	}
}

// Collect is one of prometheus.Collector. It asks no server.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	db, health := m.db.Load(), m.health.Load()
	if db != nil {
		m.begin(db)
	}
	for _, c := range m.counted() {
		c.Collect(ch)
	}
	if db != nil {
		m.watched.pool(ch, db)
		m.watched.breakers(ch, db)
		gauge(ch, m.watched.budget, db.Budget().Left())
	}
	if health != nil {
		m.watched.server(ch, health.Snapshot())
	}
}

func (m *Metrics) counted() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.durations, m.retries, m.delays, m.transitions, m.commits}
}

// begin lets the counters of each operation begin at 0.
func (m *Metrics) begin(db *dbcore.DB) {
	for _, b := range db.Breakers() {
		op := opLabel(b.Name())
		for _, o := range outcomes {
			m.requests.WithLabelValues(op, o)
		}
		for _, c := range classes {
			m.retries.WithLabelValues(op, label(c.String()))
		}
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (w *descriptions) pool(ch chan<- prometheus.Metric, db *dbcore.DB) {
	s := db.Pool().Stat()
	gauge(ch, w.connections, float64(s.IdleConns()), "idle")
	gauge(ch, w.connections, float64(s.AcquiredConns()), "in_use")
	gauge(ch, w.connections, float64(s.ConstructingConns()), "connecting")
	gauge(ch, w.maxConnections, float64(s.MaxConns()))
	counter(ch, w.opened, float64(s.NewConnsCount()))
	counter(ch, w.expired, float64(s.MaxLifetimeDestroyCount()), "lifetime")
	counter(ch, w.expired, float64(s.MaxIdleDestroyCount()), "idle")
	counter(ch, w.acquires, float64(s.AcquireCount()))
	counter(ch, w.waits, float64(s.EmptyAcquireCount()))
	counter(ch, w.waitTime, s.EmptyAcquireWaitTime().Seconds())
	counter(ch, w.gaveUp, float64(s.CanceledAcquireCount()))
}

func (w *descriptions) breakers(ch chan<- prometheus.Metric, db *dbcore.DB) {
	for _, b := range db.Breakers() {
		op, now, counts := opLabel(b.Name()), b.State(), b.Counts()
		for _, s := range []dbcore.BreakerState{dbcore.BreakerClosed, dbcore.BreakerHalfOpen, dbcore.BreakerOpen} {
			gauge(ch, w.breakerState, one(s == now), op, label(s.String()))
		}
		counter(ch, w.rejected, float64(counts.Rejected), op)
		counter(ch, w.wouldReject, float64(counts.WouldReject), op)
		counter(ch, w.wouldRejectAlive, float64(counts.WouldRejectAlive), op)
		counter(ch, w.probesLost, float64(counts.ProbesLost), op)
	}
}

func (w *descriptions) server(ch chan<- prometheus.Metric, s dbcore.HealthSnapshot) {
	for _, state := range []dbcore.HealthState{dbcore.ServerUnknown, dbcore.ServerUp, dbcore.ServerSuspect, dbcore.ServerDown} {
		gauge(ch, w.serverState, one(s.State == state), state.String())
	}
	for _, role := range []dbcore.Role{dbcore.RoleUnknown, dbcore.RolePrimary, dbcore.RoleStandby} {
		gauge(ch, w.serverRole, one(s.Role == role), role.String())
	}
	raised := map[dbcore.AlertKind]bool{}
	for _, a := range s.Alerts {
		raised[a.Kind] = true
	}
	for _, kind := range []dbcore.AlertKind{
		dbcore.AlertIdle, dbcore.AlertMinOpen, dbcore.AlertWait, dbcore.AlertPing, dbcore.AlertQuery, dbcore.AlertLag,
	} {
		gauge(ch, w.alert, one(raised[kind]), string(kind))
	}
	if s.At.IsZero() {
		return
	}
	gauge(ch, w.ping, s.Ping.Seconds())
	gauge(ch, w.query, s.Query.Seconds())
	if s.Lag != nil {
		gauge(ch, w.lagTime, s.Lag.Delay.Seconds())
		gauge(ch, w.lagBytes, float64(s.Lag.Bytes))
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
