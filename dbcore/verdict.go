package dbcore

// Phase is the point of a request at which an error came. The same error means different things at different points:
// a lost connection before COMMIT proves a rollback, after it nothing.
type Phase int

// The phases.
const (
	// PhaseConnect is the making, or the taking out of the pool, of a connection: nothing was sent that changes data.
	PhaseConnect Phase = iota + 1
	// PhaseTx is inside a transaction, from BEGIN until COMMIT is sent.
	PhaseTx
	// PhaseReadOnlyTx is PhaseTx of a transaction that was declared READ ONLY.
	PhaseReadOnlyTx
	// PhaseAutocommit is a statement outside a transaction, which commits by itself.
	PhaseAutocommit
	// PhaseCommit is COMMIT, from its first byte on.
	PhaseCommit
)

// String returns connect, transaction, read-only transaction, autocommit or commit.
func (p Phase) String() string {
	switch p {
	case PhaseConnect:
		return "connect"
	case PhaseTx:
		return "transaction"
	case PhaseReadOnlyTx:
		return "read-only transaction"
	case PhaseAutocommit:
		return "autocommit"
	case PhaseCommit:
		return "commit"
	}
	return "unknown phase"
}

// Action is what may be done about an error.
type Action int

// The actions. The zero value is Never, so what nobody has thought of is not repeated.
const (
	// Never: repeating cannot help, or is the caller's decision.
	Never Action = iota
	// Retry: what failed has certainly left nothing behind. Repeat the whole attempt: in a transaction that is all of it
	// from BEGIN on, never a single statement.
	Retry
	// RetryIfIdempotent: the server may have run it. Repeat only what is declared idempotent.
	RetryIfIdempotent
	// Ambiguous: COMMIT was sent and its outcome is unknown. Find out; never repeat blindly.
	Ambiguous
)

// String returns never, retry, retry if idempotent or ambiguous.
func (a Action) String() string {
	switch a {
	case Never:
		return "never"
	case Retry:
		return "retry"
	case RetryIfIdempotent:
		return "retry if idempotent"
	case Ambiguous:
		return "ambiguous"
	}
	return "unknown action"
}

// Class is why something may be repeated, which decides how long to wait before.
type Class int

// The classes.
const (
	// ClassNone: there is nothing to wait for.
	ClassNone Class = iota
	// ClassTransient: a connection or server went away. RetryConfig.TransientBase.
	ClassTransient
	// ClassThrottle: the server has too much to do; haste makes it worse. RetryConfig.ThrottleBase.
	ClassThrottle
	// ClassSerialization: transactions got in each other's way; the next attempt most likely passes.
	// RetryConfig.SerializationBase.
	ClassSerialization
)

// String returns none, transient, throttle or serialization.
func (c Class) String() string {
	switch c {
	case ClassNone:
		return "none"
	case ClassTransient:
		return "transient"
	case ClassThrottle:
		return "throttle"
	case ClassSerialization:
		return "serialization"
	}
	return "unknown class"
}

// Health is what an error says about the server, which is what a circuit breaker counts.
type Health int

// What an error says.
const (
	// HealthUnknown: nothing, for instance because the caller gave up. Not counted.
	HealthUnknown Health = iota
	// HealthAlive: the server answered, whatever it answered. Counted as a success.
	HealthAlive
	// HealthFailure: the server could not be reached, or could not work. Counted as a failure.
	HealthFailure
)

// String returns unknown, alive or failure.
func (h Health) String() string {
	switch h {
	case HealthUnknown:
		return "unknown"
	case HealthAlive:
		return "alive"
	case HealthFailure:
		return "failure"
	}
	return "unknown health"
}

// OptIn is a permission of RetryConfig without which a verdict's action is not taken.
type OptIn int

// The permissions.
const (
	// OptInNone: none is needed.
	OptInNone OptIn = iota
	// OptInLocks is RetryConfig.Locks: 55P03 lock_not_available and 55006 object_in_use.
	OptInLocks
	// OptInUnique is RetryConfig.UniqueViolations: 23505 and 23P01, which under SERIALIZABLE may be a serialization
	// failure in disguise (section 13.5, "Serialization Failure Handling").
	OptInUnique
	// OptInCanceled is RetryConfig.Canceled: 57014, a statement_timeout or somebody's pg_cancel_backend.
	OptInCanceled
)

// String returns none, locks, unique violations or canceled.
func (o OptIn) String() string {
	switch o {
	case OptInNone:
		return "none"
	case OptInLocks:
		return "locks"
	case OptInUnique:
		return "unique violations"
	case OptInCanceled:
		return "canceled"
	}
	return "unknown permission"
}

// Verdict is what an error means. The zero value is: never repeat, and it says nothing about the server.
type Verdict struct {
	// Action is what may be done.
	Action Action
	// Class decides the wait before it.
	Class Class
	// Health is what a circuit breaker counts.
	Health Health
	// OptIn is the permission that Action needs.
	OptIn OptIn
	// Once says that a second failure of the same kind is final.
	Once bool
	// SuspectPool says that the other idle connections of the pool may be dead, too.
	SuspectPool bool
	// SuspectRole says that the server is not the primary, or not any more: ask before the next write.
	SuspectRole bool
	// Alert says that a person must act: wrong credentials, a full disk, damaged data.
	Alert bool
	// Reason is the row of the table that decided, for logs.
	Reason string
}
