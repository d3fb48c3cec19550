package activities

import (
	"errors"
	"os/user"
	"syscall"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// Remedy is what a person can do about an error that ended a piece of work. It is never empty for an error: where no
// engine knows better, it goes by the kind of the failure.
func Remedy(err error) string {
	if err == nil {
		return ""
	}
	// What an engine says itself is most precise.
	var own interface {
		error
		Remedy() string
	}
	if errors.As(err, &own) && own.Remedy() != "" {
		return own.Remedy()
	}
	if text := connectRemedy(err); text != "" {
		return text
	}
	if text := migrateRemedy(err); text != "" {
		return text
	}
	if text := engineRemedy(err); text != "" {
		return text
	}
	return kindRemedy(ErrorCode(err))
}

// connectRemedy is for what a server, or the way to it, refused.
func connectRemedy(err error) string {
	var connect *dbcore.ConnectError
	switch {
	case errors.As(err, &connect) && connect.Hint != "":
		return connect.Hint
	case errors.As(err, &connect):
		return "see the dsn in lifeboat.yaml and the server's log; `lifeboat check` tries every connection"
	case dbcore.SQLState(err) == insufficientPrivilege:
		return "`lifeboat check --print-grants` prints what a superuser has to grant"
	case errors.Is(err, dbcore.ErrInvalidConfig):
		return "mend the dsn in lifeboat.yaml"
	}
	return ""
}

// engineRemedy is for errors of engines that carry no remedy of their own.
func engineRemedy(err error) string {
	var (
		refused  *recovery.RefusedError
		noWAL    *basebackup.WALTimeoutError
		missing  *wal.MissingError
		version  *pg.UnsupportedVersionError
		conflict *repo.WALConflictError
		noUser   user.UnknownUserError
	)
	switch {
	case errors.As(err, &refused):
		return refused.Hint
	case errors.As(err, &noWAL), errors.As(err, &missing):
		return "see pg_stat_archiver and the server's log for what archive_command says, mend that, and take the backup again"
	case errors.As(err, &version):
		return "use a server of a supported version, or a newer Lifeboat"
	case errors.As(err, &conflict):
		return "find the second server that archives under this cluster's name, and stop its archive_command"
	case errors.Is(err, pginstance.ErrNoBinaries):
		return "install that version's server package on this host, or name its folder in worker.postgres_bin"
	case errors.As(err, &noUser):
		return "name a user of this host by --owner"
	case errors.Is(err, repo.ErrNoRepository):
		return "check the URL; the first backup creates a repository"
	case errors.Is(err, repo.ErrNoBackup):
		return "`lifeboat backups CLUSTER` lists the backups"
	case repo.IsDamage(err):
		return "`lifeboat verify CLUSTER all` lists what is damaged; restore from another backup, or put the object back from a copy"
	case errors.Is(err, syscall.ENOSPC):
		return "free space on the file system of the folder that is named, and start again: what is already done is kept"
	case errors.Is(err, syscall.EDQUOT):
		return "raise the quota of the folder that is named, and start again: what is already done is kept"
	case errors.Is(err, syscall.EROFS):
		return "mount the file system of the folder that is named for writing, or name another folder"
	}
	return ""
}

// kindRemedy is the last resort.
func kindRemedy(code string) string {
	switch code {
	case contract.ErrorInvalidInput:
		return "see the command's --help for what it takes"
	case contract.ErrorRefused:
		return "nothing was written; `lifeboat restore CLUSTER --target-dir DIR --plan` tells what would be done"
	case contract.ErrorConfiguration:
		return "`lifeboat check` tells what is wrong with the configuration, the servers and this host"
	case contract.ErrorNoAccess:
		return "give this process's user access to the file or folder that is named"
	case contract.ErrorFailed:
		return "the server's log beside the restored files has the details"
	}
	return "start it again; `lifeboat check` looks for the cause"
}
