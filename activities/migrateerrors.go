package activities

import (
	"errors"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

// migrateErrorType is ErrorType for the errors of migrations; "" for all others, and for those that trying again may
// mend.
func migrateErrorType(err error) string {
	var statement *migrate.StatementError
	switch {
	case errors.Is(err, migrate.ErrSource), errors.Is(err, migrate.ErrNoVersion):
		return contract.ErrorInvalidInput
	case refusedMigration(err):
		return contract.ErrorRefused
	case errors.Is(err, migrate.ErrLocked):
		return contract.ErrorBusy
	case errors.Is(err, dbcore.ErrPooler):
		return contract.ErrorConfiguration
	case errors.Is(err, migrate.ErrLockTimeout):
		return contract.ErrorFailed
	case errors.As(err, &statement) && !connectionLost(err):
		return contract.ErrorFailed
	}
	return ""
}

// refusedMigration tells what was refused before anything was changed.
func refusedMigration(err error) bool {
	for _, target := range []error{
		migrate.ErrEdited, migrate.ErrMissing, migrate.ErrGap, migrate.ErrOutOfOrder, migrate.ErrDirty, migrate.ErrMismatch,
		migrate.ErrPlanChanged, migrate.ErrUnsafe, migrate.ErrIrreversible, migrate.ErrDestructive, migrate.ErrStandby,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// connectionLost tells a failure of the way to the server, or of the server as a whole, from one of a statement.
func connectionLost(err error) bool {
	return dbcore.SQLState(err) == "" || dbcore.Classify(err, dbcore.PhaseTx).Health == dbcore.HealthFailure
}

// migrateRemedy is what a person can do about an error of a migration; "" for all others.
func migrateRemedy(err error) string {
	switch {
	case errors.Is(err, migrate.ErrUnsafe):
		return "mend the statements, accept a finding by a comment \"-- migrate:ignore RULE: REASON\" before its statement, or give --allow-unsafe"
	case errors.Is(err, migrate.ErrDestructive):
		return "give --allow-destructive if the data may go, or write a new migration"
	case errors.Is(err, migrate.ErrIrreversible):
		return "write a new migration, or restore to a point before it: `lifeboat restore CLUSTER --to-name NAME --target-dir DIR`"
	case errors.Is(err, migrate.ErrPlanChanged):
		return "look at the new plan by `lifeboat migrate plan`, and give its hash"
	case errors.Is(err, migrate.ErrDirty), errors.Is(err, migrate.ErrMismatch):
		return "`lifeboat migrate repair CLUSTER --source DIR` tells what is left, and with --execute mends it"
	case errors.Is(err, migrate.ErrEdited):
		return "put the file back as it was and write a new migration, or accept it by `lifeboat migrate repair --accept-edited VERSION --execute`"
	case errors.Is(err, migrate.ErrGap):
		return "add the file that is missing, or give --allow-gaps"
	case errors.Is(err, migrate.ErrOutOfOrder):
		return "give the file a number above the newest applied one, or give --allow-out-of-order"
	case errors.Is(err, migrate.ErrMissing):
		return "bring the file back: it may be on another branch"
	case errors.Is(err, migrate.ErrLocked):
		return "wait for the other migrator; `lifeboat migrate status` shows who holds the lock"
	case errors.Is(err, migrate.ErrLockTimeout):
		return "end the sessions that are named, or migrate at a quieter time; nothing of the file remains, so it can be applied again"
	case errors.Is(err, migrate.ErrSource), errors.Is(err, migrate.ErrNoVersion):
		return "see the files in the folder of --source: NUMBER_title.up.sql and NUMBER_title.down.sql"
	case errors.Is(err, migrate.ErrStandby):
		return "name the primary in the cluster's dsn, or by --dsn"
	case errors.As(err, new(*migrate.StatementError)):
		return "mend the statement and apply again; `lifeboat migrate status` shows what is applied"
	}
	return ""
}
