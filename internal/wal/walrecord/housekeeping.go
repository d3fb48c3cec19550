package walrecord

// The records that a server writes by itself and that change nothing (catalog/pg_control.h, storage/standbydefs.h).
const (
	xlogNoop uint8 = 0x20

	rmgrStandby      Rmgr  = 8
	xlogRunningXacts uint8 = 0x10
)

// Housekeeping reports whether a record of a [Reader] is one that nobody would miss: a
// checkpoint, a switch of segments, a list of running transactions. A server that is shut
// down in order ends its WAL with such, in a segment that it does not archive.
func Housekeeping(rec *Record) bool {
	switch rec.Rmgr {
	case RmgrXLOG:
		switch rec.Info & infoMask {
		case xlogCheckpointShutdown, xlogCheckpointOnline, xlogNoop, xlogSwitch:
			return true
		}
	case rmgrStandby:
		return rec.Info&infoMask == xlogRunningXacts
	}
	return false
}
