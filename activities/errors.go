package activities

import (
	"context"
	"errors"
	"os"
	"os/user"
	"syscall"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// ErrorType names what kind of failure err is, in the words of the contract; "" is one that trying again may mend.
func ErrorType(err error) string {
	var (
		refused  *recovery.RefusedError
		identity *repo.IdentityError
		busy     *repo.BusyError
		asserted *recovery.AssertionError
		exited   *pginstance.ExitError
		noWAL    *basebackup.WALTimeoutError
		input    *InputError
		conflict *repo.WALConflictError
		dir      *basebackup.DirectoryError
	)
	switch {
	case errors.As(err, &dir) && !dir.Foreign:
		return contract.ErrorConfiguration
	case errors.As(err, &dir): // an identity mismatch
		return contract.ErrorRefused
	case errors.As(err, &input):
		return contract.ErrorInvalidInput
	case migrateErrorType(err) != "":
		return migrateErrorType(err)
	case errors.As(err, &refused), errors.As(err, &identity), errors.Is(err, pginstance.ErrNotOurs):
		return contract.ErrorRefused
	case errors.As(err, &busy):
		if busy.Damage != nil {
			return "" // a lease that cannot be read is over soon
		}
		return contract.ErrorBusy
	case isConfiguration(err):
		return contract.ErrorConfiguration
	case errors.As(err, &asserted), errors.As(err, &exited), errors.Is(err, pginstance.ErrTargetMissed), errors.As(err, &noWAL),
		errors.As(err, &conflict), repo.IsDamage(err):
		return contract.ErrorFailed
	}
	return ""
}

// isConfiguration tells whether settings, here or of the server, have to be changed first.
func isConfiguration(err error) bool {
	var (
		config  *ConfigurationError
		server  *basebackup.UnsupportedError
		version *pg.UnsupportedVersionError
		format  *repo.FormatError
		noUser  user.UnknownUserError
		connect *dbcore.ConnectError
	)
	if errors.As(err, &connect) {
		switch connect.Code {
		case dbcore.CodeAuth, dbcore.CodeNoHBAEntry, dbcore.CodePermission, dbcore.CodeNoDatabase, dbcore.CodeTLS:
			return true
		}
	}
	return errors.As(err, &config) || errors.Is(err, dbcore.ErrInvalidConfig) || errors.Is(err, repo.ErrNoRepository) ||
		errors.As(err, &server) || errors.As(err, &version) || errors.As(err, &format) || errors.Is(err, pginstance.ErrNoBinaries) ||
		errors.As(err, &noUser) || dbcore.SQLState(err) == insufficientPrivilege
}

// insufficientPrivilege is the SQLSTATE of a statement or command that the role may not run.
const insufficientPrivilege = "42501"

// ErrorCode is ErrorType, or for an error that trying again may mend what is in the way, in the words of the contract.
func ErrorCode(err error) string {
	if kind := ErrorType(err); kind != "" {
		return kind
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return contract.ErrorNoSpace
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		return contract.ErrorNoAccess
	case errors.As(err, new(*dbcore.ConnectError)):
		return contract.ErrorServerUnavailable
	}
	return contract.ErrorTransient
}

// applicationError turns an engine's error into what Temporal shall see: a type that tells whether to try again, the
// whole message with its remedy, and the remedy again as its details. Work that ended because the worker stops, or
// because it was cancelled, says so.
func applicationError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return temporal.NewApplicationErrorWithCause("the worker was stopped; another goes on", "WorkerStopped", err)
	default:
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return temporal.NewCanceledError(err.Error())
	}
	if kind := ErrorType(err); kind != "" {
		return temporal.NewNonRetryableApplicationError(err.Error(), kind, nil, Remedy(err))
	}
	return temporal.NewApplicationError(err.Error(), ErrorCode(err), Remedy(err))
}
