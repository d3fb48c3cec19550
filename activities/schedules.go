package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
	"lifeboat/internal/schedule"
)

// Schedules are those of a Temporal namespace, as package schedule wants them.
type Schedules struct{ client client.Client }

var _ schedule.Service = (*Schedules)(nil)

// NewSchedules serves package schedule by a client, which stays the caller's.
func NewSchedules(c client.Client) *Schedules { return &Schedules{c} }

// Read implements schedule.Service. What has an id is described, which is never stale; the list, which is, finds the rest.
func (s *Schedules) Read(ctx context.Context, ids []string) ([]schedule.Existing, error) {
	wanted := slices.Clone(ids)
	list, err := s.client.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list Temporal's schedules: %w", err)
	}
	for list.HasNext() {
		entry, err := list.Next()
		if err != nil {
			return nil, fmt.Errorf("list Temporal's schedules: %w", err)
		}
		if _, marked := markOf(entry.Memo); marked && !slices.Contains(wanted, entry.ID) {
			wanted = append(wanted, entry.ID)
		}
	}
	return s.described(ctx, wanted)
}

// described gives the schedules of these ids, those that are missing left out.
func (s *Schedules) described(ctx context.Context, ids []string) ([]schedule.Existing, error) {
	var out []schedule.Existing
	for _, id := range ids {
		d, err := s.describe(ctx, id)
		if err != nil {
			return nil, err
		}
		if d != nil {
			out = append(out, existing(id, d))
		}
	}
	return out, nil
}

// describe is nil for a schedule that is not there.
func (s *Schedules) describe(ctx context.Context, id string) (*client.ScheduleDescription, error) {
	d, err := s.client.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
	if errors.As(err, new(*serviceerror.NotFound)) {
		return nil, nil //nolint:nilnil // said above
	}
	if err != nil {
		return nil, fmt.Errorf("describe schedule %s: %w", id, err)
	}
	return d, nil
}

// Create implements schedule.Service.
func (s *Schedules) Create(ctx context.Context, w schedule.Schedule) error {
	_, err := s.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: w.ID, Spec: *specOf(w), Action: actionOf(w), Overlap: overlapOf(w), CatchupWindow: w.CatchUp, PauseOnFailure: w.PauseOnFailure,
		Note: w.Remark, Memo: map[string]any{contract.ScheduleMark: w.Mark}, TypedSearchAttributes: clusterAttribute(w.Mark.Cluster),
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return &schedule.ConflictError{Conflicts: []string{w.ID + ": somebody made it just now"}}
	}
	return err
}

// Update implements schedule.Service.
func (s *Schedules) Update(ctx context.Context, w schedule.Schedule, may func(schedule.Existing) error) error {
	return s.change(ctx, w.ID, may, func(now *client.Schedule) {
		now.Action, now.Spec = actionOf(w), specOf(w)
		now.Policy = &client.SchedulePolicies{Overlap: overlapOf(w), CatchupWindow: w.CatchUp, PauseOnFailure: w.PauseOnFailure}
	})
}

// change alters one schedule, if may allows it as it is now.
func (s *Schedules) change(ctx context.Context, id string, may func(schedule.Existing) error, alter func(*client.Schedule)) error {
	return s.client.ScheduleClient().GetHandle(ctx, id).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			if err := may(existing(id, &in.Description)); err != nil {
				return nil, err
			}
			now := in.Description.Schedule
			alter(&now)
			return &client.ScheduleUpdate{Schedule: &now}, nil
		},
	})
}

// Delete implements schedule.Service.
func (s *Schedules) Delete(ctx context.Context, id string, may func(schedule.Existing) error) error {
	d, err := s.describe(ctx, id)
	if err != nil || d == nil {
		return err
	}
	if err := may(existing(id, d)); err != nil {
		return err
	}
	err = s.client.ScheduleClient().GetHandle(ctx, id).Delete(ctx)
	if errors.As(err, new(*serviceerror.NotFound)) {
		return nil
	}
	return err
}

// SetPaused pauses or resumes. It is an update and no patch, so that the server counts what was not started meanwhile as
// not owed (schedule.Seen.UpdatedAt).
func (s *Schedules) SetPaused(ctx context.Context, id string, paused bool, note string, may func(schedule.Existing) error) error {
	return s.change(ctx, id, may, func(now *client.Schedule) { now.State.Paused, now.State.Note = paused, note })
}

// Trigger starts a run now, by the schedule's own overlap policy. It does not wait until the run is there.
func (s *Schedules) Trigger(ctx context.Context, id string) error {
	return s.client.ScheduleClient().GetHandle(ctx, id).Trigger(ctx, client.ScheduleTriggerOptions{})
}

// Seen is what Temporal tells of a schedule's past; ok is false if there is no such schedule.
func (s *Schedules) Seen(ctx context.Context, id string) (seen schedule.Seen, ok bool, err error) {
	d, err := s.describe(ctx, id)
	if err != nil || d == nil {
		return seen, false, err
	}
	seen = schedule.Seen{
		CreatedAt: d.Info.CreatedAt, UpdatedAt: d.Info.LastUpdateAt, Paused: d.Schedule.State.Paused,
		MissedCatchUp: d.Info.NumActionsMissedCatchupWindow, SkippedOverlap: d.Info.NumActionsSkippedOverlap,
	}
	for _, a := range d.Info.RecentActions {
		started := schedule.Started{ScheduledAt: a.ScheduleTime, StartedAt: a.ActualTime}
		if a.StartWorkflowResult != nil {
			started.WorkflowID, started.RunID = a.StartWorkflowResult.WorkflowID, a.StartWorkflowResult.FirstExecutionRunID
		}
		seen.Started = append(seen.Started, started)
	}
	for _, r := range d.Info.RunningWorkflows {
		seen.Running = append(seen.Running, r.WorkflowID)
	}
	if len(d.Info.NextActionTimes) > 0 && !seen.Paused {
		seen.Next = d.Info.NextActionTimes[0]
	}
	return seen, true, nil
}

// RunOf is what became of a run that a schedule started.
func (s *Schedules) RunOf(ctx context.Context, started schedule.Started) (schedule.Run, error) {
	d, err := s.client.DescribeWorkflowExecution(ctx, started.WorkflowID, started.RunID)
	if errors.As(err, new(*serviceerror.NotFound)) {
		return schedule.Run{Status: schedule.Gone}, nil
	}
	if err != nil {
		return schedule.Run{}, fmt.Errorf("describe run %s: %w", started.WorkflowID, err)
	}
	info := d.GetWorkflowExecutionInfo()
	r := schedule.Run{Workflow: info.GetType().GetName(), Status: map[enums.WorkflowExecutionStatus]schedule.Status{
		enums.WORKFLOW_EXECUTION_STATUS_COMPLETED: schedule.Completed, enums.WORKFLOW_EXECUTION_STATUS_FAILED: schedule.Failed,
		enums.WORKFLOW_EXECUTION_STATUS_CANCELED: schedule.Canceled, enums.WORKFLOW_EXECUTION_STATUS_TERMINATED: schedule.Terminated,
		enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: schedule.TimedOut,
	}[info.GetStatus()]}
	switch r.Status {
	case "":
		r.Status = schedule.Running
	case schedule.Completed:
		var result json.RawMessage
		if err := s.client.GetWorkflow(ctx, started.WorkflowID, started.RunID).Get(ctx, &result); err != nil {
			return r, fmt.Errorf("read the result of run %s: %w", started.WorkflowID, err)
		}
		r.Result = result
	case schedule.Failed:
		err := s.client.GetWorkflow(ctx, started.WorkflowID, started.RunID).Get(ctx, nil)
		var app *temporal.ApplicationError
		if errors.As(err, &app) {
			r.Failure = app.Message()
		} else if err != nil {
			r.Failure = err.Error()
		}
	}
	return r, nil
}

func clusterAttribute(cluster string) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(contract.AttributeCluster).ValueSet(cluster))
}

func actionOf(w schedule.Schedule) *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{
		ID: w.ID, Workflow: w.Workflow, Args: []any{json.RawMessage(w.Input)}, TaskQueue: w.TaskQueue,
		Memo: map[string]any{contract.ScheduleMemo: w.ID}, TypedSearchAttributes: clusterAttribute(w.Mark.Cluster),
		StaticSummary: w.Summary, StaticDetails: fmt.Sprintf("Started by schedule %s (`lifeboat schedule`): %s.", w.ID, w.Text),
	}
}

func overlapOf(w schedule.Schedule) enums.ScheduleOverlapPolicy {
	if w.Overlap == schedule.OverlapSkip {
		return enums.SCHEDULE_OVERLAP_POLICY_SKIP
	}
	return enums.SCHEDULE_OVERLAP_POLICY_UNSPECIFIED
}

func specOf(w schedule.Schedule) *client.ScheduleSpec {
	spec := &client.ScheduleSpec{Jitter: w.Jitter, TimeZoneName: w.TimeZone}
	if c := w.When.Calendar; c != nil {
		spec.Calendars = []client.ScheduleCalendarSpec{{
			Minute: rangesOf(c.Minute), Hour: rangesOf(c.Hour), DayOfMonth: rangesOf(c.DayOfMonth), Month: rangesOf(c.Month),
			DayOfWeek: rangesOf(c.DayOfWeek), Comment: w.Text,
		}}
	} else {
		spec.Intervals = []client.ScheduleIntervalSpec{{Every: w.When.Every}}
	}
	return spec
}

// rangesOf puts numbers that follow one another together.
func rangesOf(set schedule.Set) []client.ScheduleRange {
	var out []client.ScheduleRange
	for n := range 64 {
		switch {
		case !set.Has(n):
		case n > 0 && set.Has(n-1):
			out[len(out)-1].End = n
		default:
			out = append(out, client.ScheduleRange{Start: n, End: n, Step: 1})
		}
	}
	return out
}

func setOf(ranges []client.ScheduleRange) (set schedule.Set) {
	for _, r := range ranges {
		for n := max(0, r.Start); n <= min(63, max(r.Start, r.End)); n += max(1, r.Step) {
			set |= 1 << n
		}
	}
	return set
}

// existing is a schedule as Temporal has it.
func existing(id string, d *client.ScheduleDescription) schedule.Existing {
	e := schedule.Existing{Schedule: schedule.Schedule{ID: id}}
	e.Mark, e.Marked = markOf(d.Memo)
	if state := d.Schedule.State; state != nil {
		e.Paused, e.Note = state.Paused, state.Note
	}
	if spec := d.Schedule.Spec; spec != nil {
		e.When, e.TimeZone, e.Jitter = whenOf(spec), spec.TimeZoneName, spec.Jitter
		if len(spec.Calendars) > 0 {
			e.Text = spec.Calendars[0].Comment
		}
	}
	if p := d.Schedule.Policy; p != nil {
		e.CatchUp, e.PauseOnFailure = p.CatchupWindow, p.PauseOnFailure
		e.Overlap = schedule.Overlap(p.Overlap.String())
		if p.Overlap == enums.SCHEDULE_OVERLAP_POLICY_SKIP || p.Overlap == enums.SCHEDULE_OVERLAP_POLICY_UNSPECIFIED {
			e.Overlap = schedule.OverlapSkip // Temporal's default
		}
	}
	if a, ok := d.Schedule.Action.(*client.ScheduleWorkflowAction); ok {
		e.Workflow, _ = a.Workflow.(string)
		e.TaskQueue, e.Summary = a.TaskQueue, a.StaticSummary
		e.Input = inputOf(a.Args)
		var memo string
		if p, ok := a.Memo[contract.ScheduleMemo].(*commonpb.Payload); ok {
			_ = converter.GetDefaultDataConverter().FromPayload(p, &memo) // another's memo is no difference to mend
		}
		if memo != id {
			e.Workflow += " without memo " + contract.ScheduleMemo
		}
	}
	return e
}

// inputOf is the JSON of the one argument; anything else is put so that it equals no input.
func inputOf(args []any) string {
	if len(args) != 1 {
		return fmt.Sprintf("%d arguments", len(args))
	}
	p, ok := args[0].(*commonpb.Payload)
	if !ok {
		return fmt.Sprintf("an argument of type %T", args[0])
	}
	return string(p.GetData())
}

func whenOf(spec *client.ScheduleSpec) (w schedule.When) {
	switch {
	case len(spec.Calendars) > 0:
		c := spec.Calendars[0]
		w.Calendar = &schedule.Calendar{
			Minute: setOf(c.Minute), Hour: setOf(c.Hour), DayOfMonth: setOf(c.DayOfMonth), Month: setOf(c.Month), DayOfWeek: setOf(c.DayOfWeek),
		}
		if len(c.Year) > 0 || setOf(c.Second) != 1 || len(spec.Calendars) > 1 || len(spec.Intervals) > 0 {
			w.Other = "other times"
		}
	case len(spec.Intervals) > 0:
		w.Every = spec.Intervals[0].Every
		if len(spec.Intervals) > 1 || spec.Intervals[0].Offset != 0 {
			w.Other = "other times"
		}
	}
	if len(spec.Skip) > 0 || !unset(spec.StartAt) || !unset(spec.EndAt) {
		w.Other = "limits"
	}
	return w
}

// unset tells of a time that is zero, in Go's sense or in that of a protocol buffer.
func unset(t time.Time) bool { return t.IsZero() || t.Unix() == 0 }

func markOf(memo *commonpb.Memo) (m schedule.Mark, marked bool) {
	p, ok := memo.GetFields()[contract.ScheduleMark]
	if !ok {
		return m, false
	}
	err := converter.GetDefaultDataConverter().FromPayload(p, &m)
	return m, err == nil && m.Cluster != "" && m.Verb != ""
}
