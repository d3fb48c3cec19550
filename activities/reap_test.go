package activities

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/recovery"
)

// A reaper removes what dead runs left, and nothing else (R21).
func TestReap_OnlyTheDead(t *testing.T) {
	r, _, _ := memoryRunner(t, nil)
	old := time.Now().Add(-2 * unknownAge)
	errNoAnswer := errors.New("no answer")
	state := func(_ context.Context, workflow, _ string) (RunState, error) {
		switch workflow {
		case "alive":
			return RunAlive, nil
		case "ended":
			return RunEnded, nil
		case "silent":
			return RunUnknown, errNoAnswer
		}
		return RunUnknown, nil
	}
	for _, c := range []struct {
		name   string
		run    Run
		old    bool // its claim
		bare   bool // its directory holds nothing of Lifeboat's
		held   bool // its lock
		stays  bool
		failed bool
	}{
		{name: "ended", run: Run{WorkflowID: "ended", RunID: "r"}},
		{name: "alive", run: Run{WorkflowID: "alive", RunID: "r"}, old: true, stays: true},
		{name: "Temporal does not answer", run: Run{WorkflowID: "silent", RunID: "r"}, old: true, stays: true, failed: true},
		{name: "unknown, young", run: Run{WorkflowID: "lost", RunID: "r"}, stays: true},
		{name: "unknown, old", run: Run{WorkflowID: "lost", RunID: "r"}, old: true},
		{name: "without Temporal, dead", run: Run{WorkflowID: "local-1"}},
		{name: "without Temporal, alive", run: Run{WorkflowID: "local-1"}, old: true, held: true, stays: true},
		{name: "nothing written, young", stays: true},
		{name: "nothing written, old", old: true},
		{name: "somebody's files", run: Run{WorkflowID: "ended", RunID: "r"}, bare: true, stays: true, failed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(r.set.WorkDir, drillPrefix+"d")
			name := recovery.MarkerFile
			if c.bare {
				name = "thesis.txt"
			}
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600)); err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			lay := func() error { return writeClaim(dir, c.run) }
			if c.held {
				lay = func() error {
					f, err := holdClaim(dir, c.run)
					t.Cleanup(func() { _ = f.Close() })
					return err
				}
			} else if c.run.WorkflowID == "" {
				lay = func() error { return os.WriteFile(dir+claimSuffix, nil, 0o600) }
			}
			if err := lay(); err != nil {
				t.Fatal(err)
			}
			if c.old {
				if err := os.Chtimes(dir+claimSuffix, old, old); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Reap(t.Context(), state); (err != nil) != c.failed {
				t.Errorf("reaping: %v", err)
			}
			_, err := os.Stat(dir)
			_, cerr := os.Stat(dir + claimSuffix)
			if stays := err == nil; stays != c.stays || (cerr == nil) != c.stays {
				t.Errorf("directory: %v, claim: %v, want them to stay: %v", err, cerr, c.stays)
			}
			_ = os.Remove(dir + claimSuffix)
		})
	}
}

// A drill says whose it is before it lays a file, and no more once it was cleaned up.
func TestClaim_FromPreparationToCleanUp(t *testing.T) {
	r, _, _ := memoryRunner(t, nil)
	run := testRun()
	run.RunID = "run-7"
	out, err := r.PrepareDrill(t.Context(), contract.PrepareDrillInput{Cluster: "c1", DrillID: "d", Target: contract.Target{Kind: "latest"}}, run)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out.TargetDir + claimSuffix)
	if want := `{"workflowId":"` + run.WorkflowID + `","runId":"run-7"}`; err != nil || string(data) != want {
		t.Errorf("the claim is %s (%v), want %s", data, err, want)
	}
	if _, err := r.CleanUpDrill(t.Context(), contract.CleanUpDrillInput{TargetDir: out.TargetDir, DrillID: "d"}, run); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out.TargetDir + claimSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the claim after clean-up: %v", err)
	}
}
