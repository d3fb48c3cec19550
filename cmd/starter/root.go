package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/telemetry"
)

// app is one run of the program: its streams, environment and global flags.
type app struct {
	stdout, stderr io.Writer
	env            func(string) (string, bool)

	configPath, repository, identity string
	json, quiet, noColor             bool

	// bottom holds the progress bar on stderr, and lets the log pass above it.
	bottom *bottomLine

	// began tells that a command's own code ran: errors before that are the command line's.
	began bool
}

// takesRepository marks the commands that need the repository alone, and so take --repository instead of a
// configuration (R5).
const takesRepository = "lifeboat/repository"

// newRootCommand builds the command tree.
func newRootCommand(a *app) *cobra.Command {
	a.bottom = &bottomLine{out: a.stderr}
	root := &cobra.Command{
		Use:           "lifeboat",
		Short:         "Disaster recovery for PostgreSQL that proves itself",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.checkGlobals(cmd)
		},
		SuggestionsMinimumDistance: 2,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.StringVar(&a.configPath, "config", "", "configuration file (default: LIFEBOAT_CONFIG, ./lifeboat.yaml, /etc/lifeboat/lifeboat.yaml)")
	f.StringVar(&a.repository, "repository", "", "repository URL, instead of a configuration")
	f.StringVar(&a.identity, "identity", "", "key file of an encrypted repository")
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.BoolVar(&a.quiet, "quiet", false, "print results and errors only")
	f.BoolVar(&a.noColor, "no-color", false, "print no colors")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return suggestFlag(cmd, err) })

	fromRepository := []*cobra.Command{
		newRestoreCommand(a), newBackupsCommand(a), newShowCommand(a), newWALFetchCommand(a), newWALPushCommand(a),
		newWALStatusCommand(a), newWALRescueCommand(a), newReportsCommand(a), newReportCommand(a), newVerifyCommand(a),
		newInitCommand(a),
	}
	for _, cmd := range fromRepository {
		allowRepository(cmd)
	}
	root.AddCommand(fromRepository...)
	root.AddCommand(newCheckCommand(a), newBackupCommand(a), newDrillCommand(a), newStatusCommand(a), newHealthCommand(a),
		newScheduleCommand(a), newVersionCommand(a), newDemoCommand(a), newMigrateCommand(a))
	a.prepare(root)
	a.complete(root)
	return root
}

func allowRepository(cmd *cobra.Command) {
	cmd.Annotations = map[string]string{takesRepository: "yes"}
	for _, sub := range cmd.Commands() {
		allowRepository(sub)
	}
}

// prepare makes every command note that it began.
func (a *app) prepare(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.began = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		a.prepare(sub)
	}
}

// checkGlobals refuses global flags that the command would otherwise pass over in silence.
func (a *app) checkGlobals(cmd *cobra.Command) error {
	if a.identity != "" {
		return errors.New("--identity: encryption is not available in this version, so that no repository needs a key")
	}
	if a.repository != "" && cmd.Annotations[takesRepository] == "" {
		return fmt.Errorf("%s takes no --repository: it needs a configuration", cmd.CommandPath())
	}
	if a.repository != "" && a.configPath != "" {
		return errors.New("--repository stands instead of a configuration: leave out --config or --repository")
	}
	return nil
}

// fetches tells whether the arguments mean wal-fetch, also when they are wrong: then too PostgreSQL must not take the
// failure for the end of WAL.
func fetches(root *cobra.Command, args []string) bool {
	cmd, _, err := root.Find(args)
	if err == nil && cmd != root {
		return cmd.Name() == walFetchName
	}
	return slices.Contains(args, walFetchName)
}

// main runs the program and returns its exit code.
func (a *app) main(ctx context.Context, args []string) (code int) {
	root := newRootCommand(a)
	root.SetArgs(args)
	fetch := fetches(root, args)
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(a.stderr, "lifeboat: internal error: %v\n%s", p, debug.Stack())
			if code = exitFailed; fetch {
				code = exitStopFetch
			}
		}
	}()
	cmd, err := root.ExecuteContextC(ctx)
	if fetch && err == nil && !a.began && cmd == root {
		err = errors.New("no command was given") // printing help must not look like a fetched file
	}
	if err != nil && !a.began {
		a.json = a.json || slices.Contains(args, "--json")
		err = &usageError{plain(err)}
	}
	if err != nil && !errors.As(err, new(*hinted)) && errors.As(err, new(*usageError)) {
		err = &hinted{err, fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
	}
	if err != nil && a.began && ctx.Err() != nil && !errors.As(err, new(*verdictExit)) && !errors.As(err, new(*interrupted)) {
		err = &interrupted{err}
	}
	if fetch && err != nil && !errors.As(err, new(*fetchError)) {
		err = &fetchError{err}
	}
	a.printError(err)
	return exitCode(err)
}

// plain makes one line of cobra's suggestions.
func plain(err error) error {
	head, tail, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if !ok {
		return err
	}
	return fmt.Errorf("%s: did you mean %s?", head, strings.Join(strings.Fields(tail), ", "))
}

// arguments takes exactly the arguments that the usage line names.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("missing: %s", strings.Join(names[len(args):], ", "))
		case len(args) > len(names):
			return fmt.Errorf("unexpected argument %q", args[len(names)])
		}
		for i, arg := range args {
			if arg == "" {
				return fmt.Errorf("%s is empty", names[i])
			}
		}
		return nil
	}
}

func (a *app) loadConfig() (*config.Config, error) {
	cfg, err := config.Load(config.LoadOptions{Path: a.configPath, Env: a.env})
	if err != nil {
		return nil, &configError{err}
	}
	return cfg, nil
}

// settings are those of the configuration, or of --repository and one cluster.
func (a *app) settings(cluster string) (activities.Settings, error) {
	set, _, err := a.cluster(cluster)
	return set, err
}

// cluster gives the settings and one cluster of them, which must be there.
func (a *app) cluster(name string) (set activities.Settings, c activities.Cluster, err error) {
	log, err := a.logger()
	if err != nil {
		return set, c, err
	}
	if a.repository != "" {
		if set, err = assemble.WithoutConfiguration(a.repository, name, assemble.Host{}, log); err != nil {
			return set, c, &usageError{err}
		}
		return set, set.Clusters[name], nil
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return set, c, err
	}
	if _, err := cfg.Cluster(name); err != nil {
		return set, c, &configError{err}
	}
	if set, err = assemble.Settings(cfg, assemble.Host{}, log); err != nil {
		return set, c, &configError{err}
	}
	return set, set.Clusters[name], nil
}

// taskQueue is that of the configuration, if there is one; a starter needs none.
func (a *app) taskQueue() (string, error) {
	cfg, err := a.loadConfig()
	if errors.Is(err, config.ErrNotFound) {
		return contract.DefaultTaskQueue, nil
	}
	if err != nil {
		return "", err
	}
	return cfg.Worker.TaskQueue, nil
}

func (a *app) logger() (*slog.Logger, error) {
	level := slog.LevelInfo
	if a.quiet || a.json {
		level = slog.LevelWarn
	}
	return telemetry.NewLogger(a.bottom, telemetry.LogOptions{Format: "text", Level: level})
}

func hostName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find this host's name: %w; give it by --host", err)
	}
	return name, nil
}
