package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/contract"
)

// completionTime bounds the wait for a repository while somebody looks at a prompt.
const completionTime = 2 * time.Second

// offers lists what a word can be, best first, after the arguments before it.
type offers func(ctx context.Context, args []string) []string

// quickly keeps what begins with what was typed. A repository that hangs, as on a file server that is gone, is left
// behind: the program ends anyway.
func (list offers) quickly(ctx context.Context, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	found := make(chan []string, 1)
	go func() { found <- list(ctx, args) }()
	var words []string
	select {
	case words = <-found:
	case <-ctx.Done():
	}
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, begun) })
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// complete gives every command what a shell can offer for its arguments and flags. It says nothing where it cannot know:
// an error in the middle of a line that is being typed helps nobody.
func (a *app) complete(root *cobra.Command) {
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml")
	_ = root.MarkPersistentFlagFilename("identity")
	for _, cmd := range root.Commands() {
		a.completeArguments(cmd)
		a.completeFlags(cmd)
		for _, sub := range cmd.Commands() {
			a.completeArguments(sub)
			a.completeFlags(sub)
		}
	}
}

// completeArguments goes by the names in a command's usage line.
func (a *app) completeArguments(cmd *cobra.Command) {
	words := strings.Fields(cmd.Use)
	var lists []offers
	for _, word := range words[1:] {
		switch strings.Trim(word, "[]") {
		case "CLUSTER":
			lists = append(lists, a.completeClusters)
		case "BACKUP":
			lists = append(lists, a.completeBackups(contract.VerifyLatest))
		case "BACKUP|latest|all":
			lists = append(lists, a.completeBackups(contract.VerifyLatest, contract.VerifyAll))
		case "ID":
			lists = append(lists, a.completeReports)
		case "VERB":
			lists = append(lists, func(context.Context, []string) []string { return verbNames() })
		case "PATH", "NAME":
			return // files
		}
		if strings.HasPrefix(word, "--") {
			break
		}
	}
	if cmd.HasSubCommands() {
		return
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return lists[len(args)].quickly(cmd.Context(), args, begun)
	}
}

// completeFlags offers what a flag can be.
func (a *app) completeFlags(cmd *cobra.Command) {
	offer := func(flag string, list offers) {
		if cmd.Flags().Lookup(flag) == nil {
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			return list.quickly(cmd.Context(), args, begun)
		})
	}
	fixed := func(words ...string) offers {
		return func(context.Context, []string) []string { return words }
	}
	offer("cluster", a.completeClusters)
	offer("backup", a.completeBackups())
	offer("type", fixed(contract.TypeFull, contract.TypeIncremental))
	offer("scenario", fixed(contract.ScenarioRestore))
	offer("action", fixed("promote", "pause", "shutdown"))
	offer("format", fixed("text", "json", "html"))
	offer("level", fixed("0", "1", "2", "3", "4", "5"))
	if cmd.Flags().Lookup("target-dir") != nil {
		_ = cmd.MarkFlagDirname("target-dir")
	}
}

// completeClusters lists the clusters of the configuration, or of --repository.
func (a *app) completeClusters(ctx context.Context, _ []string) []string {
	if a.repository == "" {
		cfg, err := a.loadConfig()
		if err != nil {
			return nil
		}
		return cfg.ClusterNames()
	}
	places, err := a.placesOf(ctx, "")
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range places {
		out = append(out, p.cluster)
	}
	return out
}

// completeBackups lists the backups of the cluster that is the first argument, newest first, after words that stand for
// one or more.
func (a *app) completeBackups(words ...string) offers {
	return func(ctx context.Context, args []string) []string {
		if len(args) == 0 {
			return words
		}
		r, _, err := a.openRepository(ctx, args[0])
		if err != nil {
			return words
		}
		ids, err := r.BackupIDs(ctx, args[0])
		if err != nil {
			return words
		}
		slices.Reverse(ids)
		return append(slices.Clone(words), ids...)
	}
}

// completeReports lists the reports of all clusters, newest first.
func (a *app) completeReports(ctx context.Context, _ []string) []string {
	var out []string
	for _, cluster := range a.completeClusters(ctx, nil) {
		r, _, err := a.openRepository(ctx, cluster)
		if err != nil {
			continue
		}
		names, err := r.ListDocuments(ctx, cluster, reportsPrefix)
		if err != nil {
			continue
		}
		for _, name := range names {
			out = append(out, strings.TrimPrefix(name, reportsPrefix))
		}
	}
	slices.Sort(out) // they begin with their time
	slices.Reverse(out)
	return out
}
