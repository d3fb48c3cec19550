package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// ProgressQuery is the name of the query that answers with a Progress.
const ProgressQuery = "progress"

// Progress is how far a run is, as query "progress" tells it.
type Progress struct {
	Workflow string `json:"workflow"`
	Cluster  string `json:"cluster"`
	// Subject says what the run is about, for people.
	Subject string  `json:"subject"`
	Phases  []Phase `json:"phases"`
	// Waiting says what is awaited; empty when the run has ended.
	Waiting string `json:"waiting,omitempty"`
	// Outcome says how the run ended; empty before.
	Outcome string `json:"outcome,omitempty"`
	// Verdict is that of a drill or verification, Checks are those of a drill, once known.
	Verdict contract.Verdict       `json:"verdict,omitempty"`
	Checks  []contract.CheckResult `json:"checks,omitempty"`
}

// Phase is one step of a run.
type Phase struct {
	Name  string     `json:"name"`
	State PhaseState `json:"state"`
	// StartedAt is null for a phase that has not begun.
	StartedAt *time.Time `json:"startedAt"`
	// Seconds is how long a finished phase took, all attempts and waiting included.
	Seconds float64 `json:"seconds,omitempty"`
	// Note holds figures, or the reason of a failure.
	Note string `json:"note,omitempty"`
	// Report is the last one of an active phase; null if there was none yet. It is minutes old where little happens.
	Report *contract.ProgressReport `json:"report,omitempty"`

	activity string
}

// PhaseState is the state of a phase.
type PhaseState string

// The states. A phase that is pending when the run has ended was not reached.
const (
	PhasePending PhaseState = "pending"
	PhaseActive  PhaseState = "active"
	PhaseDone    PhaseState = "done"
	PhaseFailed  PhaseState = "failed"
)

// Names of phases, as shown and as values of the search attribute.
const (
	phaseBackup  = "take backup"
	phasePrepare = "prepare"
	phasePlan    = "plan"
	phaseFiles   = "lay files"
	phaseServer  = "start server"
	phaseProve   = "prove recovery"
	phaseCleanUp = "clean up"
	phaseReport  = "publish report"
	phaseVerify  = "verify"
	phaseHealth  = "check health"

	phaseEndedDone      = "done"
	phaseEndedFailed    = "failed"
	phaseEndedCancelled = "cancelled"
)

var (
	attributeCluster = temporal.NewSearchAttributeKeyKeyword(contract.AttributeCluster)
	attributePhase   = temporal.NewSearchAttributeKeyKeyword(contract.AttributePhase)
	attributeVerdict = temporal.NewSearchAttributeKeyKeyword(contract.AttributeVerdict)
)

// tracker shows people how far a run is. It belongs to one run.
type tracker struct {
	options  Options
	progress Progress
}

// track begins to show a run of the named phases.
func (o Options) track(ctx workflow.Context, cluster, subject string, phases ...string) (*tracker, error) {
	t := &tracker{options: o, progress: Progress{
		Workflow: workflow.GetInfo(ctx).WorkflowType.Name,
		Cluster:  cluster,
		Subject:  subject,
	}}
	for _, name := range phases {
		t.progress.Phases = append(t.progress.Phases, Phase{Name: name, State: PhasePending})
	}
	answer := func() (Progress, error) { return t.progress, nil }
	options := workflow.QueryHandlerOptions{Description: "How far the run is: phases, figures, what is awaited."}
	if err := workflow.SetQueryHandlerWithOptions(ctx, ProgressQuery, answer, options); err != nil {
		return nil, err
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, attributeCluster.ValueSet(cluster)); err != nil {
		return nil, err
	}
	t.hear(ctx)
	t.show(ctx)
	return t, nil
}

// phase runs one activity as a phase. figures tells the person what came out; it is not called on failure.
func phase[In, Out any](ctx workflow.Context, t *tracker, name string, c call, in In, figures func(Out) string) (Out, error) {
	p, err := t.begin(ctx, name, c)
	if err != nil {
		var none Out
		return none, err
	}
	out, err := execute[In, Out](ctx, t.options, c, in)
	p.Seconds, p.Report = workflow.Now(ctx).Sub(*p.StartedAt).Seconds(), nil
	if err != nil {
		p.State, p.Note = PhaseFailed, reason(err)
		if temporal.IsCanceledError(err) {
			p.Note = "cancelled"
		}
	} else {
		p.State, p.Note = PhaseDone, figures(out)
	}
	t.show(ctx)
	return out, err
}

func (t *tracker) begin(ctx workflow.Context, name string, c call) (*Phase, error) {
	p := t.find(name)
	at := workflow.Now(ctx).UTC()
	p.State, p.StartedAt, p.activity = PhaseActive, &at, c.activity
	t.progress.Waiting = c.summary
	if c.host != "" {
		t.progress.Waiting += ", by the worker of host " + c.host
	}
	t.show(ctx)
	return p, workflow.UpsertTypedSearchAttributes(ctx, attributePhase.ValueSet(name))
}

// find returns the phase of that name, which track was given.
func (t *tracker) find(name string) *Phase {
	i := slices.IndexFunc(t.progress.Phases, func(p Phase) bool { return p.Name == name })
	return &t.progress.Phases[i]
}

// finish shows how the run ended, and returns the error with which the workflow must end: a cancelled run ends as
// cancelled, whatever its last activity made of the cancellation.
func (t *tracker) finish(ctx workflow.Context, outcome string, err error) error {
	ended := phaseEndedDone
	switch {
	case err != nil && (ctx.Err() != nil || temporal.IsCanceledError(err)):
		ended, outcome, err = phaseEndedCancelled, "Cancelled.", temporal.NewCanceledError()
	case err != nil:
		ended, outcome = phaseEndedFailed, "Failed: "+reason(err)
	}
	t.progress.Waiting, t.progress.Outcome = "", outcome
	updates := []temporal.SearchAttributeUpdate{attributePhase.ValueSet(ended)}
	if t.progress.Verdict != "" {
		updates = append(updates, attributeVerdict.ValueSet(string(t.progress.Verdict)))
	}
	t.show(ctx)
	if shown := workflow.UpsertTypedSearchAttributes(ctx, updates...); shown != nil && err == nil {
		return shown
	}
	return err
}

func (t *tracker) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, t.progress.Markdown())
}
