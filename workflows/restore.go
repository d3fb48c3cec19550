package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// restore is workflow Restore: plan, lay the files, and, if asked to, start the server. All of it runs on the host that
// the input names. A cancelled or failed run leaves what it has laid: it cannot be started (R3), and the next run with
// the same directory keeps what is right of it.
func (o Options) restore(ctx workflow.Context, raw converter.RawValue) (contract.RestoreResult, error) {
	var none contract.RestoreResult
	in, err := decode[contract.RestoreInput](raw)
	if err != nil {
		return none, err
	}
	if err := checkName("cluster", in.Cluster); err != nil {
		return none, err
	}
	if err := checkName("host", in.Host); err != nil {
		return none, err
	}
	if in.Target, err = absolute(ctx, in.Target); err != nil {
		return none, err
	}
	if in.Target.Kind == "" {
		in.Target.Kind = targetLatest
	}
	phases := []string{phasePlan, phaseFiles}
	if in.Start {
		phases = append(phases, phaseServer)
	}
	subject := fmt.Sprintf("To %s, into %s on host %s", describe(in.Target), in.TargetDir, in.Host)
	t, err := o.track(ctx, in.Cluster, subject, phases...)
	if err != nil {
		return none, err
	}
	result, err := t.restore(ctx, in)
	if err := t.finish(ctx, restoreOutcome(in, result), err); err != nil {
		return none, err
	}
	return result, nil
}

func (t *tracker) restore(ctx workflow.Context, in contract.RestoreInput) (contract.RestoreResult, error) {
	begun := workflow.Now(ctx)
	r := contract.RestoreResult{
		Cluster: in.Cluster, TargetDir: in.TargetDir, Target: in.Target,
		WorkflowID: workflow.GetInfo(ctx).WorkflowExecution.ID,
	}
	host := onHost{in.Host, contract.HostQueue(workflow.GetInfo(ctx).TaskQueueName, in.Host)}
	planned, facts, err := t.plan(ctx, host, contract.PlanRestoreInput{
		Cluster: in.Cluster, TargetDir: in.TargetDir, Backup: in.Backup, Target: in.Target, Timeline: in.Timeline,
		Action: in.Action, PlanHash: in.PlanHash, Start: in.Start,
		Tablespaces: in.Tablespaces, Delta: in.Delta, DiscardWAL: in.DiscardWAL,
	})
	if err != nil {
		return r, err
	}
	r.Plan, r.BackupID, r.WALSegments = planned.Plan, facts.BackupID, facts.WALSegments

	laid, err := t.layFiles(ctx, host, in.TargetDir, contract.LayFilesInput{Plan: planned.Plan, Owner: in.Owner})
	if err != nil {
		return r, err
	}
	r.Bytes, r.ReusedBytes = laid.Bytes, laid.ReusedBytes
	r.Spans.Fetch = laid.Seconds
	if in.Start {
		started, err := phase(ctx, t, phaseServer, host.call(contract.StartServerActivity,
			fmt.Sprintf("start the server in %s and replay to %s", in.TargetDir, describe(in.Target))),
			contract.StartServerInput{Plan: planned.Plan, Owner: in.Owner, Port: in.Port}, startFigures)
		if err != nil {
			return r, err
		}
		r.Reached, r.Port, r.SocketDir = &started.Reached, started.Port, started.Socket
		r.Spans = started.Spans
		r.Spans.Fetch = laid.Seconds
	}
	r.Seconds = workflow.Now(ctx).Sub(begun).Seconds()
	return r, nil
}

// onHost is a host and its queue.
type onHost struct{ host, queue string }

func (h onHost) call(activity, summary string) call {
	return call{activity: activity, host: h.host, queue: h.queue, summary: summary}
}

// plan runs PlanRestore, of which Restore and Drill are made alike: a drill rehearses the real thing.
func (t *tracker) plan(ctx workflow.Context, host onHost, in contract.PlanRestoreInput) (contract.PlanRestoreResult, planFacts, error) {
	planned, err := phase(ctx, t, phasePlan, host.call(contract.PlanRestoreActivity,
		fmt.Sprintf("plan the restore of %s to %s", in.Cluster, describe(in.Target))), in, planFigures)
	if err != nil {
		return planned, planFacts{}, err
	}
	facts, err := readPlan(planned)
	return planned, facts, err
}

// layFiles runs LayFiles.
func (t *tracker) layFiles(ctx workflow.Context, host onHost, dir string, in contract.LayFilesInput) (contract.LayFilesResult, error) {
	return phase(ctx, t, phaseFiles, host.call(contract.LayFilesActivity, "lay the files in "+dir), in, fileFigures)
}

func planFigures(r contract.PlanRestoreResult) string { return parts(r.Summary, "plan "+r.Hash) }

func fileFigures(r contract.LayFilesResult) string {
	return parts(fmt.Sprintf("%d files", r.Files), formatBytes(r.Bytes), formatBytes(r.ReusedBytes)+" were there already")
}

func startFigures(r contract.StartServerResult) string {
	return parts(fmt.Sprintf("reached %s on timeline %d", r.Reached.LSN, r.Reached.Timeline),
		fmt.Sprintf("127.0.0.1:%d", r.Port), "socket in "+r.Socket)
}

func restoreOutcome(in contract.RestoreInput, r contract.RestoreResult) string {
	if r.Reached != nil {
		return fmt.Sprintf("The server is up on host %s, 127.0.0.1:%d.", in.Host, r.Port)
	}
	return fmt.Sprintf("The files are laid in %s on host %s. Nothing was started: starting PostgreSQL there recovers to %s.",
		in.TargetDir, in.Host, describe(in.Target))
}
