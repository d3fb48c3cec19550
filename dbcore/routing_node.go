package dbcore

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// probeLimit bounds one look at a node, connecting included.
	probeLimit = time.Second
	// probeGap is the least time between two looks, however many requests fail meanwhile.
	probeGap = 10 * time.Millisecond
	// farewell bounds the closing of a probe's connection to a server that may be hung.
	farewell = 100 * time.Millisecond
	// patientProbes is how many probes in a row may time out before the node counts as unreachable. Other failures count
	// at once.
	patientProbes = 2
)

// node is one server of a Cluster.
type node struct {
	name string
	cfg  Config
	opts []Option
	gate *gate
	wake chan struct{}
	db   atomic.Pointer[DB] // nil until it first answered

	// Under the Cluster's lock:
	claim     claim
	err       error
	timeouts  int
	asked     uint64    // how many looks have begun
	seen      uint64    // and ended
	suspectAt time.Time // when a write was last refused
	answered  time.Time
}

func (c *Cluster) newNode(cfg Config, opts []Option) (*node, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	conn := s.pool.ConnConfig
	t := s.target()
	n := &node{name: net.JoinHostPort(t.host, strconv.Itoa(t.port)), cfg: cfg, wake: make(chan struct{}, 1)}
	if conn.ValidateConnect != nil {
		return nil, fmt.Errorf("%w: node %s has target_session_attrs: a Cluster finds out itself who is the primary", ErrInvalidConfig, n.name)
	}
	for _, f := range conn.Fallbacks {
		if f.Host != conn.Host || f.Port != conn.Port {
			return nil, fmt.Errorf("%w: node %s has more hosts: make each a node of its own", ErrInvalidConfig, n.name)
		}
	}
	n.claim.node = n.name
	n.gate = &gate{
		failed:  func(v Verdict) { c.suspectNode(n, v) },
		current: func() *DB { return c.view.Load().primary(c.nodes) },
	}
	n.opts = append(opts[:len(opts):len(opts)], withGate(n.gate))
	return n, nil
}

// answer is what a node says of itself.
type answer struct {
	InRecovery bool
	SystemID   string
	Started    string
	LSN        *LSN
	Timeline   int64
	Receiving  bool
	ReadOnly   bool
}

// answerSQL needs no privilege. Without pg_read_all_stats (which pg_monitor contains) a standby's timeline is only known from its
// last restartpoint, so that after a failover it gets reads some minutes later.
const answerSQL = `select r as in_recovery,
	(select system_identifier::text from pg_control_system()) as system_id,
	pg_postmaster_start_time()::text as started,
	(case when r then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text as lsn,
	case when r then greatest((select received_tli from pg_stat_wal_receiver), (select timeline_id from pg_control_checkpoint()),
			(select min_recovery_end_timeline from pg_control_recovery()))
		else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint end as timeline,
	coalesce((select coalesce(status = 'streaming', true) from pg_stat_wal_receiver), false) as receiving,
	current_setting('default_transaction_read_only') = 'on' as read_only
from (select pg_is_in_recovery() as r offset 0) as node`

// watch looks at a node until the context ends.
func (c *Cluster) watch(ctx context.Context, n *node) {
	var p nodeProbe
	defer func() { p.close() }()
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		began := time.Now()
		c.mu.Lock()
		n.asked++
		suspectAt := n.suspectAt
		c.mu.Unlock()
		a, err := p.look(ctx, n, suspectAt)
		if ctx.Err() != nil {
			return
		}
		c.report(n, began, p.opened, a, err)
		if sleep(ctx, probeGap) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-tick.C:
		}
	}
}

// nodeProbe is the connection by which a node is looked at. It is none of the pool's, so that a full pool does not look
// like a dead server.
type nodeProbe struct {
	conn   *Conn
	opened time.Time
}

func (p *nodeProbe) close() {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		_ = p.conn.conn.Close(ctx)
		cancel()
		p.conn = nil
	}
}

// look asks the node, on a connection that is younger than the last doubt about its role.
func (p *nodeProbe) look(ctx context.Context, n *node, suspectAt time.Time) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	kept := p.conn != nil
	if kept && !p.opened.After(suspectAt) {
		p.close()
		kept = false
	}
	a, err := p.ask(ctx, n)
	if err != nil && kept && ctx.Err() == nil { // the connection may have ended for a reason of its own
		a, err = p.ask(ctx, n)
	}
	if err == nil && n.db.Load() == nil {
		var db *DB
		if db, err = Open(ctx, n.cfg, n.opts...); err == nil {
			n.db.Store(db)
		}
	}
	return a, err
}

func (p *nodeProbe) ask(ctx context.Context, n *node) (answer, error) {
	if p.conn == nil {
		opened := time.Now()
		conn, err := Connect(ctx, n.cfg)
		if err != nil {
			return answer{}, err
		}
		p.conn, p.opened = conn, opened
	}
	a, err := One[answer](ctx, p.conn, answerSQL)
	if err != nil {
		p.close()
		return answer{}, fmt.Errorf("look at %s: %w", n.name, err)
	}
	return a, nil
}

// report takes over what a look has found, and draws the consequences.
func (c *Cluster) report(n *node, began, opened time.Time, a answer, err error) {
	c.mu.Lock()
	n.seen = n.asked
	n.err = err
	switch {
	case err == nil:
		n.timeouts, n.answered = 0, began
		suspect := n.claim.suspect && !opened.After(n.suspectAt)
		n.claim = a.claim(n.name)
		n.claim.suspect = suspect
		if c.systemID == "" {
			c.systemID = a.SystemID
		}
	case isTimeout(err) && n.timeouts+1 < patientProbes && n.claim.reachable:
		n.timeouts++
	case SQLState(err) == "53300" && n.claim.reachable: // too many connections: it lives, and is what it was
	default:
		n.claim.reachable = false
	}
	c.conclude(n, began)
	c.mu.Unlock()
	c.events.deliver()
}

func (a *answer) claim(name string) claim {
	cl := claim{
		node: name, role: RolePrimary, reachable: true, readOnly: a.ReadOnly, systemID: a.SystemID, server: a.SystemID + " " + a.Started,
		timeline: uint32(a.Timeline), receiving: a.Receiving,
	}
	if a.LSN != nil {
		cl.lsn = *a.LSN
	}
	if a.InRecovery {
		cl.role = RoleStandby
	} else {
		cl.lsn = recordEnd(cl.lsn)
	}
	return cl
}

// conclude holds an election, shuts the gates of those that must get nothing, and then lets everybody know. from is the node of
// which something new is known, as of a time. Under the lock.
func (c *Cluster) conclude(from *node, at time.Time) {
	before := c.view.Load()
	v := &view{claims: make([]claim, len(c.nodes)), systemID: c.systemID, changed: make(chan struct{})}
	for i, n := range c.nodes {
		v.claims[i] = n.claim
	}
	v.election = elect(v.claims, c.systemID, before.election.timeline)
	if slices.ContainsFunc(c.nodes, func(n *node) bool { return n.seen == 0 }) {
		v.election.primary, v.election.err = -1, fmt.Errorf("%w: not all nodes were asked yet", ErrNoPrimary)
	}
	for i, n := range c.nodes {
		n.setGate(v.election.fenced[i], i == v.election.primary, !v.claims[i].suspect)
	}
	if p := v.election.primary; p >= 0 {
		if p != before.election.primary || v.election.timeline != before.election.timeline {
			c.marks = nil // positions of another history
		}
		if c.nodes[p] == from && from.err == nil {
			c.marks = c.marks.add(at, from.claim.lsn)
		}
		if p != before.election.primary {
			c.nodes[p].db.Load().renew()
		}
	}
	c.view.Store(v)
	close(before.changed)
	c.announce(before, v)
}

// setGate opens or shuts the way to the node. Connections of the time before are not used again, and sure says that those in
// use are broken, too: a single refused write is no reason for that, as it may be the program's own fault.
func (n *node) setGate(fenced string, primary, sure bool) {
	n.gate.primary.Store(primary)
	if fenced == "" {
		n.gate.closed.Store(nil)
		return
	}
	was := n.gate.closed.Swap(&fencedError{node: n.name, reason: fenced})
	if was != nil && was.reason == fenced {
		return
	}
	if db := n.db.Load(); db != nil {
		db.Recycle(fenced)
	}
	if sure {
		n.gate.cut()
	}
}

// renew closes the breakers: a probe has just shown that the server works.
func (db *DB) renew() {
	for _, b := range db.breakers.all() {
		b.Reset()
	}
}

// suspectNode is what a failed request means for a node. A refused write costs the primary its part at once.
func (c *Cluster) suspectNode(n *node, v Verdict) {
	if v.SuspectRole {
		c.mu.Lock()
		if n.claim.role == RolePrimary {
			n.claim.suspect, n.suspectAt = true, time.Now()
			c.conclude(n, n.suspectAt)
		}
		c.mu.Unlock()
		c.events.deliver()
	}
	n.look()
}

// look makes the prober look at once.
func (n *node) look() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// probed waits until a look at the node has ended that began after looks others had begun.
func (c *Cluster) probed(ctx context.Context, n *node, looks uint64) error {
	for {
		v := c.view.Load()
		c.mu.Lock()
		seen := n.seen
		c.mu.Unlock()
		if seen > looks {
			return nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refresh looks at the nodes now, and waits for what they say.
func (c *Cluster) refresh(ctx context.Context, nodes ...*node) {
	looks := make([]uint64, len(nodes))
	c.mu.Lock()
	for i, n := range nodes {
		looks[i] = n.asked
	}
	c.mu.Unlock()
	for _, n := range nodes {
		n.look()
	}
	for i, n := range nodes {
		if err := c.probed(ctx, n, looks[i]); err != nil {
			return
		}
	}
}

// recheck looks at a node now and waits for what it says, or with orMoved, until another one is the primary: a host that hangs
// is not waited for then.
func (c *Cluster) recheck(ctx context.Context, n *node, orMoved bool) {
	c.mu.Lock()
	looks := n.asked
	c.mu.Unlock()
	n.look()
	for {
		v := c.view.Load()
		c.mu.Lock()
		seen := n.seen
		c.mu.Unlock()
		if seen > looks || orMoved && v.election.primary >= 0 && c.nodes[v.election.primary] != n {
			return
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return
		}
	}
}

// nodeOf finds the node of a DB.
func (c *Cluster) nodeOf(db *DB) *node {
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.db.Load() == db })
	if i < 0 {
		return nil
	}
	return c.nodes[i]
}
