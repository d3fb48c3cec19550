package main

import (
	"errors"

	"go.temporal.io/sdk/temporal"

	"lifeboat/activities"
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
)

// usageError says that the command line or the configuration is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitCode maps an error to the exit codes of the interface.
func exitCode(err error) int {
	var (
		fetch   *fetchError
		usage   *usageError
		conf    *config.Error
		verdict *verdictExit
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &fetch):
		if errors.Is(err, wal.ErrAbsent) {
			return exitFailed
		}
		return exitStopFetch
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &conf), errors.Is(err, config.ErrNotFound):
		return exitUsage
	case errors.As(err, &verdict):
		if verdict.verdict == contract.Fail {
			return exitVerdict
		}
		return exitUnproved
	}
	return exitCodeOf(errorKind(err))
}

// errorKind is the type of a failure in the words of the contract, whether it happened here or in a worker.
func errorKind(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Type()
	}
	return activities.ErrorType(err)
}

func exitCodeOf(kind string) int {
	switch kind {
	case contract.ErrorInvalidInput, contract.ErrorConfiguration:
		return exitUsage
	case contract.ErrorRefused:
		return exitRefused
	}
	return exitFailed
}
