package recovery

import "lifeboat/internal/pg"

// fitWALSize raises min_wal_size and max_wal_size, in megabytes, where PostgreSQL's defaults are too small for a cluster's
// segments: a server refuses to start when either is below two segments (ReadControlFile, xlog.c). The source's own
// values are initdb's choice and lie in a configuration that is not used.
func fitWALSize(settings map[string]int32, size pg.SegmentSize) {
	const defaultMin, defaultMax = 80, 1024
	least := int32(2 * (int64(size) >> 20))
	if least > defaultMin {
		settings["min_wal_size"] = least
	}
	if least > defaultMax {
		settings["max_wal_size"] = least
	}
}
