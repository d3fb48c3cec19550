package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"lifeboat/internal/contract"
)

// progressLog tells the worker's log, at level debug, where an activity is: when it begins and ends, at each phase, and
// at each tenth of one. Heartbeats are throttled and die with a killed worker; these lines do not.
type progressLog struct {
	log *slog.Logger

	mu    sync.Mutex
	phase string
	tenth int
}

func newProgressLog(log *slog.Logger, info activity.Info) *progressLog {
	return &progressLog{log: log.With("activity", info.ActivityType.Name, "workflow", info.WorkflowExecution.ID, "attempt", info.Attempt)}
}

func (l *progressLog) begin() { l.log.Debug("activity begins") }

func (l *progressLog) end(err error) { l.log.Debug("activity ended", "error", err) }

func (l *progressLog) show(p contract.Progress) {
	share, known := p.Share()
	tenth := int(share * 10)
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Phase == l.phase && tenth == l.tenth {
		return
	}
	l.phase, l.tenth = p.Phase, tenth
	if known {
		l.log.Debug("progress", "phase", p.Phase, "percent", int(share*100))
	} else {
		l.log.Debug("progress", "phase", p.Phase)
	}
}

const (
	// announceAfter spares the history of a run the reports of activities that are soon over.
	announceAfter = 2 * time.Second
	// announceStep is the share of a phase that is worth a report.
	announceStep = 0.05
	// announceWait bounds one report: nothing depends on it.
	announceWait = 10 * time.Second
)

// announcer decides when a run's workflow is told how far an activity is. Each report stays in the run's history, so
// their number is bounded whatever the size of the work: one at each phase and at each twentieth of it, and where a phase
// does not count, or creeps, at times that grow further apart, by a fifth each.
type announcer struct {
	began, toldAt time.Time
	told          contract.Progress
}

// due tells whether p is worth a report now, and takes it for reported if so.
func (a *announcer) due(p contract.Progress, now time.Time) bool {
	if p.Phase == "" || now.Sub(a.began) < announceAfter {
		return false
	}
	share, _ := p.Share()
	before, _ := a.told.Share()
	grown := max(10*time.Second, now.Sub(a.began)/5)
	if p.Phase == a.told.Phase && share < before+announceStep && now.Sub(a.toldAt) < grown {
		return false
	}
	a.told, a.toldAt = p, now
	return true
}

// announce signals an activity's workflow from time to time, until stopped. A signal that fails is not repeated.
func announce(ctx context.Context, latest func() contract.Progress, info activity.Info) (stop func()) {
	client := activity.GetClient(ctx)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		a := &announcer{began: time.Now()}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now, p := time.Now(), latest()
			if !a.due(p, now) {
				continue
			}
			wait, done := context.WithTimeout(ctx, announceWait)
			_ = client.SignalWorkflow(wait, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, contract.ProgressSignal,
				contract.ProgressReport{Activity: info.ActivityType.Name, Attempt: info.Attempt, At: now.UTC(), Progress: p})
			done()
		}
	}()
	return func() { cancel(); <-ended }
}
