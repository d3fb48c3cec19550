package dbcore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// probeResult is one probe's answer; if err is not nil, no more of it is known than how long was waited.
type probeResult struct {
	err         error
	outcome     outcome
	ping, query time.Duration
	role        Role
	wal         LSN
	standby     standbyStatus // meaningful if role is RoleStandby
}

// prober asks one server. It is an interface so that the monitor's timing is tested on a clock of its own.
type prober interface {
	// probe returns at the latest when ctx ends.
	probe(ctx context.Context) probeResult
	close()
}

// serverProber has a connection of its own: a pool that is full must not look like a server that is dead.
type serverProber struct {
	cfg  *pgx.ConnConfig
	conn *pgx.Conn

	limit time.Duration

	// A knock (see knock) that hangs beside a full connection that was just made says that something on the way holds it.
	// Then there is no more knocking: at once if it has never worked, else when that has come twice in a row.
	knockSeen, knockOff bool
	dial                func(ctx context.Context, network, addr string) (net.Conn, error)
}

func newServerProber(db *DB, limit time.Duration) *serverProber {
	cfg := db.pool.Config().ConnConfig
	p := &serverProber{cfg: cfg, limit: limit, dial: cfg.DialFunc}
	cfg.Tracer, cfg.OnNotice = nil, nil // two statements a second would drown the application's own
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
	if name := cfg.RuntimeParams["application_name"]; name == "" {
		cfg.RuntimeParams["application_name"] = "dbcore health"
	} else {
		cfg.RuntimeParams["application_name"] = name + " (health)" // so that pg_stat_activity tells them apart
	}
	hosts := 1
	host, port := cfg.Host, cfg.Port
	for _, f := range cfg.Fallbacks {
		if f.Host != host || f.Port != port {
			hosts++
		}
		host, port = f.Host, f.Port
	}
	cfg.ConnectTimeout = limit / time.Duration(hosts)
	return p
}

// errConnectionEnded is what the dialer of a connection says once that is made. pgx dials again for one reason only, to
// cancel what runs on a connection that it gives up; to a server that hangs those would pile up, each for 15 s.
var errConnectionEnded = errors.New("the probe has given up this connection")

func (p *serverProber) connect(ctx context.Context) error {
	cfg := p.cfg.Copy()
	var made atomic.Bool
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if made.Load() {
			return nil, errConnectionEnded
		}
		return p.dial(ctx, network, addr)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	made.Store(true)
	if err != nil {
		return target{host: cfg.Host, port: int(cfg.Port), dbName: cfg.Database, user: cfg.User}.connectError(err)
	}
	p.conn = conn
	return nil
}

func (p *serverProber) close() {
	if p.conn == nil {
		return
	}
	raw := p.conn.PgConn().Conn()
	// A goodbye that does not wait: PostgreSQL ends the session when the socket closes.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = p.conn.Close(ctx)
	_ = raw.Close() // also ends what pgx cleans up in the background
	p.conn = nil
}

func (p *serverProber) probe(ctx context.Context) probeResult {
	began := time.Now()
	r := p.ask(ctx)
	if r.err == nil {
		return r
	}
	p.close()
	took := time.Since(began)
	r.ping, r.query = max(r.ping, took), max(r.query, took)
	r.outcome = probeFailed
	if v := Classify(r.err, PhaseConnect); v.Health == HealthAlive || SQLState(r.err) == "53300" {
		r.outcome = probeRefused
	}
	return r
}

func (p *serverProber) ask(ctx context.Context) (r probeResult) {
	fresh := p.conn == nil
	if fresh {
		if r.err = p.connect(ctx); r.err != nil {
			return r
		}
	}
	if p.knockOff {
		return p.examine(ctx)
	}
	deadline, _ := ctx.Deadline()
	patient := time.Until(deadline) >= p.limit/2
	knocked := make(chan error, 1)
	addr := p.conn.PgConn().Conn().RemoteAddr()
	go func() { knocked <- p.knock(ctx, addr) }()
	r = p.examine(ctx)
	err := <-knocked
	switch {
	case err == nil:
		p.knockSeen = true
	case fresh && errors.Is(err, context.DeadlineExceeded):
		// The connection that was made a moment ago says more.
		p.knockOff = patient && !p.knockSeen
		p.knockSeen = p.knockSeen && !patient
	case r.err == nil:
		r.err = fmt.Errorf("the server answers on an open connection and takes no new ones: %w", err)
	}
	return r
}

// knock asks whether the postmaster still takes connections, which an open one cannot tell: its backend lives on when
// the postmaster is stopped or gone. Whoever connects and says nothing more is dropped by a new backend without a line in
// the log ("if we get no data at all, don't clutter the log", ProcessStartupPacket in
// src/backend/tcop/backend_startup.c, postmaster.c before 17), before it takes a slot or a lock.
func (p *serverProber) knock(ctx context.Context, addr net.Addr) error {
	conn, err := p.dial(ctx, addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil // a dialer of the user's; that it connected is all there is to see
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer to a new connection: %w", ctx.Err())
	case err == nil, errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// statusRow is statusSQL's row.
type statusRow struct {
	InRecovery     bool
	WAL            *LSN
	Receive        *LSN
	Replay         *LSN
	Paused         *bool
	HasReceiver    bool
	ReceiverStatus *string
	LatestEnd      *LSN
	Silence        *float64
}

// statusSQL asks all in one round trip. A role without pg_read_all_stats sees of pg_stat_wal_receiver only that there is
// one. latest_end_lsn is where the primary's WAL ended when it last spoke (walrcv->latestWalEnd in
// src/backend/replication/walreceiver.c).
const statusSQL = `select pg_is_in_recovery() as in_recovery,
	case when not pg_is_in_recovery() then pg_current_wal_lsn() end as wal,
	pg_last_wal_receive_lsn() as receive, pg_last_wal_replay_lsn() as replay,
	case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() <> 'not paused' end as paused,
	w.pid is not null as has_receiver, w.status as receiver_status, w.latest_end_lsn as latest_end,
	extract(epoch from clock_timestamp() - w.last_msg_receipt_time)::float8 as silence
from (select) one left join pg_stat_wal_receiver w on true`

// examine asks the server on the connection. It tells the role by in_hot_standby, which the server reports by itself when
// it changes (with the next answer), and looks into the row only if a pooler in between keeps that to itself.
func (p *serverProber) examine(ctx context.Context) (r probeResult) {
	began := time.Now()
	if r.err = p.conn.Ping(ctx); r.err != nil {
		r.err = fmt.Errorf("ping: %w", probeError(ctx, r.err))
		return r
	}
	pinged := time.Now()
	r.ping = pinged.Sub(began)
	rows, err := p.conn.Query(ctx, statusSQL)
	if err == nil {
		var row statusRow
		if row, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[statusRow]); err == nil {
			r.take(row)
		}
	}
	if err != nil {
		r.err = fmt.Errorf("query: %w", probeError(ctx, err))
		return r
	}
	r.query = time.Since(pinged)
	switch p.conn.PgConn().ParameterStatus("in_hot_standby") {
	case "on":
		r.role = RoleStandby
	case "off":
		r.role = RolePrimary
	}
	return r
}

// probeError puts the cause first, where pgx tells of a closed connection.
func probeError(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}

func (r *probeResult) take(row statusRow) {
	r.role = RolePrimary
	if row.InRecovery {
		r.role = RoleStandby
	}
	r.wal = orZero(row.WAL)
	r.standby = standbyStatus{
		receive: orZero(row.Receive), replay: orZero(row.Replay), latestEnd: orZero(row.LatestEnd),
		hasReceiver: row.HasReceiver, receiverStatus: orZero(row.ReceiverStatus), paused: orZero(row.Paused),
		silence: time.Duration(orZero(row.Silence) * float64(time.Second)),
	}
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
