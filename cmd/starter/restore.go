package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
	"lifeboat/internal/recovery"
)

// restoreFlags are the flags of restore.
type restoreFlags struct {
	runFlags
	targetFlags
	in   contract.RestoreInput
	plan bool

	takeOver bool // not available in this version
}

func newRestoreCommand(a *app) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore CLUSTER --target-dir DIR",
		Short: "Restore a cluster into an empty directory, or in place",
		Long: "Restore a cluster into an empty or missing directory, up to a target. Without --start the files and the recovery settings\n" +
			"are laid and nothing is started. With --start the server listens on 127.0.0.1 and a socket only, stays up, and the command\n" +
			"returns once it has reached the target.\n\n" +
			"With --delta the directory may be the data directory of the stopped server itself: what is there and right is kept,\n" +
			"everything else in it and in its tablespaces is replaced or deleted. Save its last WAL with `lifeboat wal-rescue` first.",
		Example: "  lifeboat restore orders --target-dir /var/lib/postgresql/restored --to '2026-11-23T07:45:00+01:00' --start\n" +
			"  lifeboat restore orders --target-dir /srv/pg --tablespace /mnt/fast=/mnt/fast2 --tablespace 16385=/mnt/slow2\n" +
			"  lifeboat restore orders --target-dir /var/lib/postgresql/17/main --delta --start",
		Args: arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in.Cluster = args[0]
			if err := a.completeRestore(&f); err != nil {
				return err
			}
			return a.restore(cmd.Context(), &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.in.TargetDir, "target-dir", "", "directory that will be the data directory: empty or missing, unless --delta is given (required)")
	fl.StringVar(&f.in.Backup, "backup", "", "restore from this backup (default: the newest from which the target can be reached)")
	fl.Uint32Var(&f.in.Timeline, "timeline", 0, "follow this timeline (default: the one that the protected cluster is on)")
	fl.StringVar(&f.in.Action, "action", "", "what the server does at the target: promote, pause or shutdown (default promote)")
	fl.StringVar(&f.in.Host, "host", "", "host whose worker restores (default: this one)")
	fl.StringVar(&f.in.Owner, "owner", "", "user that owns the files and runs the server, if the worker is root (default postgres)")
	fl.BoolVar(&f.in.Start, "start", false, "start the server and wait until it has reached the target")
	fl.IntVar(&f.in.Port, "port", 0, "port of the started server (default: a free one)")
	fl.StringVar(&f.in.PlanHash, "plan-hash", "", "refuse to restore by any other plan than the one with this hash")
	fl.BoolVar(&f.plan, "plan", false, "print the plan and do nothing")
	f.targetFlags.register(cmd, "latest")
	f.runFlags.register(cmd)
	fl.BoolVar(&f.in.Delta, "delta", false, "restore into the data directory of the stopped server itself; deletes what the backup does not name")
	fl.BoolVar(&f.in.DiscardWAL, "discard-wal", false, "with --delta: give up WAL of that server which the repository does not have")
	fl.StringArrayVar(&f.in.Tablespaces, "tablespace", nil,
		"OLD=NEW: lay the tablespace with that location or OID into NEW, empty or missing (repeatable; default: below the target directory)")
	fl.BoolVar(&f.takeOver, "take-over", false, "not available in this version")
	return cmd
}

// completeRestore checks flags against one another and fills in what they leave open.
func (a *app) completeRestore(f *restoreFlags) (err error) {
	if err := f.refuseUnavailable(); err != nil {
		return err
	}
	if err := f.runFlags.check(); err != nil {
		return err
	}
	if f.in.Target, err = f.target(time.Now()); err != nil {
		return err
	}
	here, err := hostName()
	if err != nil {
		return err
	}
	remote := f.in.Host != "" && f.in.Host != here
	switch {
	case f.in.TargetDir == "":
		return usagef("--target-dir is missing: name an empty or missing directory, or with --delta the server's own")
	case remote && (f.local || f.plan):
		return usagef("--local and --plan look at this host, %s: type the command on %s", here, f.in.Host)
	case f.plan && (f.detach || f.id != ""):
		return usagef("--plan starts no workflow: leave out --detach and --workflow-id")
	case a.repository != "" && !f.local && !f.plan:
		return usagef("workers restore by their own configuration: give --local with --repository")
	}
	if f.in.Host == "" {
		f.in.Host = here
	}
	if !remote {
		if f.in.TargetDir, err = filepath.Abs(f.in.TargetDir); err != nil {
			return usagef("--target-dir: %w", err)
		}
	}
	if err := f.in.Validate(); err != nil {
		return &usageError{err}
	}
	return nil
}

func (f *restoreFlags) refuseUnavailable() error {
	if f.takeOver {
		return usagef("--take-over is not available: a restored server does not archive; to put it in the old one's place, " +
			"give it a cluster name of its own in lifeboat.yaml and set its archive_command")
	}
	return nil
}

func (a *app) restore(ctx context.Context, f *restoreFlags) error {
	var res contract.RestoreResult
	switch {
	case f.plan:
		return a.planHere(ctx, f.in)
	case f.local:
		res, err := a.restoreHere(ctx, f.in)
		if err != nil {
			return err
		}
		return a.printRestore(res)
	}
	return a.start(ctx, f.runFlags, start{
		workflow: contract.RestoreWorkflow, verb: "restore", cluster: f.in.Cluster, input: f.in,
		summary: fmt.Sprintf("Restore of %s on %s", f.in.Cluster, f.in.Host),
	}, &res, func() error { return a.printRestore(res) })
}

func planInput(in contract.RestoreInput) contract.PlanRestoreInput {
	return contract.PlanRestoreInput{
		Cluster: in.Cluster, TargetDir: in.TargetDir, Backup: in.Backup, Target: in.Target,
		Timeline: in.Timeline, Action: in.Action, PlanHash: in.PlanHash, Start: in.Start,
		Tablespaces: in.Tablespaces, Delta: in.Delta, DiscardWAL: in.DiscardWAL,
	}
}

func (a *app) planHere(ctx context.Context, in contract.RestoreInput) error {
	set, err := a.known(ctx, in.Cluster)
	if err != nil {
		return err
	}
	run, end := a.localRun("restore", in.Cluster)
	defer end()
	planned, err := activities.NewRunner(set).PlanRestore(ctx, planInput(in), run)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(planned.Plan)
	}
	return a.lines(func(p *printer) { p.line("%s", strings.TrimRight(planned.Summary, "\n")) })
}

// restoreHere does what workflow Restore does, without Temporal.
func (a *app) restoreHere(ctx context.Context, in contract.RestoreInput) (contract.RestoreResult, error) {
	begun := time.Now()
	res := contract.RestoreResult{Cluster: in.Cluster, TargetDir: in.TargetDir, Target: in.Target}
	if res.Target.Kind == "" {
		res.Target.Kind = string(recovery.Latest)
	}
	set, err := a.known(ctx, in.Cluster)
	if err != nil {
		return res, err
	}
	run, end := a.localRun("restore", in.Cluster)
	defer end()
	res.WorkflowID = run.WorkflowID
	runner := activities.NewRunner(set)
	planned, err := runner.PlanRestore(ctx, planInput(in), run)
	if err != nil {
		return res, err
	}
	var plan recovery.Plan
	if err := json.Unmarshal(planned.Plan, &plan); err != nil {
		return res, fmt.Errorf("read the plan: %w", err)
	}
	res.Plan, res.BackupID, res.WALSegments = planned.Plan, plan.BackupID, plan.WALSegments
	laid, err := runner.LayFiles(ctx, contract.LayFilesInput{Plan: planned.Plan, Owner: in.Owner}, run)
	if err != nil {
		return res, err
	}
	res.Bytes, res.ReusedBytes = laid.Bytes, laid.ReusedBytes
	if in.Start {
		started, err := runner.StartServer(ctx, contract.StartServerInput{Plan: planned.Plan, Owner: in.Owner, Port: in.Port}, run)
		if err != nil {
			return res, err
		}
		res.Reached, res.Spans, res.Port, res.SocketDir = &started.Reached, started.Spans, started.Port, started.Socket
	}
	res.Spans.Fetch = laid.Seconds
	res.Seconds = time.Since(begun).Seconds()
	return res, nil
}

func (a *app) printRestore(r contract.RestoreResult) error {
	if a.json {
		return a.printJSON(r)
	}
	target := strings.TrimSpace(r.Target.Kind + " " + r.Target.Value)
	return a.lines(func(p *printer) {
		p.line("restored %s from backup %s into %s, target %s", r.Cluster, r.BackupID, r.TargetDir, target)
		p.line("  %s laid, %s of it found in place; %d WAL segments to replay", size(r.Bytes), size(r.ReusedBytes), r.WALSegments)
		if r.Reached == nil {
			p.line("  nothing was started: the recovery begins when a server is started in %s", r.TargetDir)
			return
		}
		p.line("  reached %s on timeline %d, last commit %s", r.Reached.LSN, r.Reached.Timeline, when(r.Reached.LastCommitAt))
		p.line("  took %.1f s: fetch %.1f, replay %.1f, start %.1f", r.Seconds, r.Spans.Fetch, r.Spans.Replay, r.Spans.Start)
		if r.Port != 0 {
			p.line("  the server is up at 127.0.0.1:%d: psql -h %s -p %d postgres", r.Port, r.SocketDir, r.Port)
		}
	})
}
