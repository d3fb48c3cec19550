package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// Options are the times after which something is given up. They may change from release to release, and from worker
// to worker, without harm to runs that are under way.
type Options struct {
	// HeartbeatTimeout is after how long without a heartbeat a worker counts as dead, and its activity is tried
	// again. 0 means 30 s. It must be well above the interval at which activities report progress.
	HeartbeatTimeout time.Duration
	// HostTimeout is how long a host's queue may stay without a worker that takes the work. 0 means 2 min. Cleaning
	// up waits five times as long: it is the last chance to leave nothing behind.
	HostTimeout time.Duration
}

const (
	defaultHeartbeatTimeout = 30 * time.Second
	defaultHostTimeout      = 2 * time.Minute

	// longest bounds one attempt at what grows with the size of a cluster; the heartbeat notices a dead attempt long
	// before.
	longest = 48 * time.Hour
	// short bounds one attempt at what does not.
	short = time.Hour

	// maxSummary keeps a summary within the 400 bytes that servers allow by default (their setting
	// limit.userMetadataSummarySize; server 1.32.1 does not hold activities to it yet).
	maxSummary = 300
)

func (o Options) withDefaults() Options {
	if o.HeartbeatTimeout == 0 {
		o.HeartbeatTimeout = defaultHeartbeatTimeout
	}
	if o.HostTimeout == 0 {
		o.HostTimeout = defaultHostTimeout
	}
	return o
}

// limits are how often and how long one activity is tried. With pauses of 1 s, 2 s, 4 s up to a minute, n attempts that
// fail at once take about n minutes.
type limits struct {
	attempts int32
	attempt  time.Duration // of one attempt
	overall  time.Duration // of all attempts; 0: no limit but the attempts
	// hostWait multiplies Options.HostTimeout; 0 counts as 1.
	hostWait int
}

// limitsOf says how patient a run is with each activity.
func limitsOf(activity string) limits {
	switch activity {
	case contract.TakeBackupActivity:
		// An hour's outage is survived. Each attempt reads the whole cluster again (R6), so all together end with the
		// third day, when the next scheduled backups are worth more than this one.
		return limits{attempts: 60, attempt: longest, overall: 72 * time.Hour}
	case contract.PlanBackupActivity:
		// It may ask servers that are down, and is as patient as what follows.
		return limits{attempts: 60, attempt: short}
	case contract.LayFilesActivity:
		// In a disaster nothing is worse than giving up, and what is laid is kept: about a day.
		return limits{attempts: 1440, attempt: longest}
	case contract.StartServerActivity:
		return limits{attempts: 20, attempt: longest}
	case contract.ProveRecoveryActivity:
		// A server that dies again and again is a finding, not bad luck.
		return limits{attempts: 5, attempt: longest}
	case contract.VerifyBackupsActivity:
		// Each attempt reads everything again; what is wrong with a backup is a result and no failure.
		return limits{attempts: 20, attempt: longest}
	case contract.CheckHealthActivity:
		// The next check comes soon, and knows more.
		return limits{attempts: 3, attempt: 3 * time.Minute, overall: 5 * time.Minute}
	case contract.RehearseMigrationActivity:
		// Each attempt after the first restores anew.
		return limits{attempts: 5, attempt: longest}
	case contract.ApplyMigrationActivity, contract.RevertMigrationActivity:
		// An attempt goes on where a dead one stopped, so that an hour's outage leaves nothing half-way.
		return limits{attempts: 60, attempt: longest}
	case contract.CleanUpDrillActivity:
		return limits{attempts: 120, attempt: short, hostWait: 5}
	case contract.PublishReportActivity:
		// Evidence is lost if this gives up: about four hours.
		return limits{attempts: 240, attempt: short}
	}
	// PlanRestore and PrepareDrill: nothing is at stake yet, and a person may be waiting.
	return limits{attempts: 30, attempt: short}
}

// neverRetried are the types of errors that trying again does not mend.
func neverRetried() []string {
	return []string{
		contract.ErrorInvalidInput, contract.ErrorRefused, contract.ErrorBusy, contract.ErrorConfiguration,
		contract.ErrorFailed,
	}
}

// activityOptions are the options of one call. WaitForCancellation, because a run may only end when its activity has:
// otherwise a drill would clean up under a server that still runs.
func (o Options) activityOptions(c call) workflow.ActivityOptions {
	l := limitsOf(c.activity)
	options := workflow.ActivityOptions{
		ScheduleToCloseTimeout: l.overall,
		StartToCloseTimeout:    l.attempt,
		HeartbeatTimeout:       o.HeartbeatTimeout,
		WaitForCancellation:    true,
		Summary:                summarize(c.summary),
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:        time.Second,
			BackoffCoefficient:     2,
			MaximumInterval:        time.Minute,
			MaximumAttempts:        l.attempts,
			NonRetryableErrorTypes: neverRetried(),
		},
	}
	if c.host != "" {
		options.TaskQueue = c.queue
		options.ScheduleToStartTimeout = o.hostTimeout(c)
	}
	return options
}

func (o Options) hostTimeout(c call) time.Duration {
	return time.Duration(max(1, limitsOf(c.activity).hostWait)) * o.HostTimeout
}
