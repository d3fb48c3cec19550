package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"lifeboat/internal/contract"
)

// Registry is the part of a Temporal worker that Register needs.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

// Register binds a Runner's methods to a worker, under the contract's names.
func Register(to Registry, r *Runner) {
	register(to, r.set.Logger, contract.PlanBackupActivity, r.PlanBackup)
	register(to, r.set.Logger, contract.TakeBackupActivity, r.TakeBackup)
	register(to, r.set.Logger, contract.PlanRestoreActivity, r.PlanRestore)
	register(to, r.set.Logger, contract.LayFilesActivity, r.LayFiles)
	register(to, r.set.Logger, contract.StartServerActivity, r.StartServer)
	register(to, r.set.Logger, contract.PrepareDrillActivity, r.PrepareDrill)
	register(to, r.set.Logger, contract.ProveRecoveryActivity, r.ProveRecovery)
	register(to, r.set.Logger, contract.CleanUpDrillActivity, r.CleanUpDrill)
	register(to, r.set.Logger, contract.PublishReportActivity, r.PublishReport)
	register(to, r.set.Logger, contract.VerifyBackupsActivity, r.VerifyBackups)
	register(to, r.set.Logger, contract.PlanMigrationActivity, r.PlanMigration)
	register(to, r.set.Logger, contract.RehearseMigrationActivity, r.RehearseMigration)
	register(to, r.set.Logger, contract.MarkRestorePointActivity, r.MarkRestorePoint)
	register(to, r.set.Logger, contract.ApplyMigrationActivity, r.ApplyMigration)
	register(to, r.set.Logger, contract.CheckMigratedActivity, r.CheckMigrated)
	register(to, r.set.Logger, contract.RevertMigrationActivity, r.RevertMigration)
	register(to, r.set.Logger, contract.CheckHealthActivity, r.CheckHealth)
}

func register[In, Out any](to Registry, logger *slog.Logger, name string, work func(context.Context, In, Run) (Out, error)) {
	to.RegisterActivityWithOptions(func(ctx context.Context, in In) (Out, error) {
		ctx, stop := stoppable(ctx)
		defer stop()
		info := activity.GetInfo(ctx)
		said := newProgressLog(logger, info)
		said.begin()
		b := newBeater(func(p contract.Progress) { activity.RecordHeartbeat(ctx, p) }, time.Now)
		end := b.keep(ctx, beatInterval(info.HeartbeatTimeout))
		silence := announce(ctx, b.latest, info)
		out, err := work(ctx, in, Run{WorkflowID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID, Progress: func(p contract.Progress) {
			said.show(p)
			b.progress(p)
		}})
		silence()
		end()
		err = applicationError(ctx, err)
		said.end(err)
		return out, err
	}, activity.RegisterOptions{Name: name})
}

// stoppable ends an activity's context also when its worker stops, so that the work is handed on at once.
func stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := activity.GetWorkerStopChannel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// beater turns progress into heartbeats. What an engine reports is sent when it changed; between reports the last one
// is repeated, but only for so long: a work that counts bytes and has not moved for stalledAfter, or is silent for
// quietMost without counting, is taken for hung, and Temporal's heartbeat timeout gives it to another attempt.
type beater struct {
	send func(contract.Progress)
	now  func() time.Time

	mu      sync.Mutex
	last    contract.Progress
	changed time.Time
	// from and since begin the stretch over which the rate is measured.
	from  int64
	since time.Time
}

func newBeater(send func(contract.Progress), now func() time.Time) *beater {
	return &beater{send: send, now: now, changed: now()}
}

const (
	beatEvery    = 5 * time.Second // unless a short heartbeat timeout asks for more
	rateWindow   = 5 * time.Second // a rate over less jumps about
	stalledAfter = 10 * time.Minute
	quietMost    = 6 * time.Hour // a check of a large cluster by PostgreSQL's own programs reports nothing

	// phaseWAL is a backup's wait for its WAL, which counts bytes but has a patience of its own: Settings.WALTimeout.
	phaseWAL = "wal"
)

func (b *beater) progress(p contract.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if p.Phase == b.last.Phase && p.Done == b.last.Done && p.Waiting == b.last.Waiting {
		return
	}
	took := now.Sub(b.since)
	if p.Phase == b.last.Phase && p.Done > b.from && took > 0 {
		p.Rate = float64(p.Done-b.from) / took.Seconds()
	}
	if p.Phase != b.last.Phase || p.Done < b.from || took >= rateWindow {
		b.from, b.since = p.Done, now
	}
	b.last, b.changed = p, now
	b.send(p)
}

// latest is the last report.
func (b *beater) latest() contract.Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// beatInterval is how often to beat so that a timeout notices the dead and not the slow.
func beatInterval(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return beatEvery
	}
	return min(beatEvery, timeout/3)
}

// beat repeats the last report, unless the work seems to hang.
func (b *beater) beat() {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := quietMost
	if b.last.Total > 0 && b.last.Phase != phaseWAL {
		limit = stalledAfter
	}
	if b.now().Sub(b.changed) < limit {
		b.send(b.last)
	}
}

// keep beats until stopped, or until ctx ends.
func (b *beater) keep(ctx context.Context, every time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.beat()
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
