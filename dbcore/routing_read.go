package dbcore

import (
	"context"
	"fmt"
	"time"
)

// DefaultReplayWait is how long a read waits for a replica to replay up to AfterLSN.
const DefaultReplayWait = 200 * time.Millisecond

// replayPoll is the time between two looks at replicas that are waited for.
const replayPoll = 5 * time.Millisecond

// ReadOption says what a read demands of a replica.
type ReadOption func(*readRule)

// MaxLag allows replicas that show a state at most d old: one that has replayed all that the primary had written d ago. As that
// is known in steps of ProbeInterval, d should be some times that; with less than one, the primary serves. 0 is any age.
func MaxLag(d time.Duration) ReadOption { return func(r *readRule) { r.maxLag = d } }

// AfterLSN allows replicas that have replayed up to a position, so that a read shows what was written before: see
// Cluster.LSN. The read waits a little for one (WaitReplay). A write that a failover has lost is not there, whatever its position.
func AfterLSN(l LSN) ReadOption { return func(r *readRule) { r.after = l } }

// WaitReplay is how long to wait for a replica to reach AfterLSN before the primary serves; 0 is 200 ms, negative is not at
// all.
func WaitReplay(d time.Duration) ReadOption { return func(r *readRule) { r.wait = d } }

func newReadRule(opts []ReadOption) (readRule, error) {
	var r readRule
	for _, o := range opts {
		o(&r)
	}
	if r.maxLag < 0 {
		return r, fmt.Errorf("%w: MaxLag is %s", ErrInvalidConfig, r.maxLag)
	}
	setDefault(&r.wait, DefaultReplayWait)
	return r, nil
}

// Replica returns the DB of a standby that meets all options, another one each time, or that of the primary if none does;
// without options any standby will do that receives its primary's log. If there is no primary either, a standby that
// meets the options serves even if it is cut off, and otherwise the error is ErrNoPrimary.
//
// Which one meets the options is known from the last look at each, so that Replica asks nobody, but to wait for AfterLSN. It
// promises nothing for later: ask for each request.
func (c *Cluster) Replica(ctx context.Context, opts ...ReadOption) (*DB, error) {
	rule, err := newReadRule(opts)
	if err != nil {
		return nil, err
	}
	return c.replica(ctx, rule)
}

func (c *Cluster) replica(ctx context.Context, rule readRule) (*DB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	db, lagging := c.choose(rule)
	if db == nil && len(lagging) > 0 && rule.wait > 0 {
		db = c.awaitReplay(ctx, rule, lagging)
	}
	if db != nil {
		return db, nil
	}
	return c.Primary(ctx)
}

// choose picks a standby. If none has reached the wanted position, lagging are those that would do but for that.
func (c *Cluster) choose(rule readRule) (db *DB, lagging []*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, now := c.view.Load(), time.Now()
	if found := candidates(v.claims, v.election, v.systemID, c.marks, now, rule); len(found) > 0 {
		return c.nodes[found[c.turn.Add(1)%uint64(len(found))]].db.Load(), nil
	}
	if rule.after == 0 {
		return nil, nil
	}
	rule.after = 0
	for _, i := range candidates(v.claims, v.election, v.systemID, c.marks, now, rule) {
		lagging = append(lagging, c.nodes[i])
	}
	return nil, lagging
}

// awaitReplay looks at the nodes until one has reached the position, or the wait is over.
func (c *Cluster) awaitReplay(ctx context.Context, rule readRule, lagging []*node) *DB {
	ctx, cancel := context.WithTimeout(ctx, rule.wait)
	defer cancel()
	for {
		c.refresh(ctx, lagging...)
		if db, _ := c.choose(rule); db != nil {
			return db
		}
		if sleep(ctx, replayPoll) != nil {
			return nil
		}
	}
}
