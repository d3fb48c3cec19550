package schedule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Existing is a schedule that Temporal has.
type Existing struct {
	Schedule // as Temporal has it; its Mark is empty if Marked is false
	// Marked tells that it carries a mark of Lifeboat's.
	Marked bool
	Paused bool
	// Note is the reason of a pause, or of its end.
	Note string
}

// Action is what a plan does with one schedule.
type Action string

// The actions.
const (
	Create    Action = "create"
	Update    Action = "update"
	Delete    Action = "delete"
	Unchanged Action = "unchanged"
	// Skip: the configuration asks for it, and this version cannot do it.
	Skip Action = "skip"
	// Conflict: its id is taken by a schedule that is not ours to change. A plan with one is not executed at all.
	Conflict Action = "conflict"
)

// Change is one line of a plan.
type Change struct {
	Action   Action
	ID       string
	Mark     Mark
	Schedule Schedule // as it shall be; zero for Delete and Skip
	// Differences say what is not as it shall be, for Update.
	Differences []Difference
	Reason      string
	// Paused: it is paused, and stays so. Note is why.
	Paused bool
	Note   string
}

// Difference is one property of a schedule.
type Difference struct {
	Property string `json:"property"`
	Is       string `json:"is"`
	Shall    string `json:"shall"`
}

// Plan is what makes Temporal's schedules those of the configuration.
type Plan struct {
	TaskQueue string
	Changes   []Change
}

// MakePlan compares. It is deterministic: the same arguments, in any order, give the same plan. Schedules without a mark,
// and those of other task queues, are left alone.
func MakePlan(desired []Schedule, skipped []Skipped, existing []Existing, taskQueue string) Plan {
	p := Plan{TaskQueue: taskQueue}
	have := map[string]Existing{}
	for _, e := range existing {
		have[e.ID] = e
	}
	want := map[string]bool{}
	for _, d := range desired {
		want[d.ID] = true
		p.Changes = append(p.Changes, change(d, have, taskQueue))
	}
	unfulfilled := map[string]string{}
	for _, s := range skipped {
		id := ID(s.Mark.Cluster, s.Mark.Verb)
		unfulfilled[id] = s.Reason
		p.Changes = append(p.Changes, Change{Action: Skip, ID: id, Mark: s.Mark, Reason: s.Reason})
	}
	for id, e := range have {
		if want[id] || foreign(e, taskQueue) != "" {
			continue
		}
		reason := "not in the configuration"
		if r, ok := unfulfilled[id]; ok {
			reason = r
		}
		p.Changes = append(p.Changes, Change{Action: Delete, ID: id, Mark: e.Mark, Reason: reason, Paused: e.Paused, Note: e.Note})
	}
	slices.SortFunc(p.Changes, func(a, b Change) int {
		if c := a.Mark.compare(b.Mark); c != 0 {
			return c
		}
		return strings.Compare(string(a.Action), string(b.Action))
	})
	return p
}

func change(d Schedule, have map[string]Existing, taskQueue string) Change {
	c := Change{Action: Create, ID: d.ID, Mark: d.Mark, Schedule: d, Reason: d.Remark}
	e, ok := have[d.ID]
	if !ok {
		return c
	}
	if why := foreign(e, taskQueue); why != "" {
		c.Action, c.Reason = Conflict, why
		return c
	}
	c.Paused, c.Note = e.Paused, e.Note
	if c.Differences = Differences(d, e); len(c.Differences) > 0 {
		c.Action = Update
	} else {
		c.Action = Unchanged
	}
	return c
}

// foreign tells why a schedule is not ours to change, "" if it is. Its id must be that of its mark: a copy that somebody
// made by hand carries the mark too.
func foreign(e Existing, taskQueue string) string {
	switch {
	case !e.Marked:
		return "it has no mark of Lifeboat's: somebody else made it"
	case e.Mark.TaskQueue != taskQueue:
		return fmt.Sprintf("it belongs to the configuration of task queue %q", e.Mark.TaskQueue)
	case e.ID != ID(e.Mark.Cluster, e.Mark.Verb):
		return fmt.Sprintf("its mark is that of %s", ID(e.Mark.Cluster, e.Mark.Verb))
	}
	return ""
}

// Ours allows a change of what carries a mark of this task queue, for Service.
func Ours(taskQueue string) func(Existing) error {
	return func(e Existing) error {
		if why := foreign(e, taskQueue); why != "" {
			return &ConflictError{[]string{e.ID + ": " + why}}
		}
		return nil
	}
}

// Differences say in which properties an existing schedule is not what it shall be; whether it is paused is not one.
func Differences(d Schedule, e Existing) []Difference {
	var out []Difference
	add := func(property, is, shall string) {
		if is != shall {
			out = append(out, Difference{property, is, shall})
		}
	}
	add("times", e.When.String(), d.When.String())
	add("time zone", zoneName(e.TimeZone), zoneName(d.TimeZone))
	add("jitter", e.Jitter.String(), d.Jitter.String())
	add("overlap", string(e.Overlap), string(d.Overlap))
	add("catch-up window", e.CatchUp.String(), d.CatchUp.String())
	add("pause on failure", fmt.Sprint(e.PauseOnFailure), fmt.Sprint(d.PauseOnFailure))
	add("workflow", e.Workflow, d.Workflow)
	add("input", compact(e.Input), compact(d.Input))
	add("task queue", e.TaskQueue, d.TaskQueue)
	add("summary", e.Summary, d.Summary)
	return out
}

func zoneName(zone string) string {
	if zone == "" {
		return "UTC"
	}
	return zone
}

func compact(text string) string {
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		return text
	}
	return b.String()
}

// Drift is the finding that Temporal's schedules are not those of the configuration; ok is false where they are.
func (c Change) Drift() (f Finding, ok bool) {
	const mend = ": `lifeboat schedule apply` mends that"
	switch c.Action {
	case Create:
		return Finding{Kind: FindingAbsent, Text: "it is configured, and Temporal does not have it" + mend}, true
	case Update:
		var all []string
		for _, d := range c.Differences {
			all = append(all, fmt.Sprintf("%s is %s and shall be %s", d.Property, d.Is, d.Shall))
		}
		return Finding{Kind: FindingDiffers, Text: strings.Join(all, "; ") + mend}, true
	case Delete:
		return Finding{Kind: FindingExtra, Text: "Temporal has it, and it is " + c.Reason + mend}, true
	case Conflict:
		return Finding{Kind: FindingConflict, Text: "its name is taken: " + c.Reason}, true
	}
	return f, false
}

// Count is how many changes are of one of the actions.
func (p Plan) Count(actions ...Action) int {
	n := 0
	for _, c := range p.Changes {
		if slices.Contains(actions, c.Action) {
			n++
		}
	}
	return n
}

// Conflicts is an error if the plan would have to change what is not ours; nil otherwise.
func (p Plan) Conflicts() error {
	var all []string
	for _, c := range p.Changes {
		if c.Action == Conflict {
			all = append(all, fmt.Sprintf("%s: %s", c.ID, c.Reason))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &ConflictError{all}
}

// ConflictError says that ids which the plan needs are taken. Nothing was changed.
type ConflictError struct{ Conflicts []string }

// Error names each.
func (e *ConflictError) Error() string {
	return "schedules of these names are not ours to change: " + strings.Join(e.Conflicts, "; ")
}

// Remedy is what to do about it.
func (e *ConflictError) Remedy() string {
	return "see who made them in Temporal's UI; remove them by `temporal schedule delete --schedule-id ID`, or name the cluster otherwise, and apply again"
}
