package pginstance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Mode is a way to shut a server down (PostgreSQL documentation, 19.5 "Shutting Down the Server").
type Mode int

// The modes, from the kindest to the hardest.
const (
	// Smart waits for the clients to leave (SIGTERM).
	Smart Mode = iota
	// Fast throws the clients out and writes a checkpoint (SIGINT).
	Fast
	// Immediate ends everything at once, as a crash does (SIGQUIT); the next start recovers.
	Immediate
)

// String returns the name that pg_ctl gives the mode.
func (m Mode) String() string {
	switch m {
	case Smart:
		return "smart"
	case Fast:
		return "fast"
	case Immediate:
		return "immediate"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

const (
	defaultPoll        = 100 * time.Millisecond
	defaultStopTimeout = time.Minute
	// killTimeout is for what SIGKILL cannot end at once: a process in uninterruptible sleep on a dead disk.
	killTimeout = 15 * time.Second
)

// immediateTimeout is more than the 5 s after which the postmaster kills children that ignore SIGQUIT
// (SIGKILL_CHILDREN_AFTER_SECS in postmaster.c). A variable for the tests.
var immediateTimeout = 15 * time.Second

// Stop shuts the server down, waits until it has ended and removes a private socket directory, with the log in it.
// A mode that does not end the server in time (Options.StopTimeout; 15 s for Immediate) is followed by the next harder
// one, and in the end by SIGKILL. When ctx ends, Stop does not give up but goes on with Immediate at once: it is what
// cleans up, and a server left running is worse than a crash recovery. It may be called again, and on a server that has
// ended by itself. An error means that something is left.
func (in *Instance) Stop(ctx context.Context, mode Mode) error {
	hurry := ctx.Done()
	for ; mode <= Immediate && !in.Ended(); mode++ {
		if ctx.Err() != nil {
			mode = Immediate // not one after the other: a fast shutdown in between would begin a checkpoint
		}
		sig, limit := syscall.SIGTERM, in.stopTimeout
		switch mode {
		case Fast:
			sig = syscall.SIGINT
		case Immediate:
			sig, limit, hurry = syscall.SIGQUIT, immediateTimeout, nil // this one gets its time in any case
		}
		if err := signalGone(in.proc, sig); err != nil {
			return fmt.Errorf("stop server in %s: %w", in.dataDir, err)
		}
		if in.waitEnd(limit, hurry) {
			break
		}
		in.logger.Warn("server does not stop, pressing harder", "dataDir", in.dataDir, "pid", in.pid, "mode", mode.String())
	}
	if !in.Ended() {
		if err := signalGone(in.proc, syscall.SIGKILL); err != nil {
			return fmt.Errorf("stop server in %s: %w", in.dataDir, err)
		}
		if !in.waitEnd(killTimeout, nil) {
			return fmt.Errorf("stop server in %s: process %d did not end %v after SIGKILL: is its disk gone?",
				in.dataDir, in.pid, killTimeout)
		}
	}
	return in.cleanUp()
}

// kill is Stop for a start that is given up.
func (in *Instance) kill() {
	if err := in.Stop(context.Background(), Immediate); err != nil {
		in.logger.Warn("server of a failed start is left", "error", err)
	}
}

// cleanUp waits for processes that outlive the postmaster, which they do for a moment if it was killed, and removes
// what belongs to the run.
func (in *Instance) cleanUp() error {
	in.log.update() // before the file goes
	if err := waitNobody(in.dataDir, immediateTimeout); err != nil {
		return fmt.Errorf("stop server in %s: %w", in.dataDir, err)
	}
	if in.ownSocket {
		return removeSocketDir(in.socketDir)
	}
	return nil
}

// waitEnd waits until the server has ended, for at most limit or until hurry is closed, and tells whether it has.
func (in *Instance) waitEnd(limit time.Duration, hurry <-chan struct{}) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond) // an attached server does not tell
	defer tick.Stop()
	for {
		if in.Ended() {
			return true
		}
		select {
		case <-in.ended():
		case <-tick.C:
		case <-hurry:
			return in.Ended()
		case <-timeout.C:
			return in.Ended()
		}
	}
}

// waitNobody waits until no PostgreSQL process works in dir. Halfway through it kills those that do: children notice the
// death of their postmaster by themselves, unless they hang. A server that somebody else has started there meanwhile is
// left alone; the error then wraps ErrRunning.
func waitNobody(dir string, limit time.Duration) error {
	start, pressed := time.Now(), false
	for {
		list, err := Running(dir)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(p Process) bool { return p.DataDir != dir })
		if len(list) == 0 {
			return nil
		}
		if f, err := findPostmaster(dir); err == nil {
			return fmt.Errorf("%w: process %d was started meanwhile", ErrRunning, f.pid)
		}
		switch waited := time.Since(start); {
		case waited > limit:
			return fmt.Errorf("process %d still works in %s", list[0].PID, dir)
		case waited > limit/2 && !pressed:
			pressed = true
			for _, p := range list {
				_ = syscall.Kill(p.PID, syscall.SIGKILL) // whoever survives is reported above
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}
