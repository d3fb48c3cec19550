package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// hear shows what workers report of running activities: workflows do not see heartbeats. Reports make no commands, so
// they may come, be lost or come late without any effect on the run.
func (t *tracker) hear(ctx workflow.Context) {
	reports := workflow.GetSignalChannel(ctx, contract.ProgressSignal)
	workflow.GoNamed(ctx, contract.ProgressSignal, func(ctx workflow.Context) {
		for {
			var r contract.ProgressReport
			reports.Receive(ctx, &r) // what is no report is dropped and logged by the SDK
			t.report(ctx, r)
		}
	})
}

// report shows a report if its activity is at work. One that comes late, of an attempt that another has replaced, is not
// news.
func (t *tracker) report(ctx workflow.Context, r contract.ProgressReport) {
	for i := range t.progress.Phases {
		p := &t.progress.Phases[i]
		if p.State != PhaseActive || p.activity != r.Activity || p.Report != nil && (p.Report.Attempt > r.Attempt || p.Report.At.After(r.At)) {
			continue
		}
		p.Report = &r
		t.show(ctx)
	}
}

// barWidth is how many characters a progress bar has.
const barWidth = 20

// reportLine renders a report: bar, share, rate, time left, what is awaited, and of when it is.
func reportLine(r *contract.ProgressReport) string {
	p := r.Progress
	var bar, rate, left, waiting, attempt string
	if share, ok := p.Share(); ok {
		full := int(share * barWidth)
		bar = fmt.Sprintf("`%s%s` %d %% of %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), int(share*100), formatBytes(p.Total))
	} else if p.Done > 0 {
		bar = formatBytes(p.Done)
	}
	if p.Rate > 0 {
		rate = formatBytes(int64(p.Rate)) + "/s"
	}
	if d, ok := p.Left(); ok {
		left = "about " + formatLeft(d) + " left"
	}
	if p.Waiting != "" {
		waiting = "waiting for " + escape(p.Waiting)
	}
	if r.Attempt > 1 {
		attempt = fmt.Sprintf("attempt %d", r.Attempt)
	}
	return parts(escape(p.Phase), bar, rate, left, waiting, attempt, "as of "+r.At.UTC().Format(time.RFC3339))
}

// formatLeft writes a guess without false precision.
func formatLeft(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds())+1)
	}
	return formatSeconds(d.Seconds())
}
