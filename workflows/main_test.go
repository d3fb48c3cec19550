package workflows

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a goroutine is left, but for those that the SDK's test environment leaves for each activity that a
// cancelled workflow did not wait for.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(
		"go.temporal.io/sdk/internal.(*testWorkflowEnvironmentImpl).executeActivityWithRetryForTest"))
}
