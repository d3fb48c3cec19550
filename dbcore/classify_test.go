package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"lifeboat/dbcore"
)

// serverError is an ERROR of the server.
func serverError(code string) error {
	return fmt.Errorf("exec: %w", &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: "m"})
}

// fatalError is a FATAL of the server, or of a pooler.
func fatalError(code, message string) error {
	return fmt.Errorf("exec: %w", &pgconn.PgError{Severity: "TODESFALL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
}

// safeError is what pgx calls safe to retry.
type safeError struct{ error }

func (safeError) SafeToRetry() bool { return true }
func (e safeError) Unwrap() error   { return e.error }

// classifyRow is a row of the published table. The four letters are what to do at connect, in a transaction, in
// autocommit and at COMMIT: y retry, i if idempotent, a ambiguous, - never.
type classifyRow struct {
	name    string
	err     error
	actions string
	health  dbcore.Health
	class   dbcore.Class // where it is repeated
	optIn   dbcore.OptIn
	flags   string // o once, p suspect pool, r suspect role, ! alert
}

func classifyRows() []classifyRow {
	const (
		alive, failure, unknown      = dbcore.HealthAlive, dbcore.HealthFailure, dbcore.HealthUnknown
		transient, throttle, serial  = dbcore.ClassTransient, dbcore.ClassThrottle, dbcore.ClassSerialization
		none, locks, unique, cancels = dbcore.OptInNone, dbcore.OptInLocks, dbcore.OptInUnique, dbcore.OptInCanceled
	)
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	rows := []classifyRow{
		{"connect: refused", &dbcore.ConnectError{Code: dbcore.CodeRefused}, "yyyy", failure, transient, none, ""},
		{"connect: unreachable", &dbcore.ConnectError{Code: dbcore.CodeUnreachable}, "yyyy", failure, transient, none, ""},
		{"connect: timeout", &dbcore.ConnectError{Code: dbcore.CodeTimeout}, "yyyy", failure, transient, none, ""},
		{"connect: DNS", &dbcore.ConnectError{Code: dbcore.CodeDNS}, "yyyy", failure, transient, none, ""},
		{"connect: starting", &dbcore.ConnectError{Code: dbcore.CodeStarting}, "yyyy", failure, throttle, none, ""},
		{"connect: too many", &dbcore.ConnectError{Code: dbcore.CodeTooMany}, "yyyy", failure, throttle, none, ""},
		{"connect: no server of the role", &dbcore.ConnectError{Code: dbcore.CodeWrongServerRole}, "yyyy", unknown, transient, none, "r"},
		{"connect: cancelled", &dbcore.ConnectError{Code: dbcore.CodeCanceled}, "----", unknown, 0, none, ""},
		{"connect: authentication", &dbcore.ConnectError{Code: dbcore.CodeAuth}, "----", alive, 0, none, "!"},
		{"connect: pg_hba.conf", &dbcore.ConnectError{Code: dbcore.CodeNoHBAEntry}, "----", alive, 0, none, "!"},
		{"connect: no database", &dbcore.ConnectError{Code: dbcore.CodeNoDatabase}, "----", alive, 0, none, "!"},
		{"connect: permission", &dbcore.ConnectError{Code: dbcore.CodePermission}, "----", alive, 0, none, "!"},
		{"connect: TLS", &dbcore.ConnectError{Code: dbcore.CodeTLS}, "----", alive, 0, none, "!"},
		{"pool saturated", fmt.Errorf("x: %w", dbcore.ErrPoolSaturated), "----", unknown, 0, none, ""},
		{"fenced", fmt.Errorf("x: %w", dbcore.ErrFenced), "yyyy", unknown, transient, none, ""},
		{"breaker open", fmt.Errorf("x: %w", dbcore.ErrBreakerOpen), "----", unknown, 0, none, ""},
		{"budget exhausted", fmt.Errorf("x: %w", dbcore.ErrBudgetExhausted), "----", unknown, 0, none, ""},
		{"settings", fmt.Errorf("x: %w", dbcore.ErrInvalidConfig), "----", unknown, 0, none, ""},
		{"pool closed", fmt.Errorf("x: %w", dbcore.ErrClosed), "----", unknown, 0, none, ""},
		{"not a byte sent", safeError{&net.OpError{Op: "write", Err: syscall.EPIPE}}, "yyyy", failure, transient, none, "p"},
		{"arguments cannot be encoded", safeError{errors.New("cannot encode")}, "----", unknown, 0, none, ""},
		{"pgx: conn closed", safeError{pgconn.ErrConnClosed}, "yyia", failure, transient, none, "p"},
		{"EOF", fmt.Errorf("x: %w", io.ErrUnexpectedEOF), "yyia", failure, transient, none, "p"},
		{"reset", fmt.Errorf("x: %w", reset), "yyia", failure, transient, none, "p"},
		{"network timeout", fmt.Errorf("x: %w", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}), "yyia", failure, transient, none, "p"},
		{"lost", fmt.Errorf("x: %w", dbcore.ErrConnectionLost), "yyia", failure, transient, none, "p"},
		{"COMMIT's own timeout", fmt.Errorf("x: %w: %w", dbcore.ErrCommitAmbiguous, context.DeadlineExceeded), "-y-a", unknown, transient, none, "p"},
		{"commit ambiguous", fmt.Errorf("x: %w", dbcore.ErrCommitAmbiguous), "yyia", failure, transient, none, "p"},
		{"conn busy", safeError{errors.New("conn busy")}, "----", unknown, 0, none, ""},
		{"caller cancelled", fmt.Errorf("x: %w", context.Canceled), "---a", unknown, 0, none, ""},
		{"caller's deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), "---a", unknown, 0, none, ""},
		{"transaction aborted", dbcore.ErrTxAborted, "----", alive, 0, none, ""},
		{"committed, not replicated", dbcore.ErrCommittedNotReplicated, "----", alive, 0, none, ""},
		{"no rows", dbcore.ErrNoRows, "----", alive, 0, none, ""},
		{"the application's own", errors.New("insufficient funds"), "---a", unknown, 0, none, ""},
		{"FATAL 57P01", fatalError("57P01", ""), "yyia", failure, transient, none, "p"},
		{"FATAL 57P02", fatalError("57P02", ""), "yyia", failure, transient, none, "p"},
		{"FATAL 57P03", fatalError("57P03", ""), "yyya", failure, throttle, none, ""},
		{"FATAL 53300", fatalError("53300", ""), "yyya", failure, throttle, none, ""},
		{"FATAL 57P05", fatalError("57P05", ""), "y-ya", unknown, transient, none, ""},
		{"FATAL 25P03", fatalError("25P03", ""), "---a", unknown, 0, none, ""},
		{"FATAL 25P04", fatalError("25P04", ""), "---a", unknown, 0, none, ""},
		{"FATAL 40001 at COMMIT", fatalError("40001", ""), "-yya", alive, serial, none, ""},
		{"pooler: query_wait_timeout", fatalError("08P01", "query_wait_timeout"), "yyya", failure, throttle, none, ""},
		{"pooler: full", fatalError("08P01", "no more connections allowed (max_client_conn)"), "yyya", failure, throttle, none, ""},
		{"other FATAL 08P01", fatalError("08P01", "protocol"), "-yia", failure, transient, none, ""},
		{"other 08P01", serverError("08P01"), "---a", failure, 0, none, ""},
		{"stale plan", &pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "RevalidateCachedQuery"}, "-yy-", unknown, transient, none, "o"},
	}
	for code, r := range map[string]classifyRow{
		"08000": {actions: "yyia", health: failure, class: transient, flags: "p"}, "08003": {actions: "yyia", health: failure, class: transient, flags: "p"},
		"08006": {actions: "yyia", health: failure, class: transient, flags: "p"}, "08007": {actions: "-iia", health: failure, class: transient},
		"40003": {actions: "-iia", health: failure, class: transient},
		"40000": {actions: "-yyy", health: alive, class: serial}, "40001": {actions: "-yyy", health: alive, class: serial},
		"40P01": {actions: "-yyy", health: alive, class: serial},
		"55P03": {actions: "-yyy", health: alive, class: transient, optIn: locks}, "55006": {actions: "-yyy", health: alive, class: transient, optIn: locks},
		"25006": {actions: "-yyy", health: unknown, class: transient, flags: "r"}, "25P02": {actions: "----", health: alive},
		"57014": {actions: "--i-", health: unknown, class: transient, optIn: cancels},
		"26000": {actions: "-yy-", health: unknown, class: transient, flags: "o"}, "42P05": {actions: "-yy-", health: unknown, class: transient, flags: "o"},
		"53200": {actions: "-yyy", health: failure, class: throttle}, "53100": {actions: "----", health: failure, flags: "!"},
		"53400": {actions: "----", health: failure, flags: "!"}, "58030": {actions: "----", health: failure, flags: "!"},
		"XX000": {actions: "----", health: failure, flags: "!"}, "XX001": {actions: "----", health: failure, flags: "!"}, "XX002": {actions: "----", health: failure, flags: "!"},
		"57P04": {actions: "----", health: alive, flags: "!"}, "28P01": {actions: "----", health: alive, flags: "!"}, "3D000": {actions: "----", health: alive, flags: "!"},
		"23505": {actions: "-y--", health: alive, class: serial, optIn: unique}, "23P01": {actions: "-y--", health: alive, class: serial, optIn: unique},
		"23503": {actions: "----", health: alive}, "22012": {actions: "----", health: alive}, "42601": {actions: "----", health: alive},
		"42501": {actions: "----", health: alive}, "0A000": {actions: "----", health: alive}, "P0001": {actions: "----", health: alive},
		"ZZ999": {actions: "----", health: alive}, "": {actions: "----", health: alive}, "1": {actions: "----", health: alive},
	} {
		r.name, r.err = "ERROR "+code, serverError(code)
		rows = append(rows, r)
	}
	return rows
}

// TestClassify is the table of docs/dbcore.md, row by row.
func TestClassify(t *testing.T) {
	phases := []dbcore.Phase{dbcore.PhaseConnect, dbcore.PhaseTx, dbcore.PhaseAutocommit, dbcore.PhaseCommit}
	letters := map[dbcore.Action]byte{dbcore.Never: '-', dbcore.Retry: 'y', dbcore.RetryIfIdempotent: 'i', dbcore.Ambiguous: 'a'}
	for _, r := range classifyRows() {
		t.Run(r.name, func(t *testing.T) {
			for i, phase := range phases {
				v := dbcore.Classify(r.err, phase)
				if letters[v.Action] != r.actions[i] || v.Health != r.health {
					t.Errorf("%v: %v, %v; want %c, %v", phase, v.Action, v.Health, r.actions[i], r.health)
				}
				repeated := v.Action == dbcore.Retry || v.Action == dbcore.RetryIfIdempotent
				if repeated && (v.Class != r.class || v.OptIn != r.optIn) || !repeated && v.OptIn != dbcore.OptInNone {
					t.Errorf("%v: class %v, opt-in %v; want %v, %v", phase, v.Class, v.OptIn, r.class, r.optIn)
				}
				for flag, set := range map[string]bool{"o": v.Once && repeated, "p": v.SuspectPool, "r": v.SuspectRole, "!": v.Alert} {
					if set != (strings.Contains(r.flags, flag) && (flag != "o" || repeated)) {
						t.Errorf("%v: flag %s is %t", phase, flag, set)
					}
				}
				if v.Reason == "" {
					t.Errorf("%v: no reason", phase)
				}
			}
			if v, w := dbcore.Classify(r.err, dbcore.PhaseReadOnlyTx), dbcore.Classify(r.err, dbcore.PhaseTx); v != w && r.name != "ERROR 25006" {
				t.Errorf("in a read-only transaction %+v, in another %+v", v, w)
			}
		})
	}
	if v := dbcore.Classify(serverError("25006"), dbcore.PhaseReadOnlyTx); v.Action != dbcore.Never || v.SuspectRole {
		t.Errorf("a write in a READ ONLY transaction: %+v", v)
	}
	if v := dbcore.Classify(nil, dbcore.PhaseCommit); v.Action != dbcore.Never || v.Health != dbcore.HealthAlive {
		t.Errorf("no error: %+v", v)
	}
}

// FuzzClassify: whatever the server says, a write whose outcome is open is never repeated unless it was declared
// idempotent, and nothing that a session's end has cut off at COMMIT is anything but ambiguous.
func FuzzClassify(f *testing.F) {
	for _, r := range classifyRows() {
		if state := dbcore.SQLState(r.err); state != "" {
			f.Add(state, "FATAL", "query_wait_timeout", "RevalidateCachedQuery", byte(4))
		}
	}
	f.Fuzz(func(t *testing.T, code, severity, message, routine string, phase byte) {
		err := &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message, Routine: routine}
		p := dbcore.Phase(phase%5 + 1)
		v := dbcore.Classify(fmt.Errorf("x: %w", err), p)
		all := dbcore.RetryConfig{Locks: true, UniqueViolations: true, Canceled: true}
		open := severity != "ERROR" && (p == dbcore.PhaseCommit || p == dbcore.PhaseAutocommit && (code == "57P01" || code == "57P02")) ||
			code == "08006" || code == "08007" || code == "40003"
		if open && (p == dbcore.PhaseCommit || p == dbcore.PhaseAutocommit) && all.Allows(v, false) {
			t.Errorf("%s %s at %v would be repeated: %+v", severity, code, p, v)
		}
		if p == dbcore.PhaseCommit && severity != "ERROR" && v.Action != dbcore.Ambiguous {
			t.Errorf("%s %s at COMMIT: %+v", severity, code, v)
		}
		if again := dbcore.Classify(fmt.Errorf("y: %w", err), p); again != v {
			t.Errorf("%+v, then %+v", v, again)
		}
	})
}
