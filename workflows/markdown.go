package workflows

import (
	"fmt"
	"strings"
	"time"

	"lifeboat/internal/contract"
)

// Markdown renders the progress for the Temporal UI: the phases with their figures, what is awaited, and, once there
// is one, the outcome with the checks of a drill.
func (p Progress) Markdown() string {
	lines := []string{fmt.Sprintf("### %s of %s", escape(p.Workflow), escape(p.Cluster)), ""}
	if p.Subject != "" {
		lines = append(lines, escape(p.Subject), "")
	}
	for _, phase := range p.Phases {
		lines = append(lines, "- "+phase.line(p.Outcome != ""))
	}
	if p.Waiting != "" {
		lines = append(lines, "", "**Waiting for:** "+escape(p.Waiting))
	}
	if p.Verdict != "" {
		lines = append(lines, "", "**Verdict: "+escape(string(p.Verdict))+"**")
	}
	if p.Outcome != "" {
		lines = append(lines, "", escape(p.Outcome))
	}
	if len(p.Checks) > 0 {
		lines = append(lines, "", checksTable(p.Checks))
	}
	return strings.Join(lines, "\n") + "\n"
}

func (p Phase) line(ended bool) string {
	switch p.State {
	case PhaseDone:
		return parts("✅ "+escape(p.Name), formatSeconds(p.Seconds), escape(p.Note))
	case PhaseFailed:
		return parts("❌ "+escape(p.Name), formatSeconds(p.Seconds), escape(p.Note))
	case PhaseActive:
		line := parts("▶️ **"+escape(p.Name)+"**", "since "+p.StartedAt.Format(time.RFC3339), escape(p.Note))
		if p.Report != nil {
			line += "\n  - " + reportLine(p.Report)
		}
		return line
	}
	if ended {
		return parts("➖ "+escape(p.Name), "not reached", "")
	}
	return "⬜ " + escape(p.Name)
}

// checksTable lists the checks of a drill.
func checksTable(checks []contract.CheckResult) string {
	rows := []string{"| Level | Check | Verdict | Expected | Observed | Time |", "|---|---|---|---|---|---|"}
	for _, c := range checks {
		rows = append(rows, fmt.Sprintf("| %d | %s | %s | %s | %s | %s |", c.Level, escape(c.ID), escape(string(c.Verdict)),
			escape(c.Expected), escape(c.Observed), formatSeconds(c.Seconds)))
	}
	return strings.Join(rows, "\n")
}

func parts(all ...string) string {
	var kept []string
	for _, s := range all {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, " · ")
}

// maxShown bounds one text in the details, in bytes: a query's answer may be of any length.
const maxShown = 500

var markdown = strings.NewReplacer(
	`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;",
)

// escape makes any text show as it is: checks, paths and errors come from outside, and could be a link or a row.
func escape(text string) string { return markdown.Replace(shorten(text, maxShown)) }

// formatBytes writes 1536 as "1.5 KiB".
func formatBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < len("KMGTPE")-1 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}

// formatSeconds writes 0.25 as "0.25 s", 75 as "1 min 15 s" and 3700 as "1 h 1 min".
func formatSeconds(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
