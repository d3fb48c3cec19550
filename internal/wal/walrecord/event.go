package walrecord

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"lifeboat/internal/pg"
)

// The kinds of XLOG and tablespace record that carry facts (catalog/pg_control.h,
// commands/tablespace.h).
const (
	infoMask = 0xF0

	xlogCheckpointShutdown = 0x00
	xlogCheckpointOnline   = 0x10
	xlogSwitch             = 0x40
	xlogBackupEnd          = 0x50
	xlogParameterChange    = 0x60
	xlogRestorePoint       = 0x70
	xlogEndOfRecovery      = 0x90

	tablespaceCreate = 0x00
)

// Event is what a record tells a plan. At most one of the pointers is set; none for
// the many records that tell nothing. A position in an event is the start of its
// record, which is what recovery_target_lsn is compared with.
type Event struct {
	LSN pg.LSN
	End pg.LSN

	Transaction     *Transaction
	RestorePoint    *RestorePoint
	Checkpoint      *Checkpoint
	EndOfRecovery   *EndOfRecovery
	BackupEnd       *BackupEnd
	Tablespace      *TablespaceCreation
	ParameterChange *ParameterChange
	Switch          bool // XLOG_SWITCH: the rest of the segment is empty
}

// Transaction is the end of a transaction: one of the records at which recovery looks
// for its time target (R19). Ends of subtransactions are not among them.
type Transaction struct {
	Time  pg.Timestamp `json:"time"`
	LSN   pg.LSN       `json:"lsn"`
	XID   uint32       `json:"xid"` // of the prepared transaction for COMMIT and ROLLBACK PREPARED
	Abort bool         `json:"abort,omitempty"`
	// XIDUnknown: the record ends a prepared transaction, and the part of it that was
	// looked at does not reach as far as the xid. Only [Join] gives such; a [Reader]
	// over both segments tells.
	XIDUnknown bool `json:"xidUnknown,omitempty"`
}

// RestorePoint is a pg_create_restore_point.
type RestorePoint struct {
	Name    string       `json:"name"`
	NameRaw []byte       `json:"nameRaw,omitempty"` // the bytes, if they are not UTF-8
	LSN     pg.LSN       `json:"lsn"`
	Time    pg.Timestamp `json:"time"`
}

// Checkpoint is a checkpoint record; Redo is where replay from it begins.
type Checkpoint struct {
	LSN          pg.LSN       `json:"lsn"`
	Redo         pg.LSN       `json:"redo"`
	Time         pg.Timestamp `json:"time"` // to the second
	NextXID      uint64       `json:"nextXid"`
	Timeline     pg.Timeline  `json:"timeline"`
	PrevTimeline pg.Timeline  `json:"prevTimeline,omitempty"` // if it began the timeline
	Shutdown     bool         `json:"shutdown,omitempty"`
}

// EndOfRecovery marks a promotion: from here on WAL is of Timeline.
type EndOfRecovery struct {
	LSN          pg.LSN       `json:"lsn"`
	Time         pg.Timestamp `json:"time"`
	Timeline     pg.Timeline  `json:"timeline"`
	PrevTimeline pg.Timeline  `json:"prevTimeline"`
}

// BackupEnd is the end of a base backup, which is consistent from here on.
type BackupEnd struct {
	LSN      pg.LSN `json:"lsn"`
	StartLSN pg.LSN `json:"startLsn"` // the redo position of its start
}

// TablespaceCreation is a CREATE TABLESPACE: replaying it creates Path (R1).
type TablespaceCreation struct {
	LSN     pg.LSN `json:"lsn"`
	OID     uint32 `json:"oid"`
	Path    string `json:"path"`
	PathRaw []byte `json:"pathRaw,omitempty"` // the bytes, if they are not UTF-8
}

// ParameterChange is a change of the settings that a standby must match (R4).
type ParameterChange struct {
	LSN                  pg.LSN `json:"lsn"`
	MaxConnections       int32  `json:"maxConnections"`
	MaxWorkerProcesses   int32  `json:"maxWorkerProcesses"`
	MaxWALSenders        int32  `json:"maxWalSenders"`
	MaxPreparedXacts     int32  `json:"maxPreparedXacts"`
	MaxLocksPerXact      int32  `json:"maxLocksPerXact"`
	WALLevel             string `json:"walLevel"`
	WALLogHints          bool   `json:"walLogHints,omitempty"`
	TrackCommitTimestamp bool   `json:"trackCommitTimestamp,omitempty"`
}

var errShortMain = errors.New("its main data is shorter than its kind needs")

// Decode tells what a record from a [Reader] means. It keeps nothing of rec.Main. It
// fails only for a record that has the kind but not the shape of one that it knows,
// which no supported version of PostgreSQL writes.
func Decode(rec *Record) (Event, error) {
	ev := Event{LSN: rec.LSN, End: rec.End}
	var err error
	switch rec.Rmgr {
	case RmgrXact:
		var tx Transaction
		var ok bool
		if tx, ok, err = decodeTransaction(rec); ok {
			ev.Transaction = &tx
		}
	case RmgrXLOG:
		err = decodeXLOG(rec, &ev)
	case RmgrTablespace:
		if rec.Info&infoMask == tablespaceCreate {
			ev.Tablespace, err = decodeTablespace(rec)
		}
	}
	if err != nil {
		return Event{LSN: rec.LSN, End: rec.End}, fmt.Errorf("decode %s record %02X at %s: %w", rec.Rmgr, rec.Info, rec.LSN, err)
	}
	return ev, nil
}

// decodeTransaction is false for a record that ends no transaction.
func decodeTransaction(rec *Record) (tx Transaction, ok bool, err error) {
	switch rec.Info & xactOpMask {
	case xactCommit, xactCommitPrepared:
	case xactAbort, xactAbortPrepared:
		tx.Abort = true
	default:
		return tx, false, nil
	}
	w := rec.walk
	if w == nil {
		w = newXactWalk(rec.Info, rec.Major)
		w.feed(rec.Main)
	}
	if !w.haveTime {
		return tx, false, errShortMain
	}
	tx.Time, tx.LSN, tx.XID = w.time, rec.LSN, rec.XID
	if op := rec.Info & xactOpMask; op == xactCommitPrepared || op == xactAbortPrepared {
		// The record itself belongs to no transaction, or to that of the command.
		tx.XID, tx.XIDUnknown = w.twoPhase, w.twoPhase == 0
	}
	return tx, true, nil
}

func decodeXLOG(rec *Record, ev *Event) error {
	m := rec.Main
	le := binary.LittleEndian
	short := func(n int) error {
		if len(m) < n {
			return errShortMain
		}
		return nil
	}
	switch kind := rec.Info & infoMask; kind {
	case xlogCheckpointShutdown, xlogCheckpointOnline:
		if err := short(72); err != nil { // up to CheckPoint.time
			return err
		}
		ev.Checkpoint = decodeCheckpoint(rec.LSN, m, kind == xlogCheckpointShutdown)
	case xlogSwitch:
		ev.Switch = true
	case xlogBackupEnd:
		if err := short(8); err != nil {
			return err
		}
		ev.BackupEnd = &BackupEnd{LSN: rec.LSN, StartLSN: pg.LSN(le.Uint64(m))}
	case xlogParameterChange:
		if err := short(26); err != nil { // xl_parameter_change
			return err
		}
		ev.ParameterChange = decodeParameterChange(rec.LSN, m)
	case xlogRestorePoint:
		if err := short(9); err != nil {
			return err
		}
		rp := &RestorePoint{LSN: rec.LSN, Time: pg.Timestamp(le.Uint64(m))}
		rp.Name, rp.NameRaw = text(m[8:min(len(m), 8+64)]) // MAXFNAMELEN
		ev.RestorePoint = rp
	case xlogEndOfRecovery:
		if err := short(16); err != nil {
			return err
		}
		ev.EndOfRecovery = &EndOfRecovery{
			LSN: rec.LSN, Time: pg.Timestamp(le.Uint64(m)),
			Timeline: pg.Timeline(le.Uint32(m[8:])), PrevTimeline: pg.Timeline(le.Uint32(m[12:])),
		}
	}
	return nil
}

// decodeCheckpoint takes the fields of struct CheckPoint that lie in the same places
// in all supported versions.
func decodeCheckpoint(lsn pg.LSN, m []byte, shutdown bool) *Checkpoint {
	le := binary.LittleEndian
	const unixToPostgres = 946684800 // pg_time_t counts seconds from 1970
	c := &Checkpoint{
		LSN:          lsn,
		Redo:         pg.LSN(le.Uint64(m)),
		Timeline:     pg.Timeline(le.Uint32(m[8:])),
		PrevTimeline: pg.Timeline(le.Uint32(m[12:])),
		NextXID:      le.Uint64(m[24:]),
		Time:         pg.Timestamp((int64(le.Uint64(m[64:])) - unixToPostgres) * 1_000_000),
		Shutdown:     shutdown,
	}
	if c.PrevTimeline == c.Timeline {
		c.PrevTimeline = 0
	}
	return c
}

func decodeParameterChange(lsn pg.LSN, m []byte) *ParameterChange {
	num := func(at int) int32 { return int32(binary.LittleEndian.Uint32(m[at:])) }
	return &ParameterChange{
		LSN: lsn, MaxConnections: num(0), MaxWorkerProcesses: num(4), MaxWALSenders: num(8),
		MaxPreparedXacts: num(12), MaxLocksPerXact: num(16), WALLevel: pg.WALLevel(num(20)).String(),
		WALLogHints: m[24] != 0, TrackCommitTimestamp: m[25] != 0,
	}
}

// maxPath is MAXPGPATH: no path of PostgreSQL is longer.
const maxPath = 1024

func decodeTablespace(rec *Record) (*TablespaceCreation, error) {
	m := rec.Main
	if len(m) < 5 {
		return nil, errShortMain
	}
	ts := &TablespaceCreation{LSN: rec.LSN, OID: binary.LittleEndian.Uint32(m)}
	path, _, ended := bytes.Cut(m[4:], []byte{0})
	if !ended || len(path) > maxPath {
		return nil, errors.New("the path of its tablespace does not end")
	}
	ts.Path, ts.PathRaw = text(path)
	return ts, nil
}

// text makes a string of bytes that end at a NUL or with the slice. Names are in the
// encoding of the database they came from; what is not UTF-8 is given raw as well.
func text(b []byte) (string, []byte) {
	b, _, _ = bytes.Cut(b, []byte{0})
	if utf8.Valid(b) {
		return string(b), nil
	}
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD"))), bytes.Clone(b)
}
