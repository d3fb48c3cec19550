package dbcore_test

import (
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// cluster is a primary and its standby, each with a monitor.
type cluster struct {
	primary, standby *pgtest.Server
	onPrimary        *watched
	onStandby        *watched
}

func newCluster(t *testing.T, major int) *cluster {
	c := &cluster{primary: pgtest.New(t, pgtest.Options{Major: major})}
	c.standby = c.primary.Standby(t)
	thresholds := dbcore.HealthThresholds{Lag: time.Second, RaiseAfter: 2, ClearAfter: 2}
	c.onPrimary = watch(t, c.primary.DB(t, ""), 50*time.Millisecond, thresholds)
	c.onStandby = watch(t, c.standby.DB(t, ""), 50*time.Millisecond, thresholds)
	pgtest.Eventually(t, "both are known, and the standby is up to date", func() bool {
		p, s := c.onPrimary.Snapshot(), c.onStandby.Snapshot()
		return p.Role == dbcore.RolePrimary && s.Role == dbcore.RoleStandby && c.lag().Known && c.lag().Delay == 0
	})
	return c
}

// lag is the standby's; the zero value before its first answer.
func (c *cluster) lag() dbcore.Lag {
	if l := c.onStandby.Snapshot().Lag; l != nil {
		return *l
	}
	return dbcore.Lag{}
}

func (c *cluster) write(t *testing.T) {
	c.primary.Exec(t, "select pg_logical_emit_message(false, 'test', repeat('x', 100000))")
}

func (c *cluster) lagAlert(t *testing.T, began time.Time, kind dbcore.HealthEventKind) {
	t.Helper()
	c.onStandby.await(t, "lag alert "+string(kind), began, func(e dbcore.HealthEvent) bool { return e.Kind == kind && e.Alert.Kind == dbcore.AlertLag })
}

func TestHealthOfAStandby(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		t.Parallel()
		c := newCluster(t, major)
		t.Run("replay paused", func(t *testing.T) { c.replayPaused(t) })
		t.Run("receiver severed", func(t *testing.T) { c.receiverSevered(t) })
		t.Run("receiver severed, primary followed", func(t *testing.T) { c.receiverSeveredPrimaryFollowed(t) })
		t.Run("primary gone, promotion", func(t *testing.T) { c.promoted(t) })
	})
}

// What is received and not replayed is lag, and the pause is told as its reason.
func (c *cluster) replayPaused(t *testing.T) {
	began := time.Now()
	c.standby.Exec(t, "select pg_wal_replay_pause()")
	pgtest.Eventually(t, "replay is paused", func() bool { return c.standby.SQL(t, "select pg_get_wal_replay_pause_state()") == "paused" })
	c.write(t)
	c.lagAlert(t, began, dbcore.EventRaised)
	if l := c.lag(); !l.Known || l.Bytes < 100000 || l.Delay < time.Second || !l.Paused || l.Receiver != dbcore.ReceiverStreaming || l.Receive <= l.Replay {
		t.Errorf("lag %+v, want a known one of 100 kB that is received and not replayed", l)
	}
	c.standby.Exec(t, "select pg_wal_replay_resume()")
	c.lagAlert(t, began, dbcore.EventCleared)
	if l := c.lag(); !l.Known || l.Bytes != 0 || l.Delay != 0 || l.Paused || l.Reason != "up to date" {
		t.Errorf("lag %+v, want none", l)
	}
}

// sever takes the standby's primary away, while the primary lives on; the function it returns mends that.
func (c *cluster) sever(t *testing.T) (mend func()) {
	conninfo := c.standby.SQL(t, "show primary_conninfo")
	c.standby.Set(t, map[string]string{"primary_conninfo": ""})
	pgtest.Eventually(t, "the receiver is gone", func() bool { return c.lag().Receiver == dbcore.ReceiverGone })
	return func() {
		c.standby.Set(t, map[string]string{"primary_conninfo": conninfo})
		pgtest.Eventually(t, "the receiver is back and replay has caught up", func() bool { l := c.lag(); return l.Known && l.Delay == 0 })
	}
}

// receive - replay is 0 on a standby that is cut off, and a lie (resilience.md's trap of other pools): the lag is
// unknown and grows.
func (c *cluster) receiverSevered(t *testing.T) {
	began := time.Now()
	mend := c.sever(t)
	c.write(t)
	if l := c.lag(); l.Known || l.Delay <= 0 {
		t.Errorf("lag %+v, want an unknown one that grows", l)
	}
	before := c.lag().Delay
	pgtest.Eventually(t, "the lag grows", func() bool { return c.lag().Delay > before+500*time.Millisecond })
	c.lagAlert(t, began, dbcore.EventRaised)
	if got := c.standby.SQL(t, "select pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn()"); got != "0" {
		t.Errorf("receive - replay is %s here: this test proves nothing", got)
	}
	mend()
	c.lagAlert(t, began, dbcore.EventCleared)
}

// With the primary's own position the lag of a standby that is cut off is known in bytes.
func (c *cluster) receiverSeveredPrimaryFollowed(t *testing.T) {
	c.onStandby.FollowPrimary(c.onPrimary.HealthMonitor)
	defer c.onStandby.FollowPrimary(nil)
	mend := c.sever(t)
	c.write(t)
	pgtest.Eventually(t, "the lag is known by the primary's word", func() bool { l := c.lag(); return l.Known && l.Bytes >= 100000 && l.Delay > 0 })
	if l := c.lag(); l.Primary < c.onPrimary.Snapshot().WAL-1000 || l.Receiver != dbcore.ReceiverGone {
		t.Errorf("lag %+v", l)
	}
	mend()
	// The same by who knows it from elsewhere: it lies ahead of what the standby was told.
	c.onStandby.SetPrimaryLSN(c.onPrimary.Snapshot().WAL+5000, time.Now())
	pgtest.Eventually(t, "the lag is measured against the position given", func() bool { return c.lag().Bytes >= 5000 })
}

// A promotion is seen as a change of role, on a connection that stays open: no query asks for it, the server tells it.
func (c *cluster) promoted(t *testing.T) {
	c.primary.Kill(t)
	pgtest.Eventually(t, "the receiver is gone", func() bool { return c.lag().Receiver == dbcore.ReceiverGone })
	began := time.Now()
	c.standby.Exec(t, "select pg_promote()")
	e := c.onStandby.await(t, "the role has changed", began, func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventRole })
	if e.FromRole != dbcore.RoleStandby || e.ToRole != dbcore.RolePrimary {
		t.Errorf("role went from %s to %s", e.FromRole, e.ToRole)
	}
	if s := c.onStandby.Snapshot(); s.Role != dbcore.RolePrimary || s.Lag != nil || s.WAL == 0 {
		t.Errorf("after the promotion: role %s, lag %+v, WAL %s", s.Role, s.Lag, s.WAL)
	}
	if c.onStandby.seen(func(e dbcore.HealthEvent) bool { return e.Kind == dbcore.EventState && e.To == dbcore.ServerSuspect }) {
		t.Error("the promotion cost the connection")
	}
}
