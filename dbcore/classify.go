package dbcore

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rule is one row of the table: what to do in each phase, and what holds in all of them.
type rule struct {
	connect, tx, autocommit, commit Action
	Verdict                         // without Action
}

func (r rule) in(phase Phase) Verdict {
	v := r.Verdict
	switch phase {
	case PhaseConnect:
		v.Action = r.connect
	case PhaseTx, PhaseReadOnlyTx:
		v.Action = r.tx
	case PhaseAutocommit:
		v.Action = r.autocommit
	case PhaseCommit:
		v.Action = r.commit
	}
	if v.Action == Never {
		v.Class, v.OptIn, v.Once = ClassNone, OptInNone, false
	}
	return v
}

// The rows that do not begin with a SQLSTATE. docs/dbcore.md prints them all.
var (
	ruleNotConnected  = rule{Retry, Never, Never, Never, Verdict{Class: ClassTransient, Health: HealthFailure, Reason: "no connection could be made"}}
	ruleRefused       = rule{Verdict: Verdict{Health: HealthAlive, Alert: true, Reason: "the server refuses these credentials, this database or this encryption"}}
	ruleWrongRole     = rule{connect: Retry, Verdict: Verdict{Class: ClassTransient, SuspectRole: true, Reason: "no server of the wanted role"}}
	ruleCaller        = rule{commit: Ambiguous, Verdict: Verdict{Reason: "the caller gave up"}}
	ruleOwn           = rule{Verdict: Verdict{Reason: "refused before anything was sent"}}
	ruleAnswered      = rule{Verdict: Verdict{Health: HealthAlive, Reason: "an answer that the application must deal with"}}
	ruleBusy          = rule{Verdict: Verdict{Reason: "the connection is in use: an error of the program"}}
	ruleFenced        = rule{Retry, Retry, Retry, Retry, Verdict{Class: ClassTransient, Reason: "the server is not the primary any more, and was asked nothing"}}
	ruleNotSent       = rule{Retry, Retry, Retry, Retry, Verdict{Class: ClassTransient, Health: HealthFailure, SuspectPool: true, Reason: "not a byte was sent"}}
	ruleWasClosed     = rule{Retry, Retry, Retry, Retry, Verdict{Class: ClassTransient, SuspectPool: true, Reason: "the connection had ended before the call"}}
	ruleLost          = rule{Retry, Retry, RetryIfIdempotent, Ambiguous, Verdict{Class: ClassTransient, Health: HealthFailure, SuspectPool: true, Reason: "the connection was lost"}}
	ruleRolledBack    = rule{Retry, Retry, Retry, Retry, Verdict{Class: ClassTransient, Health: HealthFailure, SuspectPool: true, Reason: "the answer to COMMIT was lost, and it is known to be rolled back"}}
	ruleCommitTimeout = rule{Never, Retry, Never, Ambiguous, Verdict{Class: ClassTransient, SuspectPool: true, Reason: "COMMIT was not answered in time"}}
	ruleUnknown       = rule{commit: Ambiguous, Verdict: Verdict{Reason: "unknown error"}}
)

// Classify says what an error of PostgreSQL, of pgx or of this package means at a phase. It is a pure function, and the
// table behind it is published in docs/dbcore.md and tested row by row.
//
// A cancelled or expired context of the caller is not seen from here if the error does not wrap it: ask ctx.Err()
// first. An error that is none of PostgreSQL's, pgx's or this package's is Never and HealthUnknown, for it may come from
// the application's own code inside a transaction; at a COMMIT it is Ambiguous.
func Classify(err error, phase Phase) Verdict {
	if err == nil {
		return Verdict{Health: HealthAlive, Reason: "no error"}
	}
	var connectErr *ConnectError
	if errors.As(err, &connectErr) {
		return connectErr.verdict()
	}
	if errors.As(err, new(*notCommittedError)) { // whatever its cause, which may be the end of our own patience
		return ruleRolledBack.in(phase)
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return classifyServer(pgErr, phase)
	}
	return classifyClient(err).in(phase)
}

// verdict is that of PhaseConnect, wherever the connection was needed.
func (e *ConnectError) verdict() Verdict {
	switch e.Code {
	case CodeStarting, CodeTooMany:
		r := ruleNotConnected
		r.Class, r.Reason = ClassThrottle, "the server takes no connections now"
		return r.in(PhaseConnect)
	case CodeTLS, CodeAuth, CodeNoHBAEntry, CodeNoDatabase, CodePermission:
		return ruleRefused.in(PhaseConnect)
	case CodeWrongServerRole:
		return ruleWrongRole.in(PhaseConnect)
	case CodeCanceled:
		return ruleCaller.in(PhaseConnect)
	case CodeRefused, CodeUnreachable, CodeTimeout, CodeDNS:
		return ruleNotConnected.in(PhaseConnect)
	}
	var pgErr *pgconn.PgError
	if errors.As(e.err, &pgErr) {
		return classifyServer(pgErr, PhaseConnect)
	}
	if errors.Is(e.err, ErrUnsupportedServer) || errors.Is(e.err, ErrInvalidConfig) {
		return ruleOwn.in(PhaseConnect)
	}
	return ruleNotConnected.in(PhaseConnect)
}

// classifyClient finds the rule for an error that did not come from the server. The errors of this package come first:
// they know whether the connection was open before the call, and pgx's do not (see lostError).
func classifyClient(err error) rule {
	var notSent *notSentError
	switch {
	case errors.As(err, &notSent):
		if notSent.wasClosed {
			return ruleWasClosed
		}
		return ruleNotSent
	case isOneOf(err, ErrCommitAmbiguous):
		if errors.Is(err, context.DeadlineExceeded) { // of COMMIT's own context: the caller may have all the time there is
			return ruleCommitTimeout
		}
		return ruleLost
	case isOneOf(err, ErrConnectionLost):
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return ruleCaller
		}
		return ruleLost
	case errors.Is(err, ErrFenced):
		return ruleFenced
	case isOneOf(err, ErrClosed, ErrInvalidConfig, ErrUnsupportedServer, ErrTxDone, ErrPoolSaturated, ErrBreakerOpen, ErrBudgetExhausted, ErrPooler):
		return ruleOwn
	case isOneOf(err, ErrTxAborted, ErrCommittedNotReplicated, pgx.ErrTxCommitRollback, ErrNoRows, ErrTooManyRows):
		return ruleAnswered
	case isOneOf(err, errBusy) || err.Error() == "conn busy": // pgx's connLockError, which calls itself safe to retry
		return ruleBusy
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return ruleCaller
	}
	return classifyNetwork(err)
}

func classifyNetwork(err error) rule {
	var netErr net.Error
	var errno syscall.Errno
	network := errors.As(err, &netErr) || errors.As(err, &errno) || isOneOf(err, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed)
	switch {
	case errors.Is(err, pgconn.ErrConnClosed): // says "safe to retry" after the server has run the statement, too
		return ruleLost
	case network && pgconn.SafeToRetry(err):
		return ruleNotSent
	case network:
		return ruleLost
	case pgconn.SafeToRetry(err): // the arguments could not be encoded
		return ruleAnswered.orUnknown()
	}
	return ruleUnknown
}

// orUnknown is the rule without a word on the server.
func (r rule) orUnknown() rule {
	r.Health = HealthUnknown
	return r
}

func isOneOf(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// classifyServer finds the verdict for what the server, or a pooler in between, reported. At a COMMIT only an ERROR is
// an answer: a session that was ended (FATAL, PANIC) may have been ended after the commit record was written.
func classifyServer(e *pgconn.PgError, phase Phase) Verdict {
	v := ruleOfState(e, phase).in(phase)
	if phase == PhaseCommit && !isPlainError(e) {
		v.Action, v.Class, v.OptIn, v.Once = Ambiguous, ClassTransient, OptInNone, false
	}
	return v
}

func isPlainError(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	return severity == "ERROR"
}

func ruleOfState(e *pgconn.PgError, phase Phase) rule {
	if r, ok := ruleOfSpecial(e, phase); ok {
		return r
	}
	if r, ok := stateRules[e.Code]; ok {
		return r
	}
	if len(e.Code) == 5 {
		if r, ok := classRules[e.Code[:2]]; ok {
			return r
		}
	}
	r := ruleAnswered
	r.Reason = "unknown SQLSTATE"
	return r
}

// ruleOfSpecial finds the rules that a SQLSTATE alone does not decide.
func ruleOfSpecial(e *pgconn.PgError, phase Phase) (rule, bool) {
	switch {
	case phase == PhaseReadOnlyTx && e.Code == "25006":
		return ruleAnswered, true // a write in a transaction that was declared READ ONLY: the program's error
	case e.Code == "0A000" && e.Routine == "RevalidateCachedQuery": // "cached plan must not change result type"
		return ruleStalePlan, true
	case e.Code == "08P01" && !isPlainError(e) && fromPooler(e.Message):
		return rulePooler, true
	case e.Code == "08P01" && !isPlainError(e):
		return rule{Never, Retry, RetryIfIdempotent, Ambiguous, Verdict{Class: ClassTransient, Health: HealthFailure, Reason: "protocol violation that ended the session"}}, true
	}
	return rule{}, false
}

// fromPooler recognises what PgBouncer reports of itself, under 08P01 unless it is told otherwise.
func fromPooler(message string) bool {
	return message == "query_wait_timeout" || strings.HasPrefix(message, "no more connections allowed")
}
