package workflows

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// replayFolder holds histories as `temporal workflow show --output json` prints them. Those of a release stay as they
// are: a change that breaks them breaks the runs that are under way when it is installed, and needs
// workflow.GetVersion. TestServer records them with -update.
const replayFolder = "testdata/replay"

// Recorded runs replay with the code as it is now.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(replayFolder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no histories in %s: nothing proves that runs survive a change of this package; "+
			"record some with go test -run TestServer -update, with TEMPORAL_DEV_SERVER set", replayFolder)
	}
	types := map[string]int{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if err := newReplayer(t, Register).ReplayWorkflowHistoryFromJSONFile(quiet{}, file); err != nil {
				t.Errorf("the run would not survive this version: %v", err)
			}
			types[firstEvent(t, file).GetWorkflowType().GetName()]++
		})
	}
	for _, name := range Names() {
		if types[name] == 0 {
			t.Errorf("no history of workflow %s in %s", name, replayFolder)
		}
	}
}

// The replay must be able to fail: a workflow that does something else is noticed.
func TestReplayNoticesChange(t *testing.T) {
	changed := func(w Registry) {
		w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ converter.RawValue) (contract.BackupResult, error) {
			return contract.BackupResult{}, nil
		}, workflow.RegisterOptions{Name: contract.BackupWorkflow})
	}
	err := newReplayer(t, changed).ReplayWorkflowHistoryFromJSONFile(quiet{}, filepath.Join(replayFolder, "backup.json"))
	if err == nil || !strings.Contains(err.Error(), "TMPRL1100") {
		t.Errorf("replay with another workflow gave %v, want a nondeterminism error", err)
	}
}

func newReplayer(t *testing.T, register func(Registry)) worker.WorkflowReplayer {
	t.Helper()
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	register(r)
	return r
}

func firstEvent(t *testing.T, file string) *historypb.WorkflowExecutionStartedEventAttributes {
	t.Helper()
	history, err := client.HistoryFromJSON(mustOpen(t, file), client.HistoryJSONOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes()
}

// encodeHistory writes a history as the replayer reads it. The indentation is ours because that of protojson differs
// from build to build, on purpose.
func encodeHistory(t *testing.T, history *historypb.History) []byte {
	t.Helper()
	raw, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(history)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", " "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}
