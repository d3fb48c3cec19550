// Command lifeboat-worker does Lifeboat's work: it polls Temporal for workflows and activities, on the shared queue and
// on the queue of its own host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := start(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "lifeboat-worker:", err)
		os.Exit(exitCode(err))
	}
}

// usageError says that the command line or the configuration is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// start turns flags and configuration into a running worker.
func start(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lifeboat-worker", flag.ContinueOnError)
	path := flags.String("config", "", "configuration file (default: LIFEBOAT_CONFIG, ./lifeboat.yaml, /etc/lifeboat/lifeboat.yaml)")
	host := flags.String("host", "", "name of this host, for its queue (default: the host's name)")
	workDir := flags.String("work-dir", "", "where drills restore to (default: worker.work_dir of the configuration)")
	var limits timeouts
	flags.DurationVar(&limits.heartbeat, "heartbeat-timeout", heartbeatTimeout, "after how long a silent worker counts as dead and another goes on; at least 1s")
	flags.DurationVar(&limits.host, "host-timeout", hostTimeout, "after how long a host without a worker counts as lost; at least 1s")
	format := flags.String("log-format", "text", "text or json")
	level := flags.String("log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return usageError{err}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	if err := limits.check(); err != nil {
		return usageError{err}
	}
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(*level)); err != nil {
		return usageError{fmt.Errorf("--log-level: %w", err)}
	}
	log, err := telemetry.NewLogger(os.Stderr, telemetry.LogOptions{Format: *format, Level: lv})
	if err != nil {
		return usageError{err}
	}
	cfg, err := config.Load(config.LoadOptions{Path: *path, Env: os.LookupEnv})
	if err != nil {
		return usageError{err}
	}
	set, err := assemble.Settings(cfg, assemble.Host{Name: *host, WorkDir: *workDir}, log)
	if err != nil {
		return usageError{err}
	}
	if os.Geteuid() == 0 {
		log.Warn("running as root: restored PostgreSQL servers run as user postgres; better run the worker as that user")
	}
	return run(ctx, set, limits, log)
}
