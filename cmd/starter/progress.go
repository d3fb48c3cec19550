package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"golang.org/x/sys/unix"

	"lifeboat/internal/contract"
)

const (
	// lineEvery is the least time between two plain lines of one phase.
	lineEvery = 5 * time.Second
	// askEvery is how often a run is asked how far it is.
	askEvery = time.Second
	barWidth = 24
)

// bottomLine keeps a bar at the bottom of a terminal, below all that is written meanwhile. As a Writer it takes whole
// lines, such as those of a log. The zero value, with out, has no bar. It may be used from any goroutine.
type bottomLine struct {
	out  io.Writer
	mu   sync.Mutex
	text string
}

const clearLine = "\r\x1b[K"

func (b *bottomLine) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text == "" {
		return b.out.Write(p)
	}
	fmt.Fprint(b.out, clearLine)
	n, err := b.out.Write(p)
	fmt.Fprint(b.out, b.text)
	return n, err
}

// draw replaces the bar.
func (b *bottomLine) draw(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = fit(text, columns(b.out))
	fmt.Fprint(b.out, clearLine+b.text)
}

// end leaves the bar behind.
func (b *bottomLine) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text != "" {
		fmt.Fprintln(b.out)
		b.text = ""
	}
}

// fit cuts text to the columns of a terminal (0: unknown): of a line that wraps only the last part would be cleared.
func fit(text string, columns int) string {
	if r := []rune(text); columns > 0 && len(r) >= columns {
		return string(r[:columns-1])
	}
	return text
}

// columns is the width of the terminal that w is, 0 if it does not say.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// meter shows progress: a bar on a terminal, a line now and then elsewhere. The nil meter shows nothing.
type meter struct {
	bottom   *bottomLine
	terminal bool

	mu    sync.Mutex
	phase string
	line  string
	at    time.Time
}

func (a *app) newMeter() *meter {
	if a.quiet || a.json {
		return nil
	}
	return &meter{bottom: a.bottom, terminal: a.isTerminal(a.stderr)}
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
		m.bottom.draw(bar(p) + line)
		m.line = line
		return
	}
	if p.Phase != m.phase || time.Since(m.at) >= lineEvery {
		fmt.Fprintln(m.bottom, line)
		m.phase, m.line, m.at = p.Phase, line, time.Now()
	}
}

// end leaves the bar behind.
func (m *meter) end() {
	if m != nil {
		m.bottom.end()
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
