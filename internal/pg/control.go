package pg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// ControlFileSize is the length of global/pg_control; only the first 300 bytes or so
// are used.
const ControlFileSize = 8192

// ErrControlCRC says that the bytes of a control file do not match their checksum.
// The server rewrites the file in place, so a copy of a running cluster may be torn:
// read it again until it holds (R6). If it never does, the file is damaged.
var ErrControlCRC = errors.New("checksum of pg_control does not match: the file was read while it was written, or is damaged")

// ControlState is the cluster's state as pg_control has it (DBState,
// catalog/pg_control.h).
type ControlState uint32

// The states, in PostgreSQL's order.
const (
	StateStartup ControlState = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

var controlStates = [...]string{
	"starting up", "shut down", "shut down in recovery", "shutting down",
	"in crash recovery", "in archive recovery", "in production",
}

// String is the state in the words of pg_controldata.
func (s ControlState) String() string {
	if int(s) < len(controlStates) {
		return controlStates[s]
	}
	return fmt.Sprintf("unknown state %d", uint32(s))
}

// Stopped reports whether the server was shut down in order, so that no process can
// hold the data directory unless one was started since.
func (s ControlState) Stopped() bool { return s == StateShutDown || s == StateShutDownInRecovery }

// WALLevel is the setting wal_level (access/xlog.h).
type WALLevel int32

// The levels.
const (
	WALLevelMinimal WALLevel = iota
	WALLevelReplica
	WALLevelLogical
)

// String is the setting's value.
func (l WALLevel) String() string {
	switch l {
	case WALLevelMinimal:
		return "minimal"
	case WALLevelReplica:
		return "replica"
	case WALLevelLogical:
		return "logical"
	}
	return fmt.Sprintf("unknown wal_level %d", int32(l))
}

// ControlData is what global/pg_control says. LSNs are 0 where the file has none.
type ControlData struct {
	SystemID       SystemID
	ControlVersion uint32 // 1300 of PostgreSQL 15 and 16, 1700, 1800
	CatalogVersion uint32
	// Major is the PostgreSQL version that the catalogue version stands for; 0 if it is
	// of a development or patched version. The file PG_VERSION has the last word.
	Major    int
	State    ControlState
	Modified time.Time // to the second

	Checkpoint ControlCheckpoint

	// While it recovers, a server must reach MinRecoveryPoint before it is consistent,
	// and BackupEndPoint or a backup's end record, where those are set.
	MinRecoveryPoint    LSN
	MinRecoveryTimeline Timeline
	BackupStartPoint    LSN
	BackupEndPoint      LSN
	BackupEndRequired   bool

	// Settings that a standby or a restored server must have at least as high (R4).
	WALLevel             WALLevel
	WALLogHints          bool
	MaxConnections       int
	MaxWorkerProcesses   int
	MaxWALSenders        int
	MaxPreparedXacts     int
	MaxLocksPerXact      int
	TrackCommitTimestamp bool

	BlockSize           uint32
	RelationSegBlocks   uint32 // blocks in one file of a large relation
	WALBlockSize        uint32
	WALSegmentSize      SegmentSize
	DataChecksumVersion uint32 // 0: pages have no checksums
}

// ControlCheckpoint is the newest checkpoint, from which crash recovery would begin.
type ControlCheckpoint struct {
	LSN          LSN // of the checkpoint record
	Redo         LSN // where replay begins
	Timeline     Timeline
	PrevTimeline Timeline // differs from Timeline if the checkpoint began a timeline
	NextXID      uint64   // with the epoch in the upper half
	OldestXID    uint32
	Time         time.Time // to the second
}

// oldestCatalog is the catalogue version of PostgreSQL 15.0.
const oldestCatalog = 202209061

// catalogVersions maps the released catalogue versions (catalog/catversion.h).
var catalogVersions = map[uint32]int{oldestCatalog: 15, 202307071: 16, 202406281: 17, 202506291: 18}

// The formats (PG_CONTROL_VERSION), and where the checksum lies in each, which covers
// all before it. 1300 is of PostgreSQL 13 to 16; 1700 differs from it in nothing that
// is read here; 1800 put one byte, default_char_signedness, before the nonce.
var controlCRCAt = map[uint32]int{1300: 288, 1700: 288, 1800: 292}

const controlMinLen = 292 + 4

// ParseControlFile reads the contents of global/pg_control of PostgreSQL 15 to 18
// (catalog/pg_control.h). It wraps [ErrControlCRC] if the checksum does not hold, and
// returns an [*UnsupportedVersionError] only if the catalogue version tells that the
// file is of another major version.
func ParseControlFile(b []byte) (*ControlData, error) {
	if len(b) < controlMinLen {
		return nil, fmt.Errorf("parse pg_control: %d bytes are too few: %w", len(b), ErrControlCRC)
	}
	le := binary.LittleEndian
	version := le.Uint32(b[8:])
	crcAt, ok := controlCRCAt[version]
	if !ok {
		return nil, unknownControlVersion(b, version)
	}
	if crc32.Checksum(b[:crcAt], castagnoli) != le.Uint32(b[crcAt:]) {
		return nil, fmt.Errorf("parse pg_control: %w", ErrControlCRC)
	}
	c := decodeControl(b)
	if c.CatalogVersion < oldestCatalog {
		return nil, fmt.Errorf("parse pg_control of catalogue version %d: %w", c.CatalogVersion,
			&UnsupportedVersionError{Major: MinMajor - 1})
	}
	if err := c.WALSegmentSize.Validate(); err != nil {
		return nil, fmt.Errorf("parse pg_control: %w", err)
	}
	return c, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// unknownControlVersion tells a foreign format from a torn or empty file, as far as
// one can without knowing where its checksum lies.
func unknownControlVersion(b []byte, version uint32) error {
	if PageIsZero(b) {
		return fmt.Errorf("parse pg_control: it is all zeroes: %w", ErrControlCRC)
	}
	if version&0xFFFF == 0 {
		return fmt.Errorf("parse pg_control: format %d: the file is of a machine with the other byte order", version)
	}
	return fmt.Errorf("parse pg_control: unknown format %d: the cluster is of an unsupported version of PostgreSQL "+
		"(%d to %d are supported), or the file is damaged", version, MinMajor, MaxMajor)
}

// decodeControl takes the fields from their places in struct ControlFileData. Both
// formats agree up to float8ByVal, behind which only the checksum version is wanted.
func decodeControl(b []byte) *ControlData {
	le := binary.LittleEndian
	lsn := func(at int) LSN { return LSN(le.Uint64(b[at:])) }
	num := func(at int) int { return int(int32(le.Uint32(b[at:]))) }
	sec := func(at int) time.Time { return time.Unix(int64(le.Uint64(b[at:])), 0).UTC() }
	c := &ControlData{
		SystemID:       SystemID(le.Uint64(b)),
		ControlVersion: le.Uint32(b[8:]),
		CatalogVersion: le.Uint32(b[12:]),
		State:          ControlState(le.Uint32(b[16:])),
		Modified:       sec(24),
		Checkpoint: ControlCheckpoint{
			LSN:          lsn(32),
			Redo:         lsn(40),
			Timeline:     Timeline(le.Uint32(b[48:])),
			PrevTimeline: Timeline(le.Uint32(b[52:])),
			NextXID:      le.Uint64(b[64:]),
			OldestXID:    le.Uint32(b[84:]),
			Time:         sec(104),
		},
		MinRecoveryPoint:     lsn(136),
		MinRecoveryTimeline:  Timeline(le.Uint32(b[144:])),
		BackupStartPoint:     lsn(152),
		BackupEndPoint:       lsn(160),
		BackupEndRequired:    b[168] != 0,
		WALLevel:             WALLevel(le.Uint32(b[172:])),
		WALLogHints:          b[176] != 0,
		MaxConnections:       num(180),
		MaxWorkerProcesses:   num(184),
		MaxWALSenders:        num(188),
		MaxPreparedXacts:     num(192),
		MaxLocksPerXact:      num(196),
		TrackCommitTimestamp: b[200] != 0,
		BlockSize:            le.Uint32(b[216:]),
		RelationSegBlocks:    le.Uint32(b[220:]),
		WALBlockSize:         le.Uint32(b[224:]),
		WALSegmentSize:       SegmentSize(le.Uint32(b[228:])),
		DataChecksumVersion:  le.Uint32(b[252:]),
	}
	c.Major = catalogVersions[c.CatalogVersion]
	return c
}
