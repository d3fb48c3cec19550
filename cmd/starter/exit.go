package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/recovery"
	"lifeboat/internal/wal"
)

// The exit codes of the interface.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitVerdict     = 3
	exitUnproved    = 4
	exitRefused     = 5
	exitStopFetch   = 126
	exitInterrupted = 130
	// exitTerminated is what a shell says of a program that SIGTERM ended, and what PostgreSQL takes for that
	// (RestoreArchivedFile, xlogarchive.c): the server is shutting down, and nothing is wrong with the archive.
	exitTerminated = 143
)

// Codes of errors in JSON, besides the contract's error types.
const (
	codeUsage       = "Usage"
	codeInterrupted = "Interrupted"
	codeCanceled    = "Canceled"
	codeAbsent      = "NotInRepository"
	codeTemporal    = "TemporalUnavailable"
	codeNoWorker    = "NoWorker"
	codeRunning     = "AlreadyRunning"
)

// usageError says that the command line is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// configError says that the configuration is wrong or missing.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// hinted adds what a person can do.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// coded gives an error a code of its own.
type coded struct {
	err  error
	code string
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// runError is the failure of a workflow's run.
type runError struct {
	id  string
	err error
}

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// interrupted says that a person stopped the program, by ctrl-C or SIGTERM.
type interrupted struct{ err error }

func (e *interrupted) Error() string { return "interrupted: " + e.err.Error() }
func (e *interrupted) Unwrap() error { return e.err }

// verdictExit ends the program with the exit code of a verdict that is not PASS. The verdict itself was printed.
type verdictExit struct{ verdict contract.Verdict }

func (e *verdictExit) Error() string { return "the verdict is " + string(e.verdict) }

func verdictError(v contract.Verdict) error {
	if v == contract.Pass {
		return nil
	}
	return &verdictExit{v}
}

// exitCode maps an error to the exit codes of the interface.
func exitCode(err error) int {
	var (
		fetch   *fetchError
		verdict *verdictExit
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &fetch):
		return fetchCode(err)
	case errors.As(err, new(*interrupted)):
		return exitInterrupted
	case errors.As(err, &verdict):
		if verdict.verdict == contract.Fail {
			return exitVerdict
		}
		return exitUnproved
	}
	switch errorCode(err) {
	case codeUsage, contract.ErrorInvalidInput, contract.ErrorConfiguration:
		return exitUsage
	case contract.ErrorRefused:
		return exitRefused
	}
	return exitFailed
}

func fetchCode(err error) int {
	switch {
	case errors.As(err, new(*interrupted)), errors.Is(err, context.Canceled):
		return exitTerminated
	case errors.Is(err, wal.ErrAbsent):
		return exitFailed
	}
	return exitStopFetch
}

// errorCode is the kind of a failure, whether it happened here or in a worker: one of the contract's error types or of
// the codes above.
func errorCode(err error) string {
	var (
		app   *temporal.ApplicationError
		given *coded
	)
	switch {
	case errors.As(err, new(*interrupted)):
		return codeInterrupted
	case errors.As(err, &given):
		return given.code
	case errors.As(err, new(*usageError)):
		return codeUsage
	case errors.As(err, new(*configError)), errors.As(err, new(*config.Error)), errors.Is(err, config.ErrNotFound),
		errors.Is(err, config.ErrUnknownName):
		return contract.ErrorConfiguration
	case errors.As(err, &app):
		return app.Type()
	case temporal.IsCanceledError(err), errors.As(err, new(*temporal.TerminatedError)):
		return codeCanceled
	case errors.As(err, new(*serviceerror.WorkflowExecutionAlreadyStarted)):
		return codeRunning
	case errors.Is(err, wal.ErrAbsent):
		return codeAbsent
	}
	if kind := activities.ErrorType(err); kind != "" {
		return kind
	}
	return contract.ErrorFailed
}

// problem is an error as a program reads it.
type problem struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	Hint       string `json:"hint"`
	WorkflowID string `json:"workflowId"`
}

// problemOf parts an error into what happened and what to do about it.
func problemOf(err error) problem {
	p := problem{Code: errorCode(err), Message: message(err)}
	var (
		hint    *hinted
		refused *recovery.RefusedError
		connect *dbcore.ConnectError
		run     *runError
		dir     *basebackup.DirectoryError
	)
	switch {
	case errors.As(err, &hint):
		p.Hint = hint.hint
	case errors.As(err, &refused):
		p.Hint = refused.Hint
		p.Message = strings.TrimSuffix(p.Message, "; "+p.Hint)
	case errors.As(err, &dir):
		p.Hint = dir.Hint
		p.Message = strings.TrimSuffix(p.Message, "; "+p.Hint)
	case errors.As(err, &connect):
		p.Hint = connect.Hint
		p.Message = strings.TrimSuffix(p.Message, " (hint: "+p.Hint+")")
	}
	if errors.As(err, &run) {
		p.WorkflowID = run.id
	}
	return p
}

// message is what a person should read of an error: of a workflow's failure its own words, without the layers that
// carried them.
func message(err error) string {
	var (
		app     *temporal.ApplicationError
		wf      *temporal.WorkflowExecutionError
		timeout *temporal.TimeoutError
	)
	switch {
	case !errors.As(err, &wf):
		return err.Error()
	case errors.As(err, &app):
		return app.Message()
	case errors.As(err, new(*temporal.TerminatedError)):
		return "the run was terminated"
	case temporal.IsCanceledError(err):
		return "the run was cancelled"
	case errors.As(err, &timeout):
		return "the run took longer than it may: " + timeout.Error()
	}
	return wf.Unwrap().Error()
}

// printError tells a failure on stderr. A verdict was told already.
func (a *app) printError(err error) {
	if err == nil || errors.As(err, new(*verdictExit)) {
		return
	}
	p := problemOf(err)
	if a.json {
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]problem{"error": p})
		return
	}
	fmt.Fprintln(a.stderr, "lifeboat:", p.Message)
	if p.Hint != "" {
		fmt.Fprintln(a.stderr, "hint:", p.Hint)
	}
}
