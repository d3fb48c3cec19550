package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

// tellEvery is how often a statement that is still running is told of. A worker that told nothing for quietMost would be
// taken for hung, and its work given to another: building an index may take longer.
const tellEvery = time.Minute

// teller shows the events of a migration as progress, and how long the last one has lasted.
type teller struct {
	run Run

	mu    sync.Mutex
	last  contract.Progress
	since time.Time
}

// tellMigration tells until stopped.
func tellMigration(ctx context.Context, run Run) (tell func(migrate.Event), stop func()) {
	t := &teller{run: run}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if p, ok := t.lasting(now); ok {
					run.Progress(p)
				}
			}
		}
	}()
	return t.tell, func() { cancel(); <-ended }
}

func (t *teller) tell(e migrate.Event) {
	p := MigrationProgress(e)
	t.mu.Lock()
	if p.Phase != t.last.Phase {
		t.since = time.Now()
	}
	t.last = p
	t.mu.Unlock()
	t.run.Progress(p)
}

// lasting is the last event with its age.
func (t *teller) lasting(now time.Time) (contract.Progress, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.last
	p.Phase += fmt.Sprintf(", for %d min", int(now.Sub(t.since).Minutes()))
	return p, t.last.Phase != ""
}
