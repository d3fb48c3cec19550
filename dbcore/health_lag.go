package dbcore

import (
	"fmt"
	"time"
)

// receiverSilence is how long the receiver may have heard nothing and still count as in touch. A primary with nothing to
// say speaks after half of its wal_sender_timeout (60 s by default), and a receiver gives up after its
// wal_receiver_timeout (60 s): a network that swallows everything is noticed no sooner, unless the primary's position
// is known.
const receiverSilence = 40 * time.Second

// primaryFresh is how old the primary's position may be to count as known.
const primaryFresh = 5 * time.Second

// ReceiverState is what a standby's WAL receiver does.
type ReceiverState string

// The states.
const (
	ReceiverStreaming ReceiverState = "streaming" // in touch with its primary
	ReceiverSilent    ReceiverState = "silent"    // it runs and has heard nothing for long
	ReceiverGone      ReceiverState = "gone"      // there is none: the standby is cut off, or lives on archived WAL
)

// Lag is how far a standby is behind.
//
// What a standby received and has not replayed is not its lag: cut off from its primary it has replayed all that it
// received and falls behind for ever. So the lag is measured against the primary's own position where that is known
// (HealthMonitor.FollowPrimary), and a standby without a receiver is never called up to date by its own word.
type Lag struct {
	// Known says that Bytes is all of it. If false, Bytes and Delay are lower bounds, and Delay grows.
	Known bool
	// Bytes is the WAL that the standby has not replayed.
	Bytes int64
	// Delay is for how long the oldest WAL that is not replayed has been known of, or for how long the standby has been out
	// of touch, whichever is longer. It is measured by this process' clock alone, and so as exact as the probe's interval.
	Delay time.Duration
	// Receive and Replay are the standby's own positions; 0 if it has none.
	Receive, Replay LSN
	// Primary is the position that Bytes is measured against: the farthest that is known to exist.
	Primary LSN
	// Receiver is what the WAL receiver does.
	Receiver ReceiverState
	// Paused says that somebody has paused the replay.
	Paused bool
	// Reason says in words what holds the standby back, or that nothing does.
	Reason string
}

// standbyStatus is a standby's word about itself.
type standbyStatus struct {
	receive, replay, latestEnd LSN
	hasReceiver                bool
	receiverStatus             string        // "" if the role may not see it
	silence                    time.Duration // since the receiver heard anything; 0 if the role may not see it
	paused                     bool
}

func (s standbyStatus) receiver() ReceiverState {
	switch {
	case !s.hasReceiver, s.receiverStatus != "" && s.receiverStatus != "streaming":
		return ReceiverGone
	case s.silence > receiverSilence:
		return ReceiverSilent
	}
	return ReceiverStreaming
}

// primaryPosition is where a primary was at a moment.
type primaryPosition struct {
	lsn LSN
	at  time.Time
}

// lagWatch remembers when which position was first known of.
type lagWatch struct {
	inTouch time.Time // when the standby was last in touch with its primary; before that, when the watch began
	newest  LSN       // the farthest position known of when it was
	seen    []primaryPosition
}

// maxSeen bounds the memory of a standby that replays nothing for long; thinning loses precision, not age.
const maxSeen = 1024

func (w *lagWatch) step(now time.Time, s standbyStatus, primary primaryPosition) Lag {
	l := Lag{Receive: s.receive, Replay: s.replay, Receiver: s.receiver(), Paused: s.paused}
	l.Primary = max(s.receive, s.latestEnd, primary.lsn, s.replay)
	if w.inTouch.IsZero() || l.Receiver == ReceiverStreaming {
		w.inTouch, w.newest = now, 0
	}
	// What a receiver knew is gone with it, and must not count as replayed for that. A new primary after a failover may
	// well be behind the old one: in touch with it, only what it says counts.
	w.newest = max(w.newest, l.Primary)
	l.Primary = w.newest
	fresh := primary.lsn != 0 && now.Sub(primary.at) <= primaryFresh
	l.Known = fresh || l.Receiver == ReceiverStreaming
	l.Bytes = int64(l.Primary - s.replay)
	l.Delay = max(w.oldest(now, l.Primary, s.replay), now.Sub(w.inTouch))
	l.Reason = l.reason()
	return l
}

// oldest notes the newest position and returns for how long the oldest that is not replayed has been known.
func (w *lagWatch) oldest(now time.Time, newest, replay LSN) time.Duration {
	for n := len(w.seen); n > 0 && w.seen[n-1].lsn > newest; n-- {
		w.seen = w.seen[:n-1]
	}
	if n := len(w.seen); n == 0 || w.seen[n-1].lsn < newest {
		w.seen = append(w.seen, primaryPosition{newest, now})
	}
	first := 0
	for first < len(w.seen) && w.seen[first].lsn <= replay {
		first++
	}
	// The last stays, or it would be taken for new when it is seen again.
	w.seen = w.seen[min(first, len(w.seen)-1):]
	if len(w.seen) > maxSeen {
		half := w.seen[:0]
		for i := 0; i < len(w.seen); i += 2 {
			half = append(half, w.seen[i])
		}
		w.seen = half
	}
	if w.seen[0].lsn <= replay {
		return 0
	}
	return now.Sub(w.seen[0].at)
}

func (l Lag) reason() string {
	var text string
	switch {
	case l.Receiver == ReceiverGone:
		text = "no WAL receiver: cut off from its primary, or fed by archived WAL alone"
	case l.Receiver == ReceiverSilent:
		text = "the WAL receiver hears nothing"
	case l.Paused:
		text = "replay is paused"
	case l.Receive < l.Primary:
		text = fmt.Sprintf("%d bytes are not received yet", l.Primary-l.Receive)
	case l.Bytes > 0:
		text = fmt.Sprintf("%d bytes are received and not replayed yet", l.Bytes)
	default:
		text = "up to date"
	}
	if !l.Known {
		text += "; how far it is behind is not known"
	}
	return text
}
