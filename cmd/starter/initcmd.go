package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/repo"
)

func newInitCommand(a *app) *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "init [PATH]",
		Short: "Write a commented lifeboat.yaml to begin with (default: ./lifeboat.yaml)",
		Long: "Write a commented lifeboat.yaml to begin with. A file that is there already is never changed.\n" +
			"With --repository, write the configuration of a cluster as its last backup left it in the repository, without\n" +
			"passwords: for the day when the repository is all that is left.",
		Example: "  lifeboat init /etc/lifeboat/lifeboat.yaml\n" +
			"  lifeboat init --repository file:///mnt/lifeboat --cluster orders",
		Args: optional("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, text := "lifeboat.yaml", config.Example()
			if len(args) > 0 {
				path = args[0]
			}
			switch {
			case a.repository != "":
				var err error
				if text, err = a.storedConfiguration(cmd.Context(), cluster); err != nil {
					return err
				}
			case cluster != "":
				return usagef("--cluster says whose configuration to take from a --repository")
			}
			if err := writeNew(path, text); err != nil {
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
	cmd.Flags().StringVar(&cluster, "cluster", "", "with --repository: whose configuration, if the repository knows several")
	return cmd
}

// storedConfiguration is the copy of a configuration in the repository of the command line.
func (a *app) storedConfiguration(ctx context.Context, cluster string) (string, error) {
	if _, err := config.FilePath(a.repository); err != nil {
		return "", usagef("--repository: %w", err)
	}
	r, err := assemble.OpenRepository(ctx, a.repository, false)
	if err != nil {
		return "", err
	}
	known, err := r.Clusters(ctx)
	switch {
	case err != nil:
		return "", err
	case cluster != "":
		if err := a.requireKnown(ctx, r, cluster); err != nil {
			return "", err
		}
	case len(known) != 1:
		return "", usagef("--cluster is missing: the repository knows %d: %s", len(known), strings.Join(known, ", "))
	default:
		cluster = known[0]
	}
	stored, err := activities.ReadConfiguration(ctx, r, cluster)
	if errors.Is(err, repo.ErrNotFound) {
		return "", &hinted{err, "take a backup, or write a new one with `lifeboat init`"}
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("# The configuration of cluster %s, as %s found it on %s (from %s).\n# Passwords were not stored: give them by PGPASSFILE, PGPASSWORD or ${NAME}.\n\n%s",
		cluster, stored.Program, when(&stored.SavedAt), r, stored.YAML), nil
}

// writeNew writes a new file, readable by its owner and group: a dsn in it may hold a password.
func writeNew(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already and stays as it is: name another path, or remove it", path)
	}
	if err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	return nil
}
