package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/telemetry"
)

// app is one run of the program: its streams, environment and global flags.
type app struct {
	stdout, stderr io.Writer
	env            func(string) (string, bool)

	configPath, repository, identity string
	json, quiet, noColor             bool
}

// newRootCommand builds the command tree.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "lifeboat",
		Short:         "Disaster recovery for PostgreSQL that proves itself",
		SilenceErrors: true,
		SilenceUsage:  true,
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
	root.AddCommand(newWALPushCommand(a), newWALFetchCommand(a), newBackupCommand(a), newDrillCommand(a), newDemoCommand(a))
	return root
}

// main runs the program and returns its exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(a.stderr, "lifeboat:", err)
	}
	return exitCode(err)
}

func (a *app) loadConfig() (*config.Config, error) {
	return config.Load(config.LoadOptions{Path: a.configPath, Env: a.env})
}

// settings are those of the configuration, or of --repository and one cluster.
func (a *app) settings(cluster string) (activities.Settings, error) {
	log, err := a.logger()
	if err != nil {
		return activities.Settings{}, err
	}
	if a.repository != "" {
		return assemble.WithoutConfiguration(a.repository, cluster, assemble.Host{}, log)
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return activities.Settings{}, err
	}
	return assemble.Settings(cfg, assemble.Host{}, log)
}

func (a *app) logger() (*slog.Logger, error) {
	level := slog.LevelInfo
	if a.quiet || a.json {
		level = slog.LevelWarn
	}
	return telemetry.NewLogger(a.stderr, telemetry.LogOptions{Format: "text", Level: level})
}
