package drill

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
)

// CloneOptions say which laid files become a clone.
type CloneOptions struct {
	Plan     *recovery.Plan
	BinDirs  []string
	Owner    string
	Logger   *slog.Logger
	Progress func(recovery.Progress)
}

// WithClone starts a server on laid files, on a private socket only, replays to the target, asserts it, promotes, has it
// used, and stops it. The server dies with this process (R21), and archives nothing (R2). What use changed is in the files
// afterwards: they are for one use.
func WithClone(ctx context.Context, opts CloneOptions, use func(context.Context, *pginstance.Instance) error) (err error) {
	if err := recovery.CheckLaid(opts.Plan); err != nil {
		return err
	}
	if err := stopLeftover(ctx, opts.Plan); err != nil {
		return err
	}
	s, err := recovery.Start(ctx, opts.Plan, recovery.StartOptions{
		BinDirs: opts.BinDirs, Owner: opts.Owner, SocketOnly: true, Logger: opts.Logger, Progress: opts.Progress,
	})
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.Instance.Stop(end, pginstance.Immediate))
	}()
	return use(ctx, s.Instance)
}
