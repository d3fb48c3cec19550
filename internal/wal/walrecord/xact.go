package walrecord

import (
	"encoding/binary"

	"lifeboat/internal/pg"
)

// The kinds of transaction record and the flags in them (access/xact.h).
const (
	xactOpMask         = 0x70
	xactCommit         = 0x00
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40
	xactHasInfo        = 0x80

	xinfoHasDBInfo       = 1 << 0
	xinfoHasSubxacts     = 1 << 1
	xinfoHasRelfiles     = 1 << 2
	xinfoHasInvals       = 1 << 3
	xinfoHasTwoPhase     = 1 << 4
	xinfoHasDroppedStats = 1 << 8
)

// xactWalk goes through the main data of a commit or abort record as it comes, and
// takes out the time, which stands first, and the prepared transaction's xid, which
// stands behind lists of any length. It is ParseCommitRecord and ParseAbortRecord of
// access/rmgrdesc/xactdesc.c in one; abort records have no invalidations.
type xactWalk struct {
	hasInfo  bool
	statSize uint64 // sizeof(xl_xact_stats_item)

	stage int
	skip  uint64 // bytes to pass over before the next field
	field [8]byte
	n     int // bytes of the field that are there

	xinfo    uint32
	haveTime bool
	time     pg.Timestamp
	twoPhase uint32
	done     bool // nothing more is wanted: haveTime, and twoPhase if there is one
}

func newXactWalk(info uint8, major int) *xactWalk {
	w := &xactWalk{hasInfo: info&xactHasInfo != 0, statSize: 12}
	if major >= 18 {
		w.statSize = 16 // the object id grew to 64 bits
	}
	return w
}

// The fields that are read, in the order in which they stand.
const (
	stageTime = iota
	stageXinfo
	stageSubxacts
	stageRelfiles
	stageStats
	stageInvals
	stageTwoPhase
	stageDone
)

func (w *xactWalk) feed(p []byte) {
	for len(p) > 0 && !w.done {
		if w.skip > 0 {
			n := min(w.skip, uint64(len(p)))
			w.skip -= n
			p = p[n:]
			continue
		}
		need := 4
		if w.stage == stageTime {
			need = 8
		}
		n := copy(w.field[w.n:need], p)
		w.n += n
		p = p[n:]
		if w.n == need {
			w.n = 0
			w.take()
		}
	}
}

// take uses the complete field and moves on to the next one that is present.
func (w *xactWalk) take() {
	v := binary.LittleEndian.Uint32(w.field[:])
	switch w.stage {
	case stageTime:
		w.time, w.haveTime = pg.Timestamp(binary.LittleEndian.Uint64(w.field[:])), true
		w.done = !w.hasInfo
	case stageXinfo:
		w.xinfo = v
		if v&xinfoHasDBInfo != 0 {
			w.skip = 8
		}
	case stageSubxacts:
		w.skip = 4 * uint64(v)
	case stageRelfiles:
		w.skip = 12 * uint64(v)
	case stageStats:
		w.skip = w.statSize * uint64(v)
	case stageInvals:
		w.skip = 16 * uint64(v) // SharedInvalidationMessage
	case stageTwoPhase:
		w.twoPhase, w.done = v, true
	}
	w.stage = w.following()
	if w.stage == stageDone {
		w.done = true
	}
}

func (w *xactWalk) following() int {
	if w.stage == stageTime {
		return stageXinfo
	}
	flags := [...]uint32{
		stageSubxacts: xinfoHasSubxacts, stageRelfiles: xinfoHasRelfiles, stageStats: xinfoHasDroppedStats,
		stageInvals: xinfoHasInvals, stageTwoPhase: xinfoHasTwoPhase,
	}
	if w.xinfo&xinfoHasTwoPhase == 0 {
		return stageDone // nothing else is wanted
	}
	for s := w.stage + 1; s < len(flags); s++ {
		if w.xinfo&flags[s] != 0 {
			return s
		}
	}
	return stageDone
}
