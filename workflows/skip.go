package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// scheduledBy is the id of the schedule of Lifeboat's that started this run, "" if it was started otherwise.
func scheduledBy(ctx workflow.Context) string {
	p := workflow.GetInfo(ctx).Memo.GetFields()[contract.ScheduleMemo]
	if p == nil {
		return ""
	}
	var id string
	//workflowcheck:ignore // decoding a string does the same each time
	if err := converter.GetDefaultDataConverter().FromPayload(p, &id); err != nil {
		return "" // not one of ours: it ends as any run does
	}
	return id
}

// busyOnSchedule tells whether a scheduled run found its cluster busy. No run from before there were schedules has the
// memo, so that none of them replays differently.
func busyOnSchedule(ctx workflow.Context, err error) bool {
	return err != nil && ctx.Err() == nil && errorType(err) == contract.ErrorBusy && scheduledBy(ctx) != ""
}

// skip tells why a scheduled run did nothing, "" if it did something, or failed otherwise. Nobody waits for a scheduled
// run who could start it again, and two schedules of one cluster meet now and then: a run that only found another one at
// work is no failure to be paged for, and no success either.
func (t *tracker) skip(ctx workflow.Context, err error) string {
	if !busyOnSchedule(ctx, err) {
		return ""
	}
	t.progress.Verdict = contract.Skipped
	return "busy: " + reason(err)
}

func skippedOutcome(why string) string { return "Skipped: " + why }
