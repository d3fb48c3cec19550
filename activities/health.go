package activities

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"lifeboat/internal/contract"
	"lifeboat/internal/health"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// CheckHealth looks at a cluster and judges what it finds, together with what the check before it found. A server or a
// repository that does not answer is a finding and no failure. It may be repeated.
func (r *Runner) CheckHealth(ctx context.Context, in contract.HealthCheckInput, run Run) (contract.HealthCheckResult, error) {
	none := contract.HealthCheckResult{Cluster: in.Cluster, WorkflowID: run.WorkflowID}
	if err := errors.Join(in.Validate(), repo.CheckName(in.Cluster)); err != nil {
		return none, &InputError{err}
	}
	c, err := r.cluster(in.Cluster)
	if err != nil {
		return none, err
	}
	memory, err := healthMemory(in.Previous)
	if err != nil {
		return none, &InputError{err}
	}
	begun := time.Now()
	run.Progress(contract.Progress{Phase: "check health"})
	s, err := health.Collect(ctx, r.healthOptions(in.Cluster, &c))
	if err != nil {
		return none, err
	}
	r.lookAtSchedules(ctx, &c, s)
	s.Exposure = memory.Exposure(s)
	limits := r.set.HealthLimits
	if limits == (health.Limits{}) {
		limits = health.DefaultLimits()
	}
	next, opened, closed := memory.Step(s, health.Judge(s, limits))
	res := healthResult(s, next, opened, closed)
	res.Seconds, res.WorkflowID = time.Since(begun).Seconds(), run.WorkflowID
	return res, nil
}

// healthOptions say what this worker can look at.
func (r *Runner) healthOptions(cluster string, c *Cluster) health.Options {
	o := health.Options{
		Cluster: cluster, ConfigFile: r.set.ConfigFile, Server: c.Server, RPO: c.RPO, DataDirectory: c.DataDirectory,
		RepositoryName: c.RepositoryURL, Remedy: Remedy,
		Open: func(ctx context.Context) (*repo.Repository, error) { return c.OpenRepository(ctx, false) },
		Proofs: func(ctx context.Context, rp *repo.Repository) (map[string]health.Proof, error) {
			verified, err := ListVerified(ctx, rp, cluster)
			out := make(map[string]health.Proof, len(verified))
			for id, v := range verified {
				out[id] = health.Proof{At: v.At, Passed: v.Verdict == contract.Pass, Failed: v.Verdict == contract.Fail, Level: v.Level}
			}
			return out, err
		},
	}
	for i := range c.Hosts {
		if c.Hosts[i].Queue == contract.HostQueue(r.set.TaskQueue, r.set.Host) {
			o.DataDirectory = c.Hosts[i].DataDirectory
		}
	}
	if u, err := url.Parse(c.RepositoryURL); err == nil && u.Scheme == "file" {
		o.RepositoryPath = u.Path
	}
	return o
}

// healthMemory reads what the check before left.
func healthMemory(in *contract.HealthMemory) (health.Memory, error) {
	var m health.Memory
	if in == nil {
		return m, nil
	}
	m.At = in.At
	for _, f := range in.Findings {
		t := health.Tracked{
			Finding: health.Finding{ID: f.ID, Rule: f.Rule, Severity: health.Severity(f.Severity), Evidence: f.Evidence, Remedy: f.Remedy},
			Open:    f.Status == contract.FindingOpen, Sightings: f.Sightings, Absences: f.Absences, FirstSeen: f.FirstSeenAt, LastSeen: f.LastSeenAt,
		}
		if f.OpenedAt != nil {
			t.OpenedAt = *f.OpenedAt
		}
		m.Tracked = append(m.Tracked, t)
	}
	for _, p := range in.Positions {
		lsn, err := pg.ParseLSN(p.LSN)
		if err != nil {
			return m, err
		}
		m.Positions = append(m.Positions, health.Position{At: p.At, LSN: lsn})
	}
	return m, nil
}

func healthResult(s *health.Snapshot, m health.Memory, opened, closed []health.Tracked) contract.HealthCheckResult {
	res := contract.HealthCheckResult{
		Cluster: s.Cluster, Verdict: contract.Pass, CheckedAt: s.At, ExposureSeconds: s.Exposure, Findings: []contract.HealthFinding{},
		Opened: []string{}, Closed: []contract.HealthFinding{}, NotLookedAt: []contract.HealthUnseen{}, Positions: []contract.HealthPosition{},
	}
	for _, u := range s.Unseen {
		res.NotLookedAt = append(res.NotLookedAt, contract.HealthUnseen{Area: string(u.Area), Reason: healthText(u.Reason.Problem), Remedy: healthText(u.Reason.Remedy)})
		res.Verdict = contract.CouldNotVerify
	}
	for _, t := range m.Tracked {
		res.Findings = append(res.Findings, healthFinding(t, contract.FindingOpen))
		if t.Open && t.Severity == health.Critical {
			res.Verdict = contract.Fail
		}
	}
	for _, t := range opened {
		res.Opened = append(res.Opened, t.ID)
	}
	for _, t := range closed {
		res.Closed = append(res.Closed, healthFinding(t, contract.FindingClosed))
	}
	for _, p := range m.Positions {
		res.Positions = append(res.Positions, contract.HealthPosition{At: p.At, LSN: p.LSN.String()})
	}
	return res
}

// healthFinding puts a finding into the words of the contract; status is that of one that has been open.
func healthFinding(t health.Tracked, status contract.HealthStatus) contract.HealthFinding {
	f := contract.HealthFinding{
		ID: t.ID, Rule: t.Rule, Severity: string(t.Severity), Status: status, Evidence: healthText(t.Evidence), Remedy: healthText(t.Remedy),
		Sightings: t.Sightings, Absences: t.Absences, FirstSeenAt: t.FirstSeen, LastSeenAt: t.LastSeen,
	}
	if !t.Open {
		f.Status = contract.FindingPending
		return f
	}
	f.OpenedAt = &t.OpenedAt
	return f
}

// healthText bounds a text from outside, and makes it one line: a result travels to each check that follows.
func healthText(text string) string {
	const most = 1000 // bytes
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}
