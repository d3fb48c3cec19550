package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
)

const testHost = "db1"

// start is when runs begin in the test environment.
var start = time.Date(2026, 11, 23, 7, 45, 1, 0, time.UTC)

// seen is one attempt at an activity.
type seen struct {
	activity, queue string
	attempt         int32
	input           json.RawMessage
}

// fakes are activities that record how they were called, and return what a test sets.
type fakes struct {
	place     contract.PlanBackupResult
	backup    contract.BackupResult
	planned   contract.PlanRestoreResult
	laid      contract.LayFilesResult
	started   contract.StartServerResult
	prepared  contract.PrepareDrillResult
	proved    contract.ProveRecoveryResult
	cleaned   contract.CleanUpDrillResult
	verified  contract.VerifyResult
	healthy   contract.HealthCheckResult
	migration migrationFakes
	// published changes the report as PublishReport would.
	published func(*contract.Report)
	// before runs before the activity of that name returns; its error is the activity's.
	before map[string]func(ctx context.Context) error

	mu    sync.Mutex
	calls []seen
}

func newFakes() *fakes {
	commit := start.Add(-20 * time.Second)
	return &fakes{
		backup: contract.BackupResult{
			Cluster: "orders", BackupID: "20261123T074500Z-full", Type: contract.TypeFull, SourceBytes: 3 << 20,
			StoredBytes: 1536, Chunks: 12, NewChunks: 3,
		},
		planned: contract.PlanRestoreResult{
			Hash: "b3:1234", Summary: "backup 20261123T074500Z-full and 7 WAL segments",
			Plan: json.RawMessage(`{"hash":"b3:1234","backupId":"20261123T074500Z-full","systemIdentifier":"7300000000000000001","walSegments":7,"more":[1]}`),
		},
		laid: contract.LayFilesResult{Files: 900, Bytes: 5 << 20, ReusedBytes: 1 << 20, Seconds: 1.5},
		started: contract.StartServerResult{
			Reached: contract.Reached{LSN: "0/5000060", Timeline: 2, LastCommitAt: &commit},
			Spans:   contract.Spans{Replay: 2, Start: 0.5, Check: 0.1}, Port: 54321, Socket: "/tmp/s", PID: 77,
		},
		prepared: contract.PrepareDrillResult{
			Host: testHost, Queue: "lifeboat@" + testHost, TargetDir: "/var/tmp/drill",
			Target: contract.Target{Kind: "time", Value: start.Format(time.RFC3339)}, StartedAt: start, Canary: "canary-1",
		},
		proved: contract.ProveRecoveryResult{
			Reached: &contract.Reached{LSN: "0/5000060", Timeline: 2, LastCommitAt: &commit},
			Checks: []contract.CheckResult{
				{ID: "canary", Level: 5, Verdict: contract.Pass, Expected: "before, not after", Observed: "before, not after"},
				{ID: "orders have customers", Level: 7, Verdict: contract.Pass, Expected: "0", Observed: "0", Seconds: 0.2},
			},
			Spans: contract.Spans{Replay: 2, Start: 0.5, Check: 0.25},
		},
		cleaned: contract.CleanUpDrillResult{Removed: true},
		verified: contract.VerifyResult{
			Cluster: "orders", Verdict: contract.Fail, Level: 1, Backups: []contract.VerifiedBackup{{
				BackupID: "20261123T074500Z-full", Verdict: contract.Fail, Level: 1,
				Findings: []contract.VerifyFinding{{Level: 2, Object: "clusters/orders/wal/segments/x", Problem: "missing: there is a gap in the WAL"}},
			}},
		},
		healthy: contract.HealthCheckResult{
			Cluster: "orders", Verdict: contract.Fail, CheckedAt: start, Opened: []string{"exposure"}, Closed: []contract.HealthFinding{},
			Findings: []contract.HealthFinding{{
				ID: "exposure", Rule: "exposure", Severity: "critical", Status: contract.FindingOpen, Evidence: "too much", Remedy: "archive",
				FirstSeenAt: start, LastSeenAt: start, OpenedAt: &start,
			}},
			NotLookedAt: []contract.HealthUnseen{{Area: "disk", Reason: "no access"}},
			Positions:   []contract.HealthPosition{{At: start, LSN: "0/3000060"}},
		},
		migration: newMigrationFakes(),
		published: func(r *contract.Report) { r.DrillResult.Report = "reports/" + r.DrillID + ".json" },
		before:    map[string]func(context.Context) error{},
	}
}

type activityRegistry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

func (f *fakes) register(r activityRegistry) {
	fake(f, r, contract.PlanBackupActivity, func(contract.PlanBackupInput) contract.PlanBackupResult { return f.place })
	fake(f, r, contract.TakeBackupActivity, func(contract.TakeBackupInput) contract.BackupResult { return f.backup })
	fake(f, r, contract.PlanRestoreActivity, func(contract.PlanRestoreInput) contract.PlanRestoreResult { return f.planned })
	fake(f, r, contract.LayFilesActivity, func(contract.LayFilesInput) contract.LayFilesResult { return f.laid })
	fake(f, r, contract.StartServerActivity, func(contract.StartServerInput) contract.StartServerResult { return f.started })
	fake(f, r, contract.PrepareDrillActivity, func(contract.PrepareDrillInput) contract.PrepareDrillResult { return f.prepared })
	fake(f, r, contract.ProveRecoveryActivity, func(contract.ProveRecoveryInput) contract.ProveRecoveryResult { return f.proved })
	fake(f, r, contract.CleanUpDrillActivity, func(contract.CleanUpDrillInput) contract.CleanUpDrillResult { return f.cleaned })
	fake(f, r, contract.VerifyBackupsActivity, func(contract.VerifyInput) contract.VerifyResult { return f.verified })
	fake(f, r, contract.CheckHealthActivity, func(contract.HealthCheckInput) contract.HealthCheckResult { return f.healthy })
	f.migration.register(f, r)
	fake(f, r, contract.PublishReportActivity, func(in contract.PublishReportInput) contract.PublishReportResult {
		f.published(&in.Report)
		return contract.PublishReportResult(in)
	})
}

// fake registers one activity. It decodes its input as strictly as nobody else does: a wrong input type shows here.
func fake[In, Out any](f *fakes, r activityRegistry, name string, result func(In) Out) {
	r.RegisterActivityWithOptions(func(ctx context.Context, raw json.RawMessage) (Out, error) {
		var none Out
		info := activity.GetInfo(ctx)
		f.mu.Lock()
		f.calls = append(f.calls, seen{activity: name, queue: info.TaskQueue, attempt: info.Attempt, input: raw})
		before := f.before[name]
		f.mu.Unlock()
		in, err := contract.Decode[In](raw)
		if err != nil {
			return none, temporal.NewNonRetryableApplicationError(err.Error(), contract.ErrorInvalidInput, err)
		}
		if before != nil {
			if err := before(ctx); err != nil {
				return none, err
			}
		}
		return result(in), nil
	}, activity.RegisterOptions{Name: name})
}

// seenCalls is a copy, safe while activities run.
func (f *fakes) seenCalls() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// where lists "activity queue" of first attempts in order.
func (f *fakes) where() []string {
	var all []string
	for _, c := range f.seenCalls() {
		if c.attempt == 1 {
			all = append(all, c.activity+" "+c.queue)
		}
	}
	return all
}

// attempts counts the attempts at one activity.
func (f *fakes) attempts(activity string) int {
	n := 0
	for _, c := range f.seenCalls() {
		if c.activity == activity {
			n++
		}
	}
	return n
}

// inputOf decodes the input of the last attempt.
func inputOf[In any](t *testing.T, f *fakes, activity string) In {
	t.Helper()
	calls := f.seenCalls()
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].activity == activity {
			in, err := contract.Decode[In](calls[i].input)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
	}
	t.Fatalf("activity %s was not called", activity)
	panic("unreachable")
}

// always fails each attempt in the same way.
func always(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// failing fails the first n attempts.
func failing(n int32, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		if activity.GetInfo(ctx).Attempt <= n {
			return err
		}
		return nil
	}
}

// untilCancelled heartbeats until the activity is cancelled; begun runs once, when it has begun.
func untilCancelled(begun func()) func(context.Context) error {
	return func(ctx context.Context) error {
		begun()
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
				activity.RecordHeartbeat(ctx, contract.Progress{Phase: "waiting"})
			}
		}
	}
}

// typed is an application error as activities make them.
func typed(kind, message string) error { return temporal.NewApplicationError(message, kind) }

var errOutage = errors.New("connection refused")

func checkList(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
