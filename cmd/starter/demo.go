package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"lifeboat/internal/demo"
)

func newDemoCommand(a *app) *cobra.Command {
	var opts demo.Options
	var stop bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Stage an accident on a server of its own and recover from it: what `make demo` runs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Out = a.stdout
			if stop {
				return demo.StopAll(cmd.Context(), a.stdout)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			opts.Lifeboat, opts.Worker = self, filepath.Join(filepath.Dir(self), "lifeboat-worker")
			opts.TemporalAddress, _ = a.env("TEMPORAL_ADDRESS")
			if opts.TemporalAddress == "" && opts.TemporalServer == "" {
				return &usageError{fmt.Errorf("the demo needs a Temporal server: --temporal-server PATH, or TEMPORAL_ADDRESS; `make demo` builds one")}
			}
			return demo.Run(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.TemporalServer, "temporal-server", "", "program of the development server")
	f.IntVar(&opts.Major, "postgres", 0, "major version of PostgreSQL (default: the newest that is installed)")
	f.IntVar(&opts.Rows, "rows", 0, "rows in the table before the load (default 200000)")
	f.BoolVar(&opts.Keep, "keep", false, "leave everything up and print how to reach it")
	f.BoolVar(&opts.StackOnly, "stack", false, "start everything, take a backup, leave it up, and have no accident")
	f.BoolVar(&opts.Kill, "kill", false, "kill the worker with -9 while it restores")
	f.StringVar(&opts.Sabotage, "sabotage", "", "spoil the recovery, to see the demo fail: no-wal, wrong-target or wrong-row")
	f.BoolVar(&stop, "stop", false, "stop and remove what --keep and --stack left up")
	return cmd
}
