package dbcore

// Breakers are the circuit breakers of the operations that DB.Op has named so far, sorted by name; "" is that of the DB's
// own methods. Names beyond the first 512 share one, "(other)", which is among them then.
func (db *DB) Breakers() []*Breaker { return db.breakers.all() }

// ForceBreakers is Breaker.Force for the breakers of all operations, those that are named later included. It can be called
// at any time: to take all load off a server that is being repaired (ModeForceOpen), or to watch before one enforces
// (ModeMonitor). Requests that are under way go on.
//
// Errors: ErrInvalidConfig if mode is none of the modes; nothing is changed then.
func (db *DB) ForceBreakers(mode BreakerMode) error { return db.breakers.force(mode) }
