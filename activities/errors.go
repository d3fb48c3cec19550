package activities

import (
	"context"
	"errors"
	"os/user"

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
		config   *ConfigurationError
		asserted *recovery.AssertionError
		exited   *pginstance.ExitError
		noWAL    *basebackup.WALTimeoutError
		input    *InputError
		server   *basebackup.UnsupportedError
		version  *pg.UnsupportedVersionError
		conflict *repo.WALConflictError
		noUser   user.UnknownUserError
		dir      *basebackup.DirectoryError
	)
	switch {
	case errors.As(err, &dir) && !dir.Foreign:
		return contract.ErrorConfiguration
	case errors.As(err, &dir): // an identity mismatch
		return contract.ErrorRefused
	case errors.As(err, &input):
		return contract.ErrorInvalidInput
	case errors.As(err, &refused), errors.As(err, &identity), errors.Is(err, pginstance.ErrNotOurs):
		return contract.ErrorRefused
	case errors.As(err, &busy):
		return contract.ErrorBusy
	case errors.As(err, &config), errors.Is(err, dbcore.ErrInvalidConfig), errors.Is(err, repo.ErrNoRepository),
		errors.As(err, &server), errors.As(err, &version), errors.Is(err, pginstance.ErrNoBinaries), errors.As(err, &noUser):
		return contract.ErrorConfiguration
	case errors.As(err, &asserted), errors.As(err, &exited), errors.Is(err, pginstance.ErrTargetMissed), errors.As(err, &noWAL),
		errors.As(err, &conflict), repo.IsDamage(err):
		return contract.ErrorFailed
	}
	return ""
}

// applicationError turns an engine's error into what Temporal shall see: a type that tells whether to try again, and
// the whole message with its remedy. Work that ended because the worker stops, or because it was cancelled, says so.
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
		return temporal.NewNonRetryableApplicationError(err.Error(), kind, nil)
	}
	return temporal.NewApplicationError(err.Error(), "Transient")
}
