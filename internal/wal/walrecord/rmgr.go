package walrecord

import "fmt"

// Rmgr is a resource manager: the part of PostgreSQL that wrote a record and can
// replay it (access/rmgrlist.h; the numbers are the same from 15 to 18).
type Rmgr uint8

// The resource managers whose records carry facts.
const (
	RmgrXLOG       Rmgr = 0
	RmgrXact       Rmgr = 1
	RmgrTablespace Rmgr = 5
)

// minCustomRmgr is RM_MIN_CUSTOM_ID: extensions register from here on.
const minCustomRmgr = 128

var rmgrNames = [...]string{
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap",
	"Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN",
	"CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
}

// Valid reports whether a record may have this number (RmgrIdIsValid).
func (r Rmgr) Valid() bool { return int(r) < len(rmgrNames) || r >= minCustomRmgr }

// String is the name that pg_waldump prints.
func (r Rmgr) String() string {
	switch {
	case int(r) < len(rmgrNames):
		return rmgrNames[r]
	case r >= minCustomRmgr:
		return fmt.Sprintf("custom%03d", uint8(r))
	}
	return fmt.Sprintf("UNKNOWN (%d)", uint8(r))
}

// bearsFacts reports whether records of this kind tell a plan something.
func bearsFacts(r Rmgr, info uint8) bool {
	switch r {
	case RmgrXact:
		switch info & xactOpMask {
		case xactCommit, xactAbort, xactCommitPrepared, xactAbortPrepared:
			return true
		}
	case RmgrXLOG:
		switch info & infoMask {
		case xlogCheckpointShutdown, xlogCheckpointOnline, xlogSwitch, xlogBackupEnd,
			xlogParameterChange, xlogRestorePoint, xlogEndOfRecovery:
			return true
		}
	case RmgrTablespace:
		return info&infoMask == tablespaceCreate
	}
	return false
}
