package workflows

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// run is one workflow in the SDK's test environment, in which timers pass at once.
type run struct {
	t *testing.T
	*testsuite.TestWorkflowEnvironment
	fakes *fakes
	spy   *spy
}

func newRun(t *testing.T, options Options) *run {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	r := &run{t: t, TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), fakes: newFakes(), spy: &spy{}}
	r.SetStartTime(start)
	r.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "run-1", TaskQueue: contract.DefaultTaskQueue})
	r.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{r.spy}})
	r.fakes.register(r)
	options.Register(r)
	return r
}

// jsonPayload is what the Temporal UI sends for the text that a person typed.
func jsonPayload(text string) converter.RawValue {
	return converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(converter.MetadataEncodingJSON)},
		Data:     []byte(text),
	})
}

// execute runs the workflow to its end.
func (r *run) execute(workflowType string, inputs ...string) {
	r.t.Helper()
	var arguments []any
	for _, in := range inputs {
		arguments = append(arguments, jsonPayload(in))
	}
	r.ExecuteWorkflow(workflowType, arguments...)
	if !r.IsWorkflowCompleted() {
		r.t.Fatalf("workflow %s has not ended", workflowType)
	}
}

func resultOf[T any](r *run) T {
	r.t.Helper()
	if err := r.GetWorkflowError(); err != nil {
		r.t.Fatalf("workflow failed: %v", err)
	}
	var out T
	if err := r.GetWorkflowResult(&out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// failure is the workflow's error, which must have the type and contain the texts.
func (r *run) failure(kind string, texts ...string) {
	r.t.Helper()
	err := r.GetWorkflowError()
	var app *temporal.ApplicationError
	if !errors.As(err, &app) {
		r.t.Fatalf("error is %v, want an application error", err)
	}
	if app.Type() != kind {
		r.t.Errorf("error type is %q, want %q (%v)", app.Type(), kind, err)
	}
	if !app.NonRetryable() {
		r.t.Errorf("error can be retried: %v", err)
	}
	for _, text := range texts {
		if !strings.Contains(app.Message(), text) {
			r.t.Errorf("error is %q, want %q in it", app.Message(), text)
		}
	}
}

func (r *run) cancelled() {
	r.t.Helper()
	if err := r.GetWorkflowError(); !temporal.IsCanceledError(err) {
		r.t.Errorf("workflow ended with %v, want cancelled", err)
	}
}

// shown is the query's answer and the details in the UI.
func (r *run) shown() (Progress, string) {
	r.t.Helper()
	var p Progress
	answer, err := r.QueryWorkflow(ProgressQuery)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := answer.Get(&p); err != nil {
		r.t.Fatal(err)
	}
	var metadata sdkpb.WorkflowMetadata
	answer, err = r.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := answer.Get(&metadata); err != nil {
		r.t.Fatal(err)
	}
	return p, metadata.GetCurrentDetails()
}

// spy records what workflows ask of Temporal.
type spy struct {
	interceptor.WorkerInterceptorBase
	attributes []string // "Name=value" in order
	options    map[string]workflow.ActivityOptions
}

func (s *spy) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &spyInbound{interceptor.WorkflowInboundInterceptorBase{Next: next}, s}
}

type spyInbound struct {
	interceptor.WorkflowInboundInterceptorBase
	spy *spy
}

func (i *spyInbound) Init(out interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&spyOutbound{interceptor.WorkflowOutboundInterceptorBase{Next: out}, i.spy})
}

type spyOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	spy *spy
}

func (o *spyOutbound) ExecuteActivity(ctx workflow.Context, activityType string, args ...any) workflow.Future {
	if o.spy.options == nil {
		o.spy.options = map[string]workflow.ActivityOptions{}
	}
	o.spy.options[activityType] = workflow.GetActivityOptions(ctx)
	return o.Next.ExecuteActivity(ctx, activityType, args...)
}

func (o *spyOutbound) UpsertTypedSearchAttributes(ctx workflow.Context, updates ...temporal.SearchAttributeUpdate) error {
	set := temporal.NewSearchAttributes(updates...)
	for _, name := range contract.Attributes() {
		if value, ok := set.GetKeyword(temporal.NewSearchAttributeKeyKeyword(name)); ok {
			o.spy.attributes = append(o.spy.attributes, fmt.Sprintf("%s=%s", name, value))
		}
	}
	return o.Next.UpsertTypedSearchAttributes(ctx, updates...)
}

// quiet drops the SDK's log.
type quiet struct{}

var _ sdklog.Logger = quiet{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
