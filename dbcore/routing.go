package dbcore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of ClusterConfig.
const (
	DefaultProbeInterval = 500 * time.Millisecond
	DefaultFailoverWait  = 15 * time.Second
)

// ClusterConfig says which servers make up a cluster.
type ClusterConfig struct {
	// Nodes are the servers, one each: a primary and its physical standbys, in any order. The Cluster finds out which is
	// which, so several hosts and target_session_attrs are refused. A short ConnectTimeout (two seconds) is good here: it is
	// how long a request can hang on a host that has vanished.
	Nodes []Config
	// ProbeInterval is the time between two looks at a node; 0 is 500 ms. Failures of requests make it look at once.
	ProbeInterval time.Duration
	// FailoverWait is how long a request of the Cluster's own methods waits for a primary while there is none; 0 is 15 s,
	// negative is not at all. The context bounds it, too.
	FailoverWait time.Duration
}

// Cluster is a primary and its standbys. It sends writes to the one and reads to the others, and follows when the roles
// change. It is safe for concurrent use.
//
// # Who is the primary
//
// Each node is asked all ProbeInterval, on a connection of its own, with a limit of one second. Who says that it is not in
// recovery is the primary, if no other node knows a higher timeline: each promotion begins one, so a former primary that
// comes back as it was is recognised. Two primaries on one timeline are ErrSplitBrain, and neither is written to.
//
// A node loses the part at once, in the middle of the request, when it refuses a write as read-only (SQLSTATE 25006), and when
// another node has a higher timeline. From then on nothing is sent to it, also not through a *DB that somebody has kept,
// and a transaction that has begun there is rolled back instead of committed, until a new connection has shown that it is
// the primary. Once another node is known to have taken over, connections in use are broken as well, so that no write is
// acknowledged by the old primary after that, and nobody waits for a host that hangs.
//
// A primary that does not answer a probe, twice if it only took too long, is not given out any more. What is under way there
// goes on, as it may only be slow, until somebody else is the primary.
//
// A Cluster that is opened when only a former primary can be reached cannot know better. Fencing on the servers' side,
// as Patroni and other managers do it, remains necessary.
//
// # Requests
//
// Exec, Query and RunTx, and those of Op, find the primary for each attempt anew and repeat by the same rules as a DB: what has
// left nothing behind is repeated on the new primary, and an ambiguous COMMIT never is. Primary and Replica
// give the DB of a node, for what needs more: ask for each request, do not keep it.
type Cluster struct {
	nodes    []*node
	interval time.Duration
	patience time.Duration // negative: none
	policy   *policy
	events   clusterEvents

	stop    context.CancelFunc
	running sync.WaitGroup
	turn    atomic.Uint64 // between replicas

	mu       sync.Mutex
	systemID string
	marks    marks
	view     atomic.Pointer[view]
}

// view is what is known at a moment. It never changes.
type view struct {
	claims   []claim
	election election
	systemID string
	changed  chan struct{} // closed when there is a newer one
}

func (v *view) primary(nodes []*node) *DB {
	if v.election.primary < 0 {
		return nil
	}
	return nodes[v.election.primary].db.Load()
}

// OpenCluster opens pools to the nodes that answer, and goes on looking for the others. The options are those of Open and
// hold for each node's DB; the nodes share one Budget. Close ends it.
//
// It returns when each node has answered or failed once, at the latest after about two seconds. It is an error if none
// answers, or if they are of different clusters; that none is the primary is not, see WaitPrimary.
func OpenCluster(ctx context.Context, cfg ClusterConfig, opts ...Option) (*Cluster, error) {
	c, err := newCluster(cfg, opts)
	if err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	for _, n := range c.nodes {
		c.running.Go(func() { c.watch(background, n) })
	}
	for _, n := range c.nodes {
		if err := c.probed(ctx, n, 0); err != nil {
			c.Close()
			return nil, fmt.Errorf("open cluster: %w", err)
		}
	}
	if err := c.checkOpen(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newCluster(cfg ClusterConfig, opts []Option) (*Cluster, error) {
	switch {
	case len(cfg.Nodes) == 0:
		return nil, fmt.Errorf("%w: ClusterConfig.Nodes is empty", ErrInvalidConfig)
	case cfg.ProbeInterval < 0:
		return nil, fmt.Errorf("%w: ProbeInterval is %s", ErrInvalidConfig, cfg.ProbeInterval)
	}
	p, err := newPolicy(opts)
	if err != nil {
		return nil, err
	}
	c := &Cluster{interval: cfg.ProbeInterval, patience: cfg.FailoverWait, policy: p}
	setDefault(&c.interval, DefaultProbeInterval)
	setDefault(&c.patience, DefaultFailoverWait)
	opts = append(opts[:len(opts):len(opts)], WithBudget(p.budget))
	names := map[string]bool{}
	for _, nc := range cfg.Nodes {
		n, err := c.newNode(nc, opts)
		if err != nil {
			return nil, err
		}
		if names[n.name] {
			return nil, fmt.Errorf("%w: node %s is listed twice", ErrInvalidConfig, n.name)
		}
		names[n.name] = true
		c.nodes = append(c.nodes, n)
	}
	first := &view{claims: make([]claim, len(c.nodes)), changed: make(chan struct{})}
	for i, n := range c.nodes {
		first.claims[i].node = n.name
	}
	first.election = elect(first.claims, "", 0)
	c.view.Store(first)
	return c, nil
}

// checkOpen says why the Cluster is of no use.
func (c *Cluster) checkOpen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failures []error
	for _, n := range c.nodes {
		switch {
		case n.err != nil:
			failures = append(failures, n.err)
		case n.claim.foreign(c.systemID):
			return fmt.Errorf("open cluster: %w: %s is of another cluster than the nodes before it: its system identifier is %s, theirs is %s",
				ErrInvalidConfig, n.name, n.claim.systemID, c.systemID)
		}
	}
	if len(failures) == len(c.nodes) {
		return fmt.Errorf("open cluster: no node answers: %w", errors.Join(failures...))
	}
	return nil
}

// Close ends the pools of all nodes, and waits until their connections have been given back.
func (c *Cluster) Close() {
	c.stop()
	c.running.Wait()
	for _, n := range c.nodes {
		if db := n.db.Load(); db != nil {
			db.Close()
		}
	}
}

// Primary returns the DB of the primary, at once and without asking anybody. The error is ErrNoPrimary, which may be
// ErrSplitBrain as well; its text tells what each node says and what to do. A DB that is not the primary any more refuses with
// ErrFenced, so ask for each request.
func (c *Cluster) Primary(ctx context.Context) (*DB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v := c.view.Load()
	if db := v.primary(c.nodes); db != nil {
		return db, nil
	}
	return nil, v.election.err
}

// WaitPrimary is Primary that waits for one as long as the context allows. Its error then is both the context's and
// ErrNoPrimary.
func (c *Cluster) WaitPrimary(ctx context.Context) (*DB, error) {
	for {
		v := c.view.Load()
		if db := v.primary(c.nodes); db != nil {
			return db, nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", v.election.err, ctx.Err())
		}
	}
}

// waitBounded is WaitPrimary with a limit.
func (c *Cluster) waitBounded(ctx context.Context, patience time.Duration) (*DB, error) {
	if db, err := c.Primary(ctx); err == nil || patience <= 0 || ctx.Err() != nil {
		return db, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.WaitPrimary(ctx)
}

// LSN returns how far the primary has written its log. Asked after a transaction has committed it is a position for AfterLSN: a
// replica that has replayed up to there shows that transaction.
func (c *Cluster) LSN(ctx context.Context) (LSN, error) {
	at, err := One[LSN](ctx, c.Op("").Idempotent(), "select pg_current_wal_insert_lsn()::text")
	if err != nil {
		return 0, fmt.Errorf("ask the primary for its log position: %w", err)
	}
	return recordEnd(at), nil
}

// NodeStatus is what a Cluster knows of a node.
type NodeStatus struct {
	// Name is host:port, as in the events and errors.
	Name string
	// Role is what the node last said of itself, Primary whether it gets the writes.
	Role    Role
	Primary bool
	// Reachable says that it answered the last probe, Probed when it last did; zero if it never did.
	Reachable bool
	Probed    time.Time
	// Fenced is why nothing is sent to it; "" if something may be.
	Fenced string
	// Timeline and LSN are the timeline it is on and how far it has replayed, or written if it is a primary.
	Timeline uint32
	LSN      LSN
	// Receiving says of a standby that it receives the log from another server right now.
	Receiving bool
	// Lag is how old, at most, the state is that a standby shows. It is measured with this program's clock against the
	// primary's positions, in steps of ProbeInterval, and grows while the primary cannot be seen. LagKnown is false for a
	// primary, for a standby on another timeline, and for one that is further behind than the Cluster remembers (some minutes).
	Lag      time.Duration
	LagKnown bool
	// LagBytes is how much log the standby lacks; 0 if it is not known.
	LagBytes uint64
	// Err is why it did not answer; nil if it did.
	Err error
}

// Nodes returns what is known of each node, in the order of ClusterConfig. It asks nobody.
func (c *Cluster) Nodes() []NodeStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view.Load()
	list := make([]NodeStatus, len(c.nodes))
	for i, n := range c.nodes {
		cl := &v.claims[i]
		s := NodeStatus{
			Name: n.name, Role: cl.role, Primary: i == v.election.primary, Reachable: cl.reachable, Probed: n.answered,
			Fenced: v.election.fenced[i], Timeline: cl.timeline, LSN: cl.lsn, Receiving: cl.receiving, Err: n.err,
		}
		if cl.role == RoleStandby && cl.timeline == v.election.timeline && !cl.foreign(v.systemID) {
			s.Lag, s.LagKnown = c.marks.lag(time.Now(), cl.lsn)
			if last := c.marks.last(); last > cl.lsn {
				s.LagBytes = uint64(last - cl.lsn)
			}
		}
		list[i] = s
	}
	return list
}
