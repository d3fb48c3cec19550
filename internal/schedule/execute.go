package schedule

import (
	"context"
	"errors"
	"fmt"
)

// Service is what reconciling needs of Temporal. Its methods may be called again after a failure.
type Service interface {
	// Read gives the schedules of these ids, those that are missing left out, and all others that carry a mark. What was
	// changed just before must show for the ids; the others may lag.
	Read(ctx context.Context, ids []string) ([]Existing, error)
	// Create makes a schedule that is not there.
	Create(ctx context.Context, s Schedule) error
	// Update makes an existing one as it shall be, if may allows it as it is now; it stays paused if it is.
	Update(ctx context.Context, s Schedule, may func(Existing) error) error
	// Delete removes one, if may allows it as it is now. One that is gone is no error.
	Delete(ctx context.Context, id string, may func(Existing) error) error
}

// Read gives what exists for MakePlan: everything marked, and whatever has an id that the clusters could have.
func Read(ctx context.Context, svc Service, clusters []string) ([]Existing, error) {
	var ids []string
	for _, c := range clusters {
		ids = append(ids, IDs(c)...)
	}
	return svc.Read(ctx, ids)
}

// IDs are those of all schedules that a cluster can have.
func IDs(cluster string) []string {
	var out []string
	for _, v := range Verbs() {
		out = append(out, ID(cluster, v))
	}
	return out
}

// Execute does what the plan says: first what is new, then what changed, and removes last. It returns the changes that
// were made. A plan with conflicts is not begun. One failure does not keep the others from being tried; what failed is in
// the error, and a new plan shows what is left.
func Execute(ctx context.Context, svc Service, p Plan) ([]Change, error) {
	if err := p.Conflicts(); err != nil {
		return nil, err
	}
	may := Ours(p.TaskQueue)
	var done []Change
	var failed []error
	for _, action := range []Action{Create, Update, Delete} {
		for _, c := range p.Changes {
			if c.Action != action {
				continue
			}
			var err error
			switch action {
			case Create:
				err = svc.Create(ctx, c.Schedule)
			case Update:
				err = svc.Update(ctx, c.Schedule, may)
			case Delete:
				err = svc.Delete(ctx, c.ID, may)
			}
			if err != nil {
				failed = append(failed, fmt.Errorf("%s schedule %s: %w", action, c.ID, err))
				continue
			}
			done = append(done, c)
		}
	}
	return done, errors.Join(failed...)
}
