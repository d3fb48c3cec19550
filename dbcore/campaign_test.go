package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// campaign runs calls of several workers through a faulty network to a server that suffers, too, and compares what the
// callers were told with what is in the database afterwards.
type campaign struct {
	t       *testing.T
	ctx     context.Context // never ends before the campaign
	server  *pgtest.Server
	standby *pgtest.Server // nil until needed
	proxy   *faultProxy
	admin   *dbcore.DB // as superuser, past the proxy
	verify  bool

	// Calls that must make a connection of their own get one from a pool that keeps none idle.
	pooled, fresh *dbcore.DB
	// The same with the patience that it takes to outlast a restart of the server. Their breakers enforce.
	patientPooled, patientFresh *dbcore.DB

	arrived atomic.Int64  // calls that are held until the server is down
	down    chan struct{} // closed when it is
	bites   atomic.Int64  // calls of an event to which it has done harm
	ended   atomic.Int64  // calls of an event that are over

	mu      sync.Mutex
	records []*callRecord
	last    map[int]string // each worker's last write that must be there
	next    int
}

const campaignWorkers = 12

// newCampaign starts a server and the pools. Without options the retries are those that dbcore has when nobody sets any.
func newCampaign(t *testing.T, major int, verify bool, options ...dbcore.Option) *campaign {
	c := &campaign{t: t, ctx: context.WithoutCancel(t.Context()), verify: verify, last: map[int]string{}}
	c.server = pgtest.New(t, pgtest.Options{Major: major, Settings: map[string]string{
		"synchronous_standby_names": "nobody", "synchronous_commit": "local", "max_connections": "70", "log_min_messages": "fatal",
		"checkpoint_timeout": "1h", "max_wal_size": "4GB",
	}})
	admin, err := dbcore.ParseDSN(c.server.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	c.admin = openDB(t, admin)
	mustExec(t, c.admin, "create role app login")
	for _, sql := range campaignTables {
		mustExec(t, c.admin, sql)
	}
	if err := dbcore.CreateTokenTable(c.ctx, c.admin, ""); err != nil {
		t.Fatal(err)
	}
	mustExec(t, c.admin, "grant all on all tables in schema public to app")
	mustExec(t, c.admin, "grant execute on function pg_control_system() to app")
	for w := range campaignWorkers {
		mustExec(t, c.admin, "insert into counter values ($1, 0)", w)
	}
	c.proxy = newFaultProxy(t, socketOf(c.server))
	patient := dbcore.WithRetry(dbcore.RetryConfig{WaitForBreaker: true, MaxAttempts: 15, ThrottleBase: 50 * time.Millisecond, MaxDelay: time.Second})
	c.pooled, c.fresh = c.open(options...)
	c.patientPooled, c.patientFresh = c.open(append([]dbcore.Option{patient, dbcore.WithBreaker(dbcore.BreakerConfig{OpenFor: 100 * time.Millisecond})}, options...)...)
	return c
}

func socketOf(s *pgtest.Server) string { return s.SocketDir + "/.s.PGSQL." + strconv.Itoa(s.Port) }

// open makes a pool and one that keeps no connections and insists on a primary.
func (c *campaign) open(options ...dbcore.Option) (pooled, fresh *dbcore.DB) {
	cfg := c.proxy.config("app")
	cfg.ConnectTimeout = 10 * time.Second
	// A fault in three calls is more than any budget is for, and than a breaker lets pass: it only watches.
	options = append([]dbcore.Option{
		dbcore.WithTracer(faultTracer{c.proxy}), dbcore.WithBudget(dbcore.NewBudget(1_000_000)),
		dbcore.WithBreaker(dbcore.BreakerConfig{Mode: dbcore.ModeMonitor}),
	}, options...)
	for i, db := range []**dbcore.DB{&pooled, &fresh} {
		if i == 1 {
			cfg.MaxIdleConns, cfg.DSN = -1, dbcore.NewSecret("target_session_attrs=primary")
		}
		var err error
		if *db, err = dbcore.Open(c.ctx, cfg, options...); err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup((*db).Close)
	}
	return pooled, fresh
}

// call runs one call of a worker, with a fault or without, and returns what came of it and whether the fault did harm.
func (c *campaign) call(worker int, kind callKind, d *draw) (rec *callRecord, harmed bool) {
	c.mu.Lock()
	c.next++
	id := fmt.Sprintf("call %d", c.next)
	caller := &caller{worker: worker, last: c.last[worker], db: c.pooled, sync: func() bool { return false }}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	traced := &tracedCall{id: id}
	if d != nil {
		c.prepare(caller, traced, d, cancel)
	}
	r := caller.run(traced.context(ctx), kind, id)
	r.fault = d
	if d != nil {
		harmed = traced.bitten.Load() > 0 || traced.sprung() && (r.err != nil || r.report.NotReplicated || d.kind.means(d.phase) == nil)
		if !harmed {
			r.fault = nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = append(c.records, &r)
	c.last[worker] = caller.last
	return &r, harmed
}

// prepare sets the trap of a call and what else its fault needs.
func (c *campaign) prepare(caller *caller, traced *tracedCall, d *draw, cancel func()) {
	trap := d.kind.trap(c, d, cancel)
	caller.sync = func() bool { return d.kind.sync && !trap.sprung.Load() }
	switch {
	case d.phase == dbcore.PhaseConnect && d.kind.event != "":
		caller.db, traced.start = c.patientFresh, trap
	case d.phase == dbcore.PhaseConnect:
		caller.db, traced.start = c.fresh, trap
	case d.kind.event != "":
		caller.db, traced.statement = c.patientPooled, trap
	default:
		traced.statement = trap
	}
	if traced.start != nil {
		caller.db.Recycle("a new connection is wanted") // one is kept while somebody else is connecting
	}
	traced.wants, traced.onBite = d.wants(), func() { c.bites.Add(1) }
	if means := d.kind.means(d.phase); d.phase == dbcore.PhaseCommit && (errors.Is(means, context.Canceled) || errors.Is(means, context.DeadlineExceeded)) {
		caller.opts.CommitTimeout = shortCommit
	}
}

// maxTries is how often a fault may come too late to do harm, before the campaign gives it up.
const maxTries = 20

// harm runs a fault's call until the fault has done harm.
func (c *campaign) harm(worker int, d *draw) {
	for ; d.tries < maxTries && !d.harmed; d.tries++ {
		_, d.harmed = c.call(worker, d.call, d)
	}
}

// storm runs faults of single connections under the load of all workers.
func (c *campaign) storm(seed uint64, draws []*draw) {
	queue := make(chan *draw, len(draws))
	for _, d := range draws {
		queue <- d
	}
	close(queue)
	var wg sync.WaitGroup
	for w := range campaignWorkers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for d := range queue {
				c.load(w, r)
				c.harm(w, d)
				c.load(w, r)
			}
		})
	}
	wg.Wait()
	// What a call did not wait for is still under way: the end of a session whose COMMIT was answered before it.
	waitUntil(func() bool { return c.proxy.springing.Load() == 0 })
}

// load is a call without a fault of its own. It may still meet what the faults of others have left behind.
func (c *campaign) load(worker int, r *rand.Rand) {
	kind := callKind(r.IntN(int(callTxUpsert) + 1))
	if kind.verified() && !c.verify {
		kind = callTx
	}
	c.call(worker, kind, nil)
}

// campaignSeed is the seed of the draws: LIFEBOAT_TEST_SEED repeats one.
func campaignSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("LIFEBOAT_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("LIFEBOAT_TEST_SEED=%d", seed)
	return seed
}

// run runs the draws: those of single connections in storms, and in between what happens to the server as a whole.
func (c *campaign) run(seed uint64, draws []*draw) {
	var single []*draw
	events := map[string][]*draw{}
	for _, d := range draws {
		if d.kind.event == "" {
			single = append(single, d)
		} else {
			events[d.kind.event] = append(events[d.kind.event], d)
		}
	}
	var rounds []func()
	for event, handle := range map[string]func([]*draw){"crash": c.crash, "demotion": c.demote, "connections": c.exhaust} {
		for list := events[event]; len(list) > 0; {
			n := min(len(list), campaignWorkers)
			batch := list[:n]
			list = list[n:]
			rounds = append(rounds, func() { c.round(handle, batch) })
		}
	}
	share := len(single)/(len(rounds)+1) + 1
	for i := 0; len(single) > 0 || i < len(rounds); i++ {
		n := min(share, len(single))
		c.storm(seed+uint64(i), single[:n])
		single = single[n:]
		if i < len(rounds) {
			rounds[i]()
		}
	}
}

// round repeats an event until it has done harm to all of its calls.
func (c *campaign) round(handle func([]*draw), draws []*draw) {
	for try := 0; try < maxTries && len(draws) > 0; try++ {
		handle(draws)
		draws = slices.DeleteFunc(slices.Clone(draws), func(d *draw) bool { return d.harmed })
	}
}

// TestFaultCampaign is the proof of dbcore's promises: what is safe to repeat is repeated unseen, what nobody can know is
// said to be unknown or found out, and nothing is ever lost, done twice or misreported.
func TestFaultCampaign(t *testing.T) {
	seed := campaignSeed(t)
	lowest := slices.Min(pgtest.Majors(t))
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		n := 1000
		if major != lowest {
			n = 150
		}
		c := newCampaign(t, major, true)
		began := time.Now()
		draws := drawFaults(rand.New(rand.NewPCG(seed, uint64(major))), n*pgtest.Scale(t), true)
		c.run(seed, draws)
		c.report(draws, time.Since(began), true)
	})
}

// TestFaultCampaignWithoutRetries: every fault reaches the caller, and its error tells the truth.
func TestFaultCampaignWithoutRetries(t *testing.T) {
	seed := campaignSeed(t)
	c := newCampaign(t, 0, false, dbcore.WithRetry(dbcore.RetryConfig{MaxAttempts: 1}))
	began := time.Now()
	draws := drawFaults(rand.New(rand.NewPCG(seed, 1)), 120*pgtest.Scale(t), false)
	c.run(seed, draws)
	c.report(draws, time.Since(began), false)
}
