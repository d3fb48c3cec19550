package health

import "time"

// Limits are from where on something is a finding. The zero value is no set of limits: begin with DefaultLimits.
type Limits struct {
	// Queue is how many segments may wait for archiving: a burst makes a few.
	Queue int64
	// SlotRetained is how many bytes of WAL a slot that nobody reads may keep.
	SlotRetained int64
	// StandbyBehind is how many bytes a standby may lag.
	StandbyBehind int64
	// FreezeMultiple is how many times autovacuum_freeze_max_age ids may age before vacuum counts as beaten.
	FreezeMultiple int64
	// AgeWarning and AgeCritical are ages in transaction ids, whatever autovacuum's settings are. At 2^31 less 3 million
	// the server refuses to write.
	AgeWarning, AgeCritical int64
	// Transaction is how long a transaction may be open, TransactionCritical from when on it is critical.
	Transaction, TransactionCritical time.Duration
	// Prepared and PreparedCritical are those of a prepared transaction.
	Prepared, PreparedCritical time.Duration
	// DiskShare is the share of a file system that must be free, unless DiskBytes are; DiskShareCritical and
	// DiskBytesCritical are those below which it is critical.
	DiskShare, DiskShareCritical float64
	DiskBytes, DiskBytesCritical int64
	// BackupAge and BackupAgeCritical are how old the newest backup may be.
	BackupAge, BackupAgeCritical time.Duration
	// VerifiedAge is how long ago the newest verification that passed may be, or the oldest backup without one.
	VerifiedAge time.Duration
}

// DefaultLimits are what the health check uses. They suit the default schedules: a backup every 6 hours, a verification
// every day.
func DefaultLimits() Limits {
	return Limits{
		Queue:        32,
		SlotRetained: 1 << 30, StandbyBehind: 1 << 30,
		FreezeMultiple: 2, AgeWarning: 1_000_000_000, AgeCritical: 1_600_000_000,
		Transaction: time.Hour, TransactionCritical: 12 * time.Hour,
		Prepared: 10 * time.Minute, PreparedCritical: 12 * time.Hour,
		DiskShare: 0.10, DiskShareCritical: 0.03, DiskBytes: 50 << 30, DiskBytesCritical: 5 << 30,
		BackupAge: 36 * time.Hour, BackupAgeCritical: 8 * 24 * time.Hour,
		VerifiedAge: 72 * time.Hour,
	}
}
