package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"lifeboat/internal/contract"
)

const (
	// lineEvery is the least time between two plain lines of one phase.
	lineEvery = 5 * time.Second
	// askEvery is how often a run is asked how far it is.
	askEvery = time.Second
	barWidth = 24
)

// meter shows progress: a bar on a terminal, a line now and then elsewhere. The nil meter shows nothing.
type meter struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	phase    string
	line     string
	at       time.Time
	drawn    bool
}

func (a *app) newMeter() *meter {
	if a.quiet || a.json {
		return nil
	}
	return &meter{out: a.stderr, terminal: a.isTerminal(a.stderr)}
}

// show may be called from any goroutine.
func (m *meter) show(p contract.Progress) {
	if m == nil || p.Phase == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	line := progressLine(p)
	if line == m.line {
		return
	}
	if m.terminal {
		fmt.Fprintf(m.out, "\r\x1b[K%s%s", bar(p), line)
		m.drawn, m.line = true, line
		return
	}
	if p.Phase != m.phase || time.Since(m.at) >= lineEvery {
		fmt.Fprintln(m.out, line)
		m.phase, m.line, m.at = p.Phase, line, time.Now()
	}
}

// end leaves the bar behind.
func (m *meter) end() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drawn {
		fmt.Fprintln(m.out)
		m.drawn = false
	}
}

func bar(p contract.Progress) string {
	if p.Total <= 0 {
		return ""
	}
	full := int(min(p.Done, p.Total) * barWidth / p.Total)
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] "
}

func progressLine(p contract.Progress) string {
	s := p.Phase
	switch {
	case p.Total > 0:
		s += fmt.Sprintf(" %d%% of %s", min(100, p.Done*100/p.Total), size(p.Total))
	case p.Done > 0:
		s += " " + size(p.Done)
	}
	if p.Rate > 0 {
		s += fmt.Sprintf(" at %s/s", size(int64(p.Rate)))
	}
	if p.Waiting != "" {
		s += ", waiting for " + p.Waiting
	}
	return s
}

// follow shows the heartbeats of a run's activities until stopped.
func (a *app) follow(ctx context.Context, c client.Client, run client.WorkflowRun) (stop func()) {
	m := a.newMeter()
	if m == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			m.ask(ctx, c, run)
		}
	}()
	return func() { cancel(); <-ended; m.end() }
}

// ask shows what one look at a run tells. A look that fails is no news: the next one may not.
func (m *meter) ask(ctx context.Context, c client.Client, run client.WorkflowRun) {
	d, err := c.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID())
	if err != nil {
		return
	}
	for _, act := range d.GetPendingActivities() {
		if failed := act.GetLastFailure(); failed != nil && act.GetAttempt() > 1 {
			m.show(contract.Progress{Phase: fmt.Sprintf("%s, attempt %d after: %s", act.GetActivityType().GetName(),
				act.GetAttempt(), failed.GetMessage())})
		}
		var p contract.Progress
		if converter.GetDefaultDataConverter().FromPayloads(act.GetHeartbeatDetails(), &p) == nil {
			m.show(p)
		}
	}
}
