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
	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
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
		errors.Is(err, config.ErrUnknownName), errors.Is(err, assemble.ErrMissing):
		return contract.ErrorConfiguration
	case errors.As(err, &app) && app.Type() == contract.ErrorTransient:
		return contract.ErrorFailed // it was tried again, and all attempts failed
	case errors.As(err, &app):
		return app.Type()
	case temporal.IsCanceledError(err), errors.As(err, new(*temporal.TerminatedError)):
		return codeCanceled
	case errors.As(err, new(*serviceerror.WorkflowExecutionAlreadyStarted)):
		return codeRunning
	case errors.Is(err, wal.ErrAbsent):
		return codeAbsent
	}
	if kind := activities.ErrorCode(err); kind != contract.ErrorTransient {
		return kind
	}
	return contract.ErrorFailed // nobody here tries again
}

// problem is an error as a program reads it.
type problem struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	Hint       string `json:"hint"`
	WorkflowID string `json:"workflowId"`
}

// problemOf parts an error into what happened and what to do about it. The hint is never empty.
func problemOf(err error) problem {
	p := problem{Code: errorCode(err), Message: message(err), Hint: hintOf(err)}
	for _, remedy := range []string{p.Hint, activities.Remedy(err)} {
		for _, form := range []string{"; %s", ": %s", " (hint: %s)"} {
			p.Message = strings.TrimSuffix(p.Message, fmt.Sprintf(form, remedy))
		}
	}
	var run *runError
	if errors.As(err, &run) {
		p.WorkflowID = run.id
	}
	return p
}

// hintOf is what a person can do: what the command knows, else what the worker said, else what the activities know.
func hintOf(err error) string {
	var hint *hinted
	if errors.As(err, &hint) {
		return hint.hint
	}
	if text := workerHint(err); text != "" {
		return text
	}
	switch code := errorCode(err); {
	case errors.Is(err, config.ErrNotFound):
		return "write one with `lifeboat init`, or name it by --config or " + config.EnvFile
	case errors.Is(err, config.ErrUnknownName):
		return "name one that is there, or add it to lifeboat.yaml"
	case errors.As(err, new(*config.Error)):
		return "mend what is named there; `lifeboat init` writes a commented example"
	case code == codeUsage:
		return "see `lifeboat --help`"
	case code == codeInterrupted:
		return "type the command again: what is already done is kept"
	case code == codeCanceled:
		return "start it again, if that was not meant"
	case code == codeAbsent:
		return "`lifeboat wal-status CLUSTER` shows what the archive has"
	}
	if errors.As(err, new(*configError)) && activities.ErrorType(err) == "" {
		return "`lifeboat check` tells what is wrong with the configuration"
	}
	return activities.Remedy(err)
}

// workerHint is the remedy that a worker's error carries in its details, "" if there is none.
func workerHint(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		app, ok := err.(*temporal.ApplicationError) //nolint:errorlint // each layer by itself: the outer ones have no details
		var text string
		if ok && app.HasDetails() && app.Details(&text) == nil && text != "" {
			return text
		}
	}
	return ""
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
	fmt.Fprintln(a.stderr, "hint:", p.Hint)
}
