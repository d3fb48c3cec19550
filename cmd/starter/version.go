package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"lifeboat/internal/assemble"
	"lifeboat/internal/pg"
)

// versionInfo is what `lifeboat version` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Postgres []int  `json:"postgresMajors"`
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{
				Version: strings.TrimPrefix(assemble.Program(), "lifeboat "), Go: runtime.Version(),
				Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}
			for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
				v.Postgres = append(v.Postgres, major)
			}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			return a.lines(func(p *printer) {
				p.line("lifeboat %s", v.Version)
				if !a.quiet {
					p.line("commit %s, %s, %s, for PostgreSQL %d to %d", orNone(v.Commit), v.Go, v.Platform, pg.MinMajor, pg.MaxMajor)
				}
			})
		},
	}
}

func orNone(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
