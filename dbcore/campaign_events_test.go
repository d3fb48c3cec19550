package dbcore_test

import (
	"errors"
	"sync"
	"time"

	"lifeboat/dbcore"
)

// together starts one call for each fault, each by a worker of its own, and returns what waits for them.
func (c *campaign) together(draws []*draw) (wait func()) {
	c.arrived.Store(0)
	c.bites.Store(0)
	c.ended.Store(0)
	var wg sync.WaitGroup
	for w, d := range draws {
		wg.Go(func() {
			_, d.harmed = c.call(w, d.call, d)
			d.tries++
			c.ended.Add(1)
		})
	}
	return wg.Wait
}

// waitUntil waits for what the calls of an event are to come to, and no longer than they may be expected to take: the
// report counts those that came too late.
func waitUntil(ok func() bool) {
	for deadline := time.Now().Add(10 * time.Second); !ok() && time.Now().Before(deadline); {
		<-time.After(2 * time.Millisecond)
	}
}

// crash holds a call for each fault at its point, stops the server at once (immediate), lets the calls go, and starts it
// again: what crash recovery finds is what counts.
func (c *campaign) crash(draws []*draw) {
	c.down = make(chan struct{})
	wait := c.together(draws)
	waitUntil(func() bool { return c.arrived.Load()+c.ended.Load() >= int64(len(draws)) })
	c.server.Kill(c.t)
	close(c.down)
	c.server.Start(c.t)
	wait()
	c.admin.Recycle("the server was restarted")
}

// demote leads new connections to a standby for a while, as a name or an address does that has not followed a failover.
func (c *campaign) demote(draws []*draw) {
	if c.standby == nil {
		c.standby = c.server.Standby(c.t)
	}
	for _, db := range []*dbcore.DB{c.patientPooled, c.patientFresh} {
		db.Recycle("demotion")
	}
	primary, standby := socketOf(c.server), socketOf(c.standby)
	c.proxy.target.Store(&standby)
	wait := c.together(draws)
	waitUntil(func() bool { return c.bites.Load()+c.ended.Load() >= int64(len(draws)) })
	c.proxy.target.Store(&primary)
	wait()
}

// exhaust takes all of the server's connections that ordinary roles may have.
func (c *campaign) exhaust(draws []*draw) {
	cfg, err := dbcore.ParseDSN(c.server.DSN(""))
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.User = "app"
	var held []*dbcore.Conn
	for {
		conn, err := dbcore.Connect(c.ctx, cfg)
		if err != nil {
			var full *dbcore.ConnectError
			if !errors.As(err, &full) || full.Code != dbcore.CodeTooMany {
				c.t.Errorf("fill the server with connections: %v", err)
			}
			break
		}
		held = append(held, conn)
	}
	wait := c.together(draws)
	waitUntil(func() bool { return c.bites.Load()+c.ended.Load() >= int64(len(draws)) })
	for _, conn := range held {
		_ = conn.Close()
	}
	wait()
}
