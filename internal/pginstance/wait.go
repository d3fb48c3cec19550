package pginstance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/dbcore"
)

// Condition decides from one look whether waiting is over. With done it is, successfully; with an error it is, in vain.
// It also sees StateExited: done then makes the end of the server a success, and false makes WaitUntil return the
// *ExitError.
type Condition func(Status) (done bool, err error)

// ErrTargetMissed says that recovery ended, or stands still, without having reached its target.
var ErrTargetMissed = errors.New("recovery did not reach its target")

// Accepting is met when the server answers SQL, be it in recovery. It says nothing about how recovery will end.
func Accepting(s Status) (bool, error) {
	return s.State == StateRecovery || s.State == StatePaused || s.State == StateReady, nil
}

// Promoted is met when recovery has ended and the server accepts writes. A server that pauses instead will not get
// there by itself: then the error says so.
func Promoted(s Status) (bool, error) {
	if s.State == StatePaused {
		return false, fmt.Errorf("waiting for promotion, but replay is paused at %s (%s); resume it by "+
			"pg_wal_replay_resume(), or recover with recovery_target_action=promote", s.ReplayLSN, pauseReason(s))
	}
	return s.State == StateReady, nil
}

// PausedAtTarget is met when replay is paused because the recovery target was reached. A pause for another reason, and
// the end of recovery, are ErrTargetMissed.
func PausedAtTarget(s Status) (bool, error) {
	switch {
	case s.State == StatePaused && s.TargetLine != "":
		return true, nil
	case s.State == StatePaused:
		return false, fmt.Errorf("%w: replay is paused at %s (%s)", ErrTargetMissed, s.ReplayLSN, pauseReason(s))
	case s.State == StateReady:
		return false, fmt.Errorf("%w: the server left recovery instead of pausing", ErrTargetMissed)
	}
	return false, nil
}

// ShutDownAtTarget is met when the server has ended because the recovery target was reached
// (recovery_target_action=shutdown).
func ShutDownAtTarget(s Status) (bool, error) {
	if s.State == StateReady {
		return false, fmt.Errorf("%w: the server left recovery instead of shutting down", ErrTargetMissed)
	}
	return s.State == StateExited && s.TargetLine != "" && s.Exit.FatalLine == "" && s.Exit.Signal == 0, nil
}

func pauseReason(s Status) string {
	if s.TargetLine != "" {
		return s.TargetLine
	}
	return "not because of a target: by pg_wal_replay_pause(), or because a setting is lower than on the primary"
}

// WaitReady waits for a condition, such as Promoted. It is WaitUntil without progress.
func (in *Instance) WaitReady(ctx context.Context, cond Condition) (Status, error) {
	return in.WaitUntil(ctx, cond, nil)
}

// WaitUntil looks at the server again and again (Options.PollInterval) until the condition is met, and returns the
// Status that met it. progress, if not nil, is called with every look. It returns an *ExitError as soon as the server
// has ended, and the context's error with what was last seen when that ends; the server goes on in that case. It changes
// nothing and may be repeated.
func (in *Instance) WaitUntil(ctx context.Context, cond Condition, progress func(Status)) (Status, error) {
	w := watcher{in: in}
	defer w.close()
	tick := time.NewTicker(in.poll)
	defer tick.Stop()
	var last Status
	for {
		st := w.look(ctx)
		if ctx.Err() != nil && st.State != StateExited {
			return last, in.gaveUp(ctx, last) // the look itself was cut short: it says nothing
		}
		if last = st; progress != nil {
			progress(st)
		}
		done, err := cond(st)
		switch {
		case err != nil:
			return st, fmt.Errorf("wait for server in %s: %w", in.dataDir, err)
		case done:
			return st, nil
		case st.State == StateExited:
			return st, fmt.Errorf("wait for server: %w", st.Exit)
		case turnedAway(st.Err):
			return st, fmt.Errorf("wait for server in %s: it does not let its watcher in (pg_hba.conf, Options.Superuser): %w",
				in.dataDir, st.Err)
		}
		select {
		case <-ctx.Done():
		case <-in.ended():
		case <-tick.C:
		}
	}
}

// turnedAway tells whether the server will not answer SQL however long one waits.
func turnedAway(err error) bool {
	var refused *dbcore.ConnectError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Code {
	case dbcore.CodeAuth, dbcore.CodeNoHBAEntry, dbcore.CodePermission:
		return true
	}
	return false
}

// gaveUp is the error of a wait whose context ended.
func (in *Instance) gaveUp(ctx context.Context, last Status) error {
	seen := orDefault(last.String(), "nothing")
	if last.Err != nil {
		seen += ": " + last.Err.Error()
	}
	return fmt.Errorf("wait for server in %s (last seen: %s): %w", in.dataDir, seen, context.Cause(ctx))
}
