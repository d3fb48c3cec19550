package dbcore

// Rules that several states share.
var (
	ruleShutdown = rule{Retry, Retry, RetryIfIdempotent, Ambiguous, Verdict{
		Class: ClassTransient, Health: HealthFailure, SuspectPool: true,
		Reason: "the server ended the session",
	}}
	ruleNoMore = rule{Retry, Retry, Retry, Ambiguous, Verdict{Class: ClassThrottle, Health: HealthFailure, Reason: "the server takes no connections now"}}
	rulePooler = rule{Retry, Retry, Retry, Ambiguous, Verdict{Class: ClassThrottle, Health: HealthFailure, Reason: "the pooler has no connection to the server"}}
	ruleOpen   = rule{Never, RetryIfIdempotent, RetryIfIdempotent, Ambiguous, Verdict{
		Class: ClassTransient, Health: HealthFailure,
		Reason: "the server does not know the outcome",
	}}
	ruleSerialization = rule{Never, Retry, Retry, Retry, Verdict{Class: ClassSerialization, Health: HealthAlive, Reason: "transactions got in each other's way"}}
	ruleLocks         = rule{Never, Retry, Retry, Retry, Verdict{Class: ClassTransient, Health: HealthAlive, OptIn: OptInLocks, Reason: "a lock was not to be had"}}
	ruleReadOnly      = rule{Never, Retry, Retry, Retry, Verdict{Class: ClassTransient, SuspectRole: true, Reason: "the server is not a primary"}}
	ruleStalePlan     = rule{Never, Retry, Retry, Never, Verdict{
		Class: ClassTransient, Health: HealthUnknown, Once: true,
		Reason: "a prepared statement is out of date, or a pooler has mixed sessions",
	}}
	ruleMemory  = rule{Never, Retry, Retry, Retry, Verdict{Class: ClassThrottle, Health: HealthFailure, Reason: "the server is out of memory"}}
	ruleBroken  = rule{Verdict: Verdict{Health: HealthFailure, Alert: true, Reason: "the server lacks a resource or is damaged"}}
	ruleIdle    = rule{Retry, Never, Retry, Ambiguous, Verdict{Class: ClassTransient, Reason: "the session was idle too long"}}
	ruleSlowApp = rule{Never, Never, Never, Ambiguous, Verdict{Reason: "the application was too slow in its transaction"}}
	ruleCancel  = rule{Never, Never, RetryIfIdempotent, Never, Verdict{Class: ClassTransient, OptIn: OptInCanceled, Reason: "the statement was cancelled"}}
	ruleUnique  = rule{Never, Retry, Never, Never, Verdict{Class: ClassSerialization, Health: HealthAlive, OptIn: OptInUnique, Reason: "a unique or exclusion constraint"}}
)

// stateRules are the rows by SQLSTATE (src/backend/utils/errcodes.txt; 57P05 and 25P04 are newer than some copies).
var stateRules = map[string]rule{
	"08000": ruleLost, "08001": ruleNoMore, "08003": ruleLost, "08004": ruleNoMore, "08006": ruleLost,
	"08007": ruleOpen, "40003": ruleOpen,
	"08P01": {commit: Ambiguous, Verdict: Verdict{Health: HealthFailure, Reason: "protocol violation"}},
	"57P01": ruleShutdown, "57P02": ruleShutdown, "57P03": ruleNoMore, "53300": ruleNoMore, "57P05": ruleIdle,
	"57P04": {Verdict: Verdict{Health: HealthAlive, Alert: true, Reason: "the database was dropped"}},
	"57014": ruleCancel,
	"40000": ruleSerialization, "40001": ruleSerialization, "40P01": ruleSerialization,
	"55P03": ruleLocks, "55006": ruleLocks,
	"25006": ruleReadOnly, "25P02": ruleAnswered, "25P03": ruleSlowApp, "25P04": ruleSlowApp,
	"26000": ruleStalePlan, "42P05": ruleStalePlan,
	"53200": ruleMemory, "53100": ruleBroken, "53400": ruleBroken,
	"XX000": ruleBroken,
	"XX001": {Verdict: Verdict{Health: HealthFailure, Alert: true, Reason: "damaged data: verify the backups, and prepare a restore"}},
	"XX002": {Verdict: Verdict{Health: HealthFailure, Alert: true, Reason: "damaged index: verify the backups, and prepare a restore"}},
	"23505": ruleUnique, "23P01": ruleUnique,
}

// classRules are the rows by the first two characters of a SQLSTATE, for what stateRules does not name.
var classRules = map[string]rule{
	"28": ruleRefused, "3D": ruleRefused,
	"58": ruleBroken, "XX": ruleBroken, "F0": ruleBroken,
	"22": ruleAnswered, "23": ruleAnswered, "42": ruleAnswered, "0A": ruleAnswered, "P0": ruleAnswered,
}
