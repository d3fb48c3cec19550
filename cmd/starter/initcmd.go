package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"lifeboat/internal/config"
)

func newInitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init [PATH]",
		Short: "Write a commented lifeboat.yaml to begin with (default: ./lifeboat.yaml)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return arguments("PATH")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			path := "lifeboat.yaml"
			if len(args) > 0 {
				path = args[0]
			}
			if err := writeExample(path); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"path": path})
			}
			return a.lines(func(p *printer) {
				p.line("%s", path)
				if !a.quiet {
					p.line("Edit it, then run `lifeboat check --config %s`.", path)
				}
			})
		},
	}
}

// writeExample writes a new file, readable by its owner and group: a dsn in it may hold a password.
func writeExample(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already and stays as it is: name another path, or remove it", path)
	}
	if err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(config.Example()); err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	return nil
}
