package health

// ScheduleProblem is something that is wrong with a schedule of the cluster, in the words of package schedule.
type ScheduleProblem struct {
	Verb string // which schedule
	// Drifted: Temporal's schedule is not that of the configuration. Otherwise a start that is due was not made.
	Drifted bool
	Text    string
}

var scheduleRules = []Rule{
	{
		ID: "schedule_overdue", Area: AreaSchedules, Severities: []Severity{Warning}, Open: openDoubt, Close: closeSure,
		When:   "a start that a schedule owes was not made, or not made because the run before is still going",
		Remedy: "`lifeboat schedule list CLUSTER` shows its last runs; `lifeboat schedule trigger CLUSTER VERB` starts one now",
		judge:  func(s *Snapshot, _ Limits) []sight { return scheduleSights(s, false) },
	},
	{
		ID: "schedule_drift", Area: AreaSchedules, Severities: []Severity{Warning}, Open: openDoubt, Close: closeSure,
		When:   "a schedule of this worker's configuration is not in Temporal, differs there, or is there and not configured",
		Remedy: "`lifeboat schedule apply --plan` tells the differences, and `lifeboat schedule apply` mends them",
		judge:  func(s *Snapshot, _ Limits) []sight { return scheduleSights(s, true) },
	},
}

func scheduleSights(s *Snapshot, drifted bool) []sight {
	var out []sight
	for _, p := range s.Schedules {
		if p.Drifted == drifted {
			out = append(out, sight{p.Verb, Warning, p.Text, ""})
		}
	}
	return out
}
