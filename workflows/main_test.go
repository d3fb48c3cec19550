package workflows

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a goroutine is left, but for those that the SDK's test environment leaves for each activity that a
// cancelled workflow did not wait for: the one that runs it, and the one that watches its timeouts.
func TestMain(m *testing.M) {
	const env = "go.temporal.io/sdk/internal.(*testWorkflowEnvironmentImpl)."
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction(env+"executeActivityWithRetryForTest"),
		goleak.IgnoreTopFunction(env+"ExecuteActivity.func2"))
}
