package dbcore

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// claim is what is known of a node: its last answer, and whether it still answers.
type claim struct {
	node      string
	role      Role   // of the last answer
	reachable bool   // the last probe was answered
	suspect   bool   // a write was refused since (25006): the answer counts no more
	readOnly  bool   // default_transaction_read_only
	systemID  string // pg_control_system
	server    string // tells a server that is listed twice
	timeline  uint32
	receiving bool // its WAL receiver streams
	lsn       LSN  // replayed by a standby, inserted by a primary
}

// foreign says that a node belongs to another cluster.
func (c *claim) foreign(systemID string) bool {
	return systemID != "" && c.systemID != "" && c.systemID != systemID
}

// election is what follows from all claims.
type election struct {
	// primary is the index of the node that gets the writes; -1 if none does, and then err says why.
	primary int
	err     error
	// timeline is the highest that was ever seen. A primary on a lower one has been replaced.
	timeline uint32
	// fenced has for each node why it must get nothing; "" lets it.
	fenced []string
}

// elect decides who is the primary. timeline is that of the election before. It is a pure function.
//
// Each promotion begins a timeline with a higher number (section 26.3.6, "Timelines"), so of two servers that both say
// that they are the primary, the one on the lower timeline has been replaced and does not know it. On one timeline nobody can
// tell which has the truth. Whoever has said so and does not answer any more still counts there: silence proves nothing.
func elect(claims []claim, systemID string, timeline uint32) election {
	e := election{primary: -1, timeline: timeline, fenced: make([]string, len(claims))}
	for i := range claims {
		if !claims[i].foreign(systemID) {
			e.timeline = max(e.timeline, claims[i].timeline) // a standby's, too: it has seen the promotion
		}
	}
	var rivals []int
	for i := range claims {
		switch c := &claims[i]; {
		case c.foreign(systemID):
			e.fenced[i] = "it belongs to another cluster (system identifier " + c.systemID + ", not " + systemID + ")"
		case c.suspect:
			e.fenced[i] = "it has refused a write as read-only, and its role was not checked since"
		case c.role != RolePrimary:
		case c.timeline < e.timeline:
			e.fenced[i] = fmt.Sprintf("it is a former primary: its timeline is %d, and there is timeline %d", c.timeline, e.timeline)
		default:
			rivals = addRival(claims, rivals, i)
		}
	}
	e.decide(claims, rivals)
	return e
}

// addRival adds i, unless it is a server that is in the list already, under another name of its own.
func addRival(claims []claim, rivals []int, i int) []int {
	for at, r := range rivals {
		if claims[r].server == claims[i].server {
			if !claims[r].reachable {
				rivals[at] = i // a name that has moved on, or a way that is cut
			}
			return rivals
		}
	}
	return append(rivals, i)
}

// decide chooses from those that say that they are the primary and are not known to be wrong.
func (e *election) decide(claims []claim, rivals []int) {
	if len(rivals) > 1 {
		split := &splitBrainError{timeline: e.timeline}
		e.err = split
		for _, i := range rivals {
			split.nodes = append(split.nodes, claims[i].node)
			e.fenced[i] = "more than one server says that it is the primary"
		}
		return
	}
	if len(rivals) == 1 {
		switch c := &claims[rivals[0]]; {
		case !c.reachable:
			// Perhaps it only is slow, and there is nobody else: what is under way may end.
		case c.readOnly:
			e.err = fmt.Errorf("%w: default_transaction_read_only is on at %s: switch it off there when the reason is gone", ErrNoPrimary, c.node)
			return
		default:
			e.primary = rivals[0]
			return
		}
	}
	e.err = fmt.Errorf("%w: %s: promote a standby (pg_promote), or start the primary", ErrNoPrimary, describe(claims, e.fenced))
}

// describe says for each node why it is not the primary.
func describe(claims []claim, fenced []string) string {
	texts := make([]string, len(claims))
	for i, c := range claims {
		switch {
		case fenced[i] != "":
			texts[i] = c.node + ": " + fenced[i]
		case !c.reachable:
			texts[i] = c.node + ": does not answer"
		default:
			texts[i] = c.node + ": " + c.role.String()
		}
	}
	return strings.Join(texts, "; ")
}

// splitBrainError is ErrSplitBrain with the nodes.
type splitBrainError struct {
	nodes    []string
	timeline uint32
}

func (e *splitBrainError) Error() string {
	return fmt.Sprintf("%v: %s are all on timeline %d, so nothing is written to any: shut down all but one, rebuild the others from it "+
		"(pg_rewind or pg_basebackup), and take one that is gone for good out of ClusterConfig.Nodes", ErrSplitBrain, strings.Join(e.nodes, " and "), e.timeline)
}

// Is makes it ErrNoPrimary as well: either way nobody can be written to.
func (e *splitBrainError) Is(target error) bool {
	return target == ErrSplitBrain || target == ErrNoPrimary
}

// mark says that the primary had written its log up to lsn at some time not before at, by this program's clock.
type mark struct {
	at  time.Time
	lsn LSN
}

// maxMarks bounds the memory of the primary's progress: at two a second, eight minutes and a half.
const maxMarks = 1024

// marks are the primary's progress in order of time.
type marks []mark

// add appends a mark. The time of the last is moved if nothing was written since.
func (m marks) add(at time.Time, lsn LSN) marks {
	if n := len(m); n > 0 && m[n-1].lsn >= lsn {
		if m[n-1].lsn == lsn {
			m[n-1].at = at
		}
		return m
	}
	if len(m) == maxMarks {
		m = append(m[:0], m[1:]...)
	}
	return append(m, mark{at, lsn})
}

// lag is how old, at most, the state is that a standby shows which has replayed up to lsn: it has all that the primary had
// at the last mark up to there. It never is 0, as that mark has an age: a standby that was cut from its primary falls
// behind with the primary's next write, and if the primary cannot be seen either, with the time. ok is false if no mark is
// old enough.
//
// The difference between what a standby has received and replayed, which is 0 on one that receives nothing, has no part
// in it, nor have the clocks of the servers.
func (m marks) lag(now time.Time, lsn LSN) (lag time.Duration, ok bool) {
	for _, mark := range slices.Backward(m) {
		if mark.lsn <= lsn {
			return now.Sub(mark.at), true
		}
	}
	return 0, false
}

// last is the primary's last known position; 0 if none is.
func (m marks) last() LSN {
	if len(m) == 0 {
		return 0
	}
	return m[len(m)-1].lsn
}

// readRule is what a read demands of a replica.
type readRule struct {
	maxLag time.Duration // 0: any
	after  LSN           // 0: any
	wait   time.Duration // for after
}

// candidates are the nodes that a read may go to, best class only; an empty list means the primary, or nobody if there is
// none. It is a pure function.
//
// A standby on another timeline than the highest known has a history of its own perhaps, and its positions cannot be
// compared. One that receives nothing gets reads only if a bound proves that it is good enough, or if there is nobody else.
func candidates(claims []claim, e election, systemID string, m marks, now time.Time, rule readRule) []int {
	var good, cut []int
	for i := range claims {
		c := &claims[i]
		if c.role != RoleStandby || !c.reachable || e.fenced[i] != "" || c.foreign(systemID) || c.timeline != e.timeline {
			continue
		}
		if rule.after > 0 && c.lsn < rule.after {
			continue
		}
		if rule.maxLag > 0 {
			if lag, ok := m.lag(now, c.lsn); !ok || lag > rule.maxLag {
				continue
			}
		}
		if c.receiving || rule.maxLag > 0 || rule.after > 0 {
			good = append(good, i)
		} else {
			cut = append(cut, i)
		}
	}
	if len(good) == 0 && e.primary < 0 {
		return cut
	}
	return good
}

// Sizes of the headers that begin a page of the log, and a segment (src/include/access/xlog_internal.h).
const (
	walPage         = 8192
	walShortHeader  = 24
	walLongHeader   = 40
	walSmallestFile = 1 << 20
)

// recordEnd turns a primary's insert position, which is where the next record will begin, into the end of the last one, which
// is what a standby reports when it has replayed that. They differ if the last record filled its page: the next begins
// after the header of the following page. No record ends within such a header, so a position that was none of the kind
// is not passed over by this either.
func recordEnd(insert LSN) LSN {
	switch offset := insert % walPage; {
	case offset == walShortHeader:
		return insert - walShortHeader
	case offset == walLongHeader && insert%walSmallestFile == walLongHeader:
		return insert - walLongHeader
	}
	return insert
}
