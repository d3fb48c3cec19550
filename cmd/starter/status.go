package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

// clusterStatus is the readiness of one cluster. Times and figures that are not known are null.
type clusterStatus struct {
	Cluster         string        `json:"cluster"`
	ExposureSeconds *float64      `json:"exposureSeconds"`
	RPOTarget       float64       `json:"rpoTarget"`
	RestorableFrom  *time.Time    `json:"restorableFrom"` // when the oldest backup was finished
	RestorableTo    *time.Time    `json:"restorableTo"`   // the newest commit in the gap-free WAL
	LastBackup      *statusBackup `json:"lastBackup"`
	LastVerified    *statusProof  `json:"lastVerified"`
	LastDrill       *statusDrill  `json:"lastDrill"`
	PredictedRTO    *float64      `json:"predictedRto"` // null: not learned in this version
	RTOTarget       float64       `json:"rtoTarget"`
	// Verdict: see judge.
	Verdict contract.Verdict `json:"verdict"`

	reasons []string
}

type statusBackup struct {
	BackupID   string    `json:"backupId"`
	Type       string    `json:"type"`
	FinishedAt time.Time `json:"finishedAt"`
}

type statusProof struct {
	BackupID string `json:"backupId"`
	contract.Verified
}

type statusDrill struct {
	DrillID    string           `json:"drillId"`
	Scenario   string           `json:"scenario"`
	Verdict    contract.Verdict `json:"verdict"`
	Level      int              `json:"level"`
	FinishedAt time.Time        `json:"finishedAt"`
	Report     string           `json:"report"`
}

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status [CLUSTER]",
		Short: "Show how ready each cluster is for a disaster",
		Long: "Show how ready each cluster is for a disaster. The verdict is\n" +
			"  FAIL              if there is no backup, if more may be lost now than the RPO allows, or if the last drill or\n" +
			"                    verification failed\n" +
			"  COULD_NOT_VERIFY  if the repository or the exposure cannot be known\n" +
			"  PARTIAL           if nothing is wrong, but no drill or verification has passed since the last backup was taken of it\n" +
			"  PASS              otherwise\n" +
			"It is told, not acted on: the command exits 0 once it could look.",
		Args: optional("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.clusterNames(args)
			if err != nil {
				return err
			}
			out := make([]*clusterStatus, len(names))
			for i, name := range names {
				if out[i], err = a.statusOf(cmd.Context(), name); err != nil {
					return err
				}
			}
			return a.printStatus(out)
		},
	}
}

// optional takes the arguments that the usage line names, or none.
func optional(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return arguments(names...)(cmd, args)
	}
}

// clusterNames are those that were typed, or all of the configuration.
func (a *app) clusterNames(args []string) ([]string, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if len(args) > 0 {
		return args, nil
	}
	return cfg.ClusterNames(), nil
}

// statusOf looks at one cluster. What cannot be known is a reason in the verdict; only a wrong configuration, or the
// end of ctx, is an error.
func (a *app) statusOf(ctx context.Context, name string) (*clusterStatus, error) {
	_, c, err := a.cluster(name)
	if err != nil {
		return nil, err
	}
	s := &clusterStatus{Cluster: name, RPOTarget: c.RPO.Seconds(), RTOTarget: c.RTO.Seconds()}
	if err := s.read(ctx, c); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.Verdict = contract.CouldNotVerify
		s.reasons = append(s.reasons, err.Error())
		return s, nil
	}
	s.judge()
	return s, nil
}

func (s *clusterStatus) read(ctx context.Context, c activities.Cluster) error {
	r, err := c.OpenRepository(ctx, false)
	if err != nil {
		return err
	}
	v, err := lookAtWAL(ctx, r, c, s.Cluster)
	if err != nil {
		return err
	}
	s.ExposureSeconds, s.RestorableTo = v.Coverage.Exposure(), v.LastCommit
	if v.unasked != nil {
		s.reasons = append(s.reasons, "the server could not be asked where it is: "+v.unasked.Error())
	}
	if n := len(v.Manifests); n > 0 {
		last := v.Manifests[n-1]
		s.RestorableFrom = &v.Manifests[0].FinishedAt
		s.LastBackup = &statusBackup{last.BackupID, string(last.Type), last.FinishedAt}
	}
	verified, err := activities.ListVerified(ctx, r, s.Cluster)
	if err != nil {
		return err
	}
	for id, proof := range verified {
		if s.LastVerified == nil || proof.At.After(s.LastVerified.At) {
			s.LastVerified = &statusProof{id, proof}
		}
	}
	reports, err := readReports(ctx, r, s.Cluster)
	if err != nil {
		return err
	}
	if n := len(reports); n > 0 {
		d := reports[n-1]
		s.LastDrill = &statusDrill{d.DrillID, d.Scenario, d.Verdict, d.Level, d.FinishedAt, d.Report}
	}
	return nil
}

// judge gives the verdict, from the worst reason down.
func (s *clusterStatus) judge() {
	worst := contract.Pass
	add := func(v contract.Verdict, format string, args ...any) {
		s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
		rank := map[contract.Verdict]int{contract.Pass: 0, contract.Partial: 1, contract.CouldNotVerify: 2, contract.Fail: 3}
		if rank[v] > rank[worst] {
			worst = v
		}
	}
	if s.LastBackup == nil {
		add(contract.Fail, "there is no backup")
	}
	switch {
	case s.ExposureSeconds == nil:
		add(contract.CouldNotVerify, "the exposure is not known")
	case s.RPOTarget > 0 && *s.ExposureSeconds > s.RPOTarget:
		add(contract.Fail, "up to %s of commits may be lost now, the RPO allows %s", span(s.ExposureSeconds), span(&s.RPOTarget))
	}
	switch {
	case s.LastVerified == nil:
		add(contract.Partial, "no backup was verified yet")
	case s.LastVerified.Verdict != contract.Pass:
		add(notGreen(s.LastVerified.Verdict), "the last verification said %s", s.LastVerified.Verdict)
	}
	switch {
	case s.LastDrill == nil:
		add(contract.Partial, "no drill was run yet")
	case s.LastDrill.Verdict != contract.Pass:
		add(notGreen(s.LastDrill.Verdict), "the last drill said %s", s.LastDrill.Verdict)
	}
	s.Verdict = worst
}

// notGreen is how a verdict that is not PASS weighs: what was half checked is PARTIAL.
func notGreen(v contract.Verdict) contract.Verdict {
	if v == contract.Fail {
		return v
	}
	return contract.Partial
}

func (a *app) printStatus(list []*clusterStatus) error {
	if a.json {
		return a.printJSON(map[string][]*clusterStatus{"clusters": list})
	}
	return a.table(func(p *printer) {
		for i, s := range list {
			if i > 0 {
				p.line("")
			}
			p.line("%s\t%s", s.Cluster, a.paint(s.Verdict))
			for _, why := range s.reasons {
				p.line("\t- %s", why)
			}
			p.line("exposure\t%s (RPO %s)", span(s.ExposureSeconds), span(&s.RPOTarget))
			p.line("restorable\tfrom %s to %s", when(s.RestorableFrom), when(s.RestorableTo))
			if s.LastBackup != nil {
				p.line("last backup\t%s, %s", s.LastBackup.BackupID, when(&s.LastBackup.FinishedAt))
			}
			if s.LastVerified != nil {
				p.line("last verified\t%s: %s", s.LastVerified.BackupID, proof(&s.LastVerified.Verified))
			}
			if s.LastDrill != nil {
				p.line("last drill\t%s: %s L%d %s", s.LastDrill.DrillID, s.LastDrill.Verdict, s.LastDrill.Level, when(&s.LastDrill.FinishedAt))
			}
			p.line("RTO\tobjective %s", span(&s.RTOTarget))
		}
	})
}
