package dbcore_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

// faultKind is a row of the campaign's table.
type faultKind struct {
	name   string
	phases []dbcore.Phase
	// means is what dbcore meets: the table of Classify is asked what that is worth. nil means no error at all.
	means func(dbcore.Phase) error
	// trap makes the fault of one call; cancel ends the call's context.
	trap func(c *campaign, d *draw, cancel func()) *trap
	// event is what happens to the server; "" for faults of one connection.
	event string
	// calls restricts the calls that can meet it.
	calls func(callKind) bool
	sync  bool // the call waits for a synchronous standby
}

var (
	allPhases    = []dbcore.Phase{dbcore.PhaseConnect, dbcore.PhaseTx, dbcore.PhaseAutocommit, dbcore.PhaseCommit}
	commitPhases = []dbcore.Phase{dbcore.PhaseAutocommit, dbcore.PhaseCommit}
)

// shortStall is how long a network is silent before it breaks.
const shortStall = 40 * time.Millisecond

// shortCommit is TxOptions.CommitTimeout of calls whose COMMIT is to time out.
const shortCommit = 200 * time.Millisecond

func cutting(t *trap) func(*campaign, *draw, func()) *trap {
	return func(_ *campaign, d *draw, _ func()) *trap {
		c := &trap{at: t.at, reset: t.reset, stall: t.stall, part: t.part}
		if c.part > 0 {
			c.part = max(0.01, d.part)
		}
		return c
	}
}

func demoted(phase dbcore.Phase) error {
	if phase == dbcore.PhaseConnect {
		return &dbcore.ConnectError{Code: dbcore.CodeWrongServerRole}
	}
	return &pgconn.PgError{Severity: "ERROR", Code: "25006"}
}

func full(dbcore.Phase) error { return &dbcore.ConnectError{Code: dbcore.CodeTooMany} }

func fatal(code string) func(dbcore.Phase) error {
	return func(dbcore.Phase) error { return &pgconn.PgError{Severity: "FATAL", Code: code} }
}

// lost is what a cut connection is to dbcore.
func lost(cause error) func(dbcore.Phase) error {
	return func(phase dbcore.Phase) error {
		if phase == dbcore.PhaseConnect {
			return &dbcore.ConnectError{Code: dbcore.CodeOther}
		}
		return cause
	}
}

var faultKinds = []*faultKind{
	{name: "dropped before it is sent", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atRequest})},
	{name: "reset before it is sent", phases: allPhases, means: lost(syscall.ECONNRESET), trap: cutting(&trap{at: atRequest, reset: true})},
	{name: "stalled before it is sent", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atRequest, stall: shortStall})},
	{name: "dropped once it is sent", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atSent})},
	{name: "dropped once answered", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atReply})},
	{name: "reset once answered", phases: allPhases, means: lost(syscall.ECONNRESET), trap: cutting(&trap{at: atReply, reset: true})},
	{name: "stalled once answered", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atReply, stall: shortStall})},
	{name: "half of the reply", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: cutting(&trap{at: atReply, part: 1})},
	{name: "caller gives up, request is late", phases: allPhases, means: func(dbcore.Phase) error { return context.Canceled }, trap: givingUp},
	{name: "stalled beyond COMMIT's timeout", phases: allPhases[3:], means: func(dbcore.Phase) error { return context.DeadlineExceeded }, trap: cutting(&trap{at: atRequest, stall: 2 * shortCommit})},
	{name: "pg_terminate_backend", phases: allPhases, means: fatal("57P01"), trap: terminating},
	{name: "server stopped at once, started", phases: allPhases, means: lost(io.ErrUnexpectedEOF), trap: waiting, event: "crash"},
	{name: "demoted to a standby", phases: allPhases[:3], means: demoted, trap: passing, event: "demotion", calls: callKind.writes},
	{name: "max_connections reached", phases: allPhases[:1], means: full, trap: passing, event: "connections"},
	{name: "standby pending, terminated", phases: commitPhases, means: fatal("57P01"), trap: pending, sync: true, calls: callKind.writes},
	{name: "standby pending, cancelled", phases: commitPhases, means: func(dbcore.Phase) error { return nil }, trap: pending, sync: true, calls: callKind.writes},
	{name: "standby pending, caller gives up", phases: commitPhases, means: func(dbcore.Phase) error { return context.Canceled }, trap: pending, sync: true, calls: callKind.writes},
}

// draw is one fault of the campaign.
type draw struct {
	kind  *faultKind
	phase dbcore.Phase
	call  callKind
	nth   int     // of the transaction's statements, for PhaseTx; 0 is BEGIN
	part  float64 // of the reply
	late  bool    // after the request was sent, where the kind leaves that open
	tries int     // how often it was tried
	// harmed says that it did harm: an attempt of the call failed by it, or what else its kind is about.
	harmed bool
}

// drawFaults draws uniformly over the pairs of kind and phase, and then over the calls that can meet it.
func drawFaults(r *rand.Rand, n int, verify bool) []*draw {
	var cells []draw
	for _, k := range faultKinds {
		for _, p := range k.phases {
			cells = append(cells, draw{kind: k, phase: p})
		}
	}
	draws := make([]*draw, n)
	for i := range draws {
		d := cells[r.IntN(len(cells))]
		calls := slices.Concat(autocommitCalls, txCalls)
		switch d.phase {
		case dbcore.PhaseAutocommit:
			calls = autocommitCalls
		case dbcore.PhaseTx, dbcore.PhaseCommit:
			calls = txCalls
		}
		for {
			d.call = calls[r.IntN(len(calls))]
			if (d.kind.calls == nil || d.kind.calls(d.call)) && (verify || !d.call.verified()) {
				break
			}
		}
		d.nth, d.part, d.late = r.IntN(3), r.Float64(), r.IntN(2) == 1
		if d.kind.event == "demotion" {
			d.nth = 1 // the first statement that writes
		}
		draws[i] = &d
	}
	return draws
}

// wants says for which statement of its call the trap is.
func (d *draw) wants() func(sql string) bool {
	n := -1
	return func(sql string) bool {
		switch d.phase {
		case dbcore.PhaseCommit:
			return sql == "commit"
		case dbcore.PhaseTx:
			if sql == "begin" || sql == "begin isolation level repeatable read read only" {
				n = -1
			}
			n++
			return n == d.nth && sql != "commit"
		}
		return true
	}
}

// givingUp cancels the caller while its request is stalled, and delivers the request afterwards. COMMIT does not heed the
// caller; its own timeout is short then (see campaign.prepare).
func givingUp(_ *campaign, d *draw, cancel func()) *trap {
	if d.phase == dbcore.PhaseConnect {
		return &trap{at: atRequest, stall: shortStall, meanwhile: func(uint32) { cancel() }}
	}
	return &trap{at: atRequest, late: true, meanwhile: func(uint32) { cancel() }}
}

// terminating ends the very session of the call, before its request has come or while it works.
func terminating(c *campaign, d *draw, _ func()) *trap {
	switch {
	case d.phase == dbcore.PhaseConnect:
		return &trap{at: atReply, passOn: true, withoutReady: true, meanwhile: c.terminate(10_000)}
	case d.late && d.phase != dbcore.PhaseTx && d.tries < 5: // most statements have ended before
		return &trap{at: atSent, passOn: true, meanwhile: c.terminate(0)}
	}
	return &trap{at: atRequest, passOn: true, meanwhile: c.terminate(10_000)}
}

// terminate returns a function that ends a session, and waits for that up to a time in ms.
func (c *campaign) terminate(wait int) func(pid uint32) {
	return func(pid uint32) {
		if _, err := c.admin.Exec(c.ctx, "select pg_terminate_backend($1, $2)", pid, wait); err != nil {
			c.t.Errorf("terminate %d: %v", pid, err)
		}
	}
}

// waiting holds the call until the server is down: its request not yet sent, or its reply not yet passed on.
func waiting(c *campaign, d *draw, _ func()) *trap {
	hold := func(uint32) {
		c.arrived.Add(1)
		<-c.down
	}
	if d.late && d.phase != dbcore.PhaseConnect {
		return &trap{at: atReply, meanwhile: hold}
	}
	return &trap{at: atRequest, passOn: true, meanwhile: hold}
}

// passing only notes that the request has come by: it is the server that fails it.
func passing(*campaign, *draw, func()) *trap { return &trap{at: atRequest, passOn: true} }

// pending waits until COMMIT waits for a standby that does not exist, and then ends that wait.
func pending(c *campaign, d *draw, cancel func()) *trap {
	return &trap{at: atSent, passOn: true, meanwhile: func(pid uint32) {
		if !c.waitsForStandby(pid) {
			return
		}
		switch {
		case d.kind.name == "standby pending, terminated":
			c.terminate(0)(pid)
		case d.kind.name == "standby pending, cancelled":
			if _, err := c.admin.Exec(c.ctx, "select pg_cancel_backend($1)", pid); err != nil {
				c.t.Errorf("cancel %d: %v", pid, err)
			}
		case d.phase == dbcore.PhaseAutocommit:
			cancel()
		} // COMMIT's own timeout ends the third kind; pgx then sends a cancel request, which ends the server's wait
	}}
}

func (c *campaign) waitsForStandby(pid uint32) bool {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(3 * time.Millisecond) {
		n, err := dbcore.One[int](c.ctx, c.admin, "select count(*) from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'", pid)
		if err != nil {
			c.t.Errorf("look for a waiting session: %v", err)
			return false
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// gaveUp says that the caller's own context has ended.
func (d *draw) gaveUp() bool {
	return errors.Is(d.kind.means(d.phase), context.Canceled) && !d.kind.sync
}

// expectation is what the table says about a fault.
type expectation string

const (
	mustHide   expectation = "unseen"    // safe to repeat
	mustTell   expectation = "ambiguous" // nobody can know
	mustDecide expectation = "verified"  // TxOptions.Verify finds out
	mustFail   expectation = "reported"  // not to be repeated
)

// expect asks the table of Classify.
func (d *draw) expect() expectation {
	err := d.kind.means(d.phase)
	if err == nil {
		return mustHide
	}
	phase := d.phase
	if phase == dbcore.PhaseTx && d.call == callTxRead {
		phase = dbcore.PhaseReadOnlyTx
	}
	if phase == dbcore.PhaseCommit && errors.Is(err, context.Canceled) {
		err = context.DeadlineExceeded // of COMMIT's own context
	}
	v := dbcore.Classify(err, phase)
	switch {
	case d.phase == dbcore.PhaseCommit && d.gaveUp() && d.call.idempotent():
		return mustTell // it may be repeated, but not for a caller who has gone
	case dbcore.RetryConfig{}.Allows(v, d.call.idempotent()), v.Action == dbcore.Ambiguous && d.call.idempotent():
		return mustHide
	case v.Action == dbcore.Ambiguous && d.call.verified():
		return mustDecide
	case v.Action == dbcore.Ambiguous, v.Action == dbcore.RetryIfIdempotent:
		return mustTell
	}
	return mustFail
}
