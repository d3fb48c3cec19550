package schedule

import (
	"time"

	"lifeboat/internal/contract"
)

// Verb is what a schedule starts, as part of its id: the configuration's key with hyphens.
type Verb string

// The verbs, in the order in which they are shown.
const (
	BackupFull        Verb = "backup-full"
	BackupIncremental Verb = "backup-incremental"
	BackupLogical     Verb = "backup-logical"
	Verify            Verb = "verify"
	DrillTable        Verb = "drill-table"
	DrillRestore      Verb = "drill-restore"
	DrillDisaster     Verb = "drill-disaster"
	Health            Verb = "health"
)

// Verbs lists them all.
func Verbs() []Verb {
	var out []Verb
	for _, v := range verbs {
		out = append(out, v.verb)
	}
	return out
}

// Overlap is what happens to a start while the run before is still going. Temporal has more; these are in use.
type Overlap string

// OverlapSkip drops the start. See docs/schedules.md for why no verb has another policy.
const OverlapSkip Overlap = "skip"

// policy is how a verb is scheduled.
type policy struct {
	overlap Overlap
	// catchUp is how late a start is still worth making, after Temporal was down. Temporal's least is 10 s.
	catchUp time.Duration
	// jitter is the most by which a start is delayed, so that clusters of one plan do not start at once; never more than a
	// tenth of the time between two starts.
	jitter time.Duration
}

// input is what a workflow is started with.
type input interface{ Validate() error }

type verbInfo struct {
	verb     Verb
	workflow string
	policy   policy
	summary  string
	input    func(cluster string) input
	// remark is shown beside the schedule: what the name might promise and this version does not do.
	remark string
}

const day = 24 * time.Hour

// verbs is the table of docs/schedules.md; a test compares them.
var verbs = []verbInfo{
	{
		BackupFull, contract.BackupWorkflow,
		policy{OverlapSkip, 12 * time.Hour, 5 * time.Minute},
		"full backup",
		func(c string) input { return &contract.BackupInput{Cluster: c, Type: contract.TypeFull} }, "",
	},
	{
		BackupIncremental, contract.BackupWorkflow,
		policy{OverlapSkip, 3 * time.Hour, 5 * time.Minute},
		"incremental backup",
		func(c string) input { return &contract.BackupInput{Cluster: c, Type: contract.TypeIncremental} }, "",
	},
	{
		BackupLogical, contract.BackupWorkflow,
		policy{OverlapSkip, 12 * time.Hour, 5 * time.Minute},
		"logical backup",
		func(c string) input { return &contract.BackupInput{Cluster: c, Type: contract.TypeLogical} }, "",
	},
	{
		Verify, contract.VerifyWorkflow,
		policy{OverlapSkip, 12 * time.Hour, 10 * time.Minute},
		"verification",
		func(c string) input { return &contract.VerifyInput{Cluster: c} }, "",
	},
	{
		DrillTable, contract.DrillWorkflow,
		policy{OverlapSkip, day, 15 * time.Minute},
		"restore test of a table",
		func(c string) input { return &contract.DrillInput{Cluster: c, Scenario: scenarioTable} }, "",
	},
	{
		DrillRestore, contract.DrillWorkflow,
		policy{OverlapSkip, 3 * day, 15 * time.Minute},
		"restore test",
		func(c string) input { return &contract.DrillInput{Cluster: c, Scenario: contract.ScenarioRestore} }, "",
	},
	{
		DrillDisaster, contract.DrillWorkflow,
		policy{OverlapSkip, 7 * day, 15 * time.Minute},
		"disaster drill",
		func(c string) input { return &contract.DrillInput{Cluster: c, Scenario: contract.ScenarioRestore} },
		"runs scenario restore: this version has none of its own for a disaster",
	},
	{
		Health, contract.HealthWorkflow,
		policy{OverlapSkip, time.Minute, 5 * time.Second},
		"health check",
		func(c string) input { return &contract.HealthCheckInput{Cluster: c} }, "",
	},
}

// scenarioTable is the scenario of a drill that restores one table. Until the contract knows it, its input is not valid,
// and its schedule is SKIPPED.
const scenarioTable = "table"

func infoOf(v Verb) (verbInfo, bool) {
	for _, info := range verbs {
		if info.verb == v {
			return info, true
		}
	}
	return verbInfo{}, false
}
