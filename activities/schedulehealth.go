package activities

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"lifeboat/internal/health"
	"lifeboat/internal/schedule"
)

// scheduleTime bounds the look at a cluster's schedules.
const scheduleTime = 15 * time.Second

// lookAtSchedules adds a cluster's schedules to what a health check sees. Without Temporal there is nothing to look at; and
// a worker whose configuration has no schedules of the cluster, as one on another host may, is not asked.
func (r *Runner) lookAtSchedules(ctx context.Context, c *Cluster, s *health.Snapshot) {
	if !activity.IsActivity(ctx) || !c.Schedules.Any() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, scheduleTime)
	defer cancel()
	var err error
	if s.Schedules, err = NewSchedules(activity.GetClient(ctx)).problems(ctx, c.Schedules, r.set.TaskQueue); err != nil {
		s.Unseen = append(s.Unseen, health.Unseen{
			Area: health.AreaSchedules, Reason: health.Failure{Problem: err.Error(), Remedy: "`lifeboat schedule list` shows whether Temporal answers"},
		})
	}
}

// problems finds what does not run as one cluster's part of the configuration says.
func (s *Schedules) problems(ctx context.Context, c schedule.Cluster, taskQueue string) ([]health.ScheduleProblem, error) {
	desired, skipped, err := schedule.Desired([]schedule.Cluster{c}, schedule.Options{TaskQueue: taskQueue})
	if err != nil {
		return nil, fmt.Errorf("read the schedules of the configuration: %w", err)
	}
	// Not all that there are: each cluster is looked at each minute.
	existing, err := s.described(ctx, schedule.IDs(c.Name))
	if err != nil {
		return nil, err
	}
	var out []health.ScheduleProblem
	for _, change := range schedule.MakePlan(desired, skipped, existing, taskQueue).Changes {
		if f, drifts := change.Drift(); drifts {
			out = append(out, health.ScheduleProblem{Verb: string(change.Mark.Verb), Drifted: true, Text: "schedule " + change.ID + ": " + f.Text})
		}
		if change.Action != schedule.Unchanged && change.Action != schedule.Update {
			continue
		}
		seen, ok, err := s.Seen(ctx, change.ID)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // removed just now: the next check finds that
		}
		for _, f := range schedule.Overdue(change.Schedule, seen, time.Now()) {
			if f.Urgent() {
				out = append(out, health.ScheduleProblem{Verb: string(change.Mark.Verb), Text: "schedule " + change.ID + ": " + f.Text})
			}
		}
	}
	return out, nil
}
