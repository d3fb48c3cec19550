package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// Registry is what workflows are registered with: a worker, a replayer or a test environment.
type Registry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
	RegisterDynamicWorkflow(w any, options workflow.DynamicRegisterOptions)
}

// Register registers all workflows with the default Options.
func Register(w Registry) { Options{}.Register(w) }

// Register registers all workflows under the names of package contract, and an answer to unknown names: without it a
// mistyped workflow type would be tried for ever, with nothing in the UI but a failing workflow task.
//
// It panics, as the SDK does, if a name or a dynamic workflow is already registered.
func (o Options) Register(w Registry) {
	o = o.withDefaults()
	for _, known := range []struct {
		name string
		run  any
	}{
		{contract.BackupWorkflow, single(o.backup)},
		{contract.RestoreWorkflow, single(o.restore)},
		{contract.DrillWorkflow, single(o.drill)},
		{contract.VerifyWorkflow, single(o.verify)},
		{contract.HealthWorkflow, single(o.health)},
		{contract.MigrateWorkflow, single(o.migrate)},
	} {
		w.RegisterWorkflowWithOptions(known.run, workflow.RegisterOptions{Name: known.name})
	}
	w.RegisterDynamicWorkflow(unknown, workflow.DynamicRegisterOptions{})
}

// Names lists the workflow types that Register knows.
func Names() []string {
	return []string{
		contract.BackupWorkflow, contract.RestoreWorkflow, contract.DrillWorkflow, contract.VerifyWorkflow, contract.HealthWorkflow,
		contract.MigrateWorkflow,
	}
}

// single makes a workflow of one raw argument refuse a second one. The SDK drops arguments that a function does not
// take, and a person who gave two would wait for the second to matter. With one argument the extra one is empty.
func single[Out any](run func(workflow.Context, converter.RawValue) (Out, error)) any {
	return func(ctx workflow.Context, in, extra converter.RawValue) (Out, error) {
		if extra.Payload() != nil {
			var none Out
			return none, invalidInput("input must be a single JSON object: there are several arguments")
		}
		return run(ctx, in)
	}
}

// unknown answers all other workflow types.
func unknown(ctx workflow.Context, _ converter.EncodedValues) error {
	return invalidInput(fmt.Sprintf("unknown workflow type %q: use %s",
		workflow.GetInfo(ctx).WorkflowType.Name, strings.Join(Names(), ", ")))
}

func invalidInput(message string) error {
	return temporal.NewNonRetryableApplicationError(message, contract.ErrorInvalidInput, nil)
}
