package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity is how bad a finding is.
type Severity string

// The severities. Critical: the cluster cannot be recovered as it should be, or soon could not. Warning: that may become
// so. Info: worth knowing.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// rank orders severities, the worst first.
func (s Severity) rank() int { return slices.Index([]Severity{Critical, Warning, Info}, s) }

// Finding is one thing that is wrong.
type Finding struct {
	// ID stays the same as long as it is the same thing: the rule's id and, where a rule finds several, the object.
	ID       string
	Rule     string
	Severity Severity
	Evidence string // what was seen
	Remedy   string // what to do; never empty
}

// Rule is one way in which a cluster can be unsound.
type Rule struct {
	ID         string
	Area       Area
	Severities []Severity // that its findings may have, the worst first
	// Open is after how many sightings in a row a finding opens, Close after how many checks without one it closes.
	Open, Close int
	// When says what is found, Remedy what to do about it, for the documents.
	When, Remedy string

	judge func(*Snapshot, Limits) []sight
	good  func(*Snapshot) string
}

// sight is a finding in the words of its rule.
type sight struct {
	object   string // which of several; "" where there is but one
	severity Severity
	evidence string
	remedy   string // "" is the rule's
}

// maxSights bounds what one rule finds at once: a memory travels from check to check.
const maxSights = 50

// one is a sight of a rule that finds but one thing.
func one(s Severity, remedy, format string, args ...any) []sight {
	return []sight{{"", s, fmt.Sprintf(format, args...), remedy}}
}

// Judge applies one rule.
func (r *Rule) Judge(s *Snapshot, l Limits) []Finding {
	if s.unseen(r.Area) {
		return nil
	}
	var out []Finding
	sights := r.judge(s, l)
	for _, w := range sights[:min(len(sights), maxSights)] {
		f := Finding{ID: r.ID, Rule: r.ID, Severity: w.severity, Evidence: w.evidence, Remedy: cmp.Or(w.remedy, r.Remedy)}
		if w.object != "" {
			f.ID += "/" + w.object
		}
		out = append(out, f)
	}
	return out
}

// Good puts into words what is right where the rule found nothing; "" where there is nothing to say.
func (r *Rule) Good(s *Snapshot) string {
	if r.good == nil || s.unseen(r.Area) {
		return ""
	}
	return r.good(s)
}

// Judge applies all rules. The findings are sorted by severity, and by area within it.
func Judge(s *Snapshot, l Limits) []Finding {
	var out []Finding
	for i := range rules {
		out = append(out, rules[i].Judge(s, l)...)
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(a.Severity.rank(), b.Severity.rank()) })
	return out
}

// Rules lists all rules by area.
func Rules() []Rule { return slices.Clone(rules) }

// ruleOf finds the rule of that id; nil: there is none, as of a memory that a newer version has written.
func ruleOf(id string) *Rule {
	if i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id }); i >= 0 {
		return &rules[i]
	}
	return nil
}

// Hysteresis: what a setting says is certain at once; what a network, a queue or a load says may pass by itself.
const (
	openSure, closeSure   = 1, 1
	openDoubt, closeDoubt = 2, 3
)

var rules = slices.Concat(serverRules, settingRules, archivingRules, replicationRules, wraparoundRules, transactionRules,
	diskRules, repositoryRules, exposureRules, backupRules, scheduleRules)

// Table is the list of all rules in Markdown, for docs/health.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| id | severity | found when | opens after / closes after | remedy |\n|---|---|---|---|---|\n")
	for _, r := range rules {
		words := make([]string, len(r.Severities))
		for i, s := range r.Severities {
			words[i] = string(s)
		}
		cell := strings.NewReplacer("|", `\|`, "\n", " ").Replace
		fmt.Fprintf(&b, "| `%s` | %s | %s | %d / %d | %s |\n", r.ID, strings.Join(words, ", "), cell(r.When), r.Open, r.Close, cell(r.Remedy))
	}
	return b.String()
}

// ago puts a time into words.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// size puts bytes into words, in units of 1000.
func size(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.2f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
