package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/assemble"
	"lifeboat/internal/blob"
	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
)

// reportsPrefix begins the names of the documents that hold reports.
const reportsPrefix = "reports/"

// listedReport is a line of `lifeboat reports`.
type listedReport struct {
	DrillID    string           `json:"drillId"`
	Scenario   string           `json:"scenario"`
	Verdict    contract.Verdict `json:"verdict"`
	Level      int              `json:"level"`
	StartedAt  time.Time        `json:"startedAt"`
	FinishedAt time.Time        `json:"finishedAt"`
	RTO        float64          `json:"rto"` // measured
	RPO        *float64         `json:"rpo"`
	BackupID   string           `json:"backupId"`
	Report     string           `json:"report"`
}

func newReportsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "reports CLUSTER",
		Short: "List the reports of drills",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, err := a.openRepository(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			reports, err := readReports(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return a.printReports(args[0], reports)
		},
	}
}

// readReports reads all reports of a cluster, oldest first. One that is damaged says nothing, but that it was there.
func readReports(ctx context.Context, r *repo.Repository, cluster string) ([]*contract.Report, error) {
	names, err := r.ListDocuments(ctx, cluster, reportsPrefix)
	if err != nil {
		return nil, err
	}
	var out []*contract.Report
	for _, name := range names {
		id := strings.TrimPrefix(name, reportsPrefix)
		rep, err := readReport(ctx, r, cluster, id)
		switch {
		case repo.IsDamage(err):
			rep = damagedReport(cluster, id, err)
		case errors.Is(err, repo.ErrNotFound):
			continue // removed meanwhile
		case err != nil:
			return nil, err
		}
		out = append(out, rep)
	}
	slices.SortStableFunc(out, func(a, b *contract.Report) int { return a.FinishedAt.Compare(b.FinishedAt) })
	return out, nil
}

func damagedReport(cluster, id string, err error) *contract.Report {
	const layout = "20060102T150405Z" // that drill ids begin with
	at, _ := time.Parse(layout, id[:min(len(id), len(layout))])
	return &contract.Report{StartedAt: at, FinishedAt: at, Failure: err.Error(), DrillResult: contract.DrillResult{
		DrillID: id, Cluster: cluster, Verdict: contract.CouldNotVerify, Report: "clusters/" + cluster + "/" + reportsPrefix + id,
	}}
}

func readReport(ctx context.Context, r *repo.Repository, cluster, id string) (*contract.Report, error) {
	var rep contract.Report
	if err := r.GetDocument(ctx, cluster, reportsPrefix+id, &rep); err != nil {
		return nil, err
	}
	return &rep, nil
}

func (a *app) printReports(cluster string, reports []*contract.Report) error {
	list := make([]listedReport, len(reports))
	for i, r := range reports {
		list[i] = listedReport{
			DrillID: r.DrillID, Scenario: r.Scenario, Verdict: r.Verdict, Level: r.Level, StartedAt: r.StartedAt,
			FinishedAt: r.FinishedAt, RTO: r.RTO.Measured, RPO: r.RPO.Measured, BackupID: r.BackupID, Report: r.Report,
		}
	}
	if a.json {
		return a.printJSON(struct {
			Cluster string         `json:"cluster"`
			Reports []listedReport `json:"reports"`
		}{cluster, list})
	}
	if len(list) == 0 {
		return a.lines(func(p *printer) { p.line("no reports of %s: `lifeboat drill %s` makes one", cluster, cluster) })
	}
	return a.table(func(p *printer) {
		p.line("DRILL\tVERDICT\tLEVEL\tFINISHED\tRTO\tRPO\tBACKUP")
		for _, r := range list {
			p.line("%s\t%s\t%d\t%s\t%.1f s\t%s\t%s", r.DrillID, r.Verdict, r.Level, when(&r.FinishedAt), r.RTO, span(r.RPO), r.BackupID)
		}
	})
}

func newReportCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Show a report of a drill",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do with which report: lifeboat report show ID")
		},
	}
	var format, cluster string
	show := &cobra.Command{
		Use:   "show ID",
		Short: "Show one report; ID as `lifeboat reports` lists it",
		Example: "  lifeboat report show 20261125T201011Z-1f3a9c\n" +
			"  lifeboat report show 20261125T201011Z-1f3a9c --format html > drill.html",
		Args: arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "json", "html"}, format) {
				return usagef("--format %q: use text, json or html", format)
			}
			if a.json && format == "html" {
				return usagef("--json and --format html contradict each other")
			}
			rep, err := a.findReport(cmd.Context(), cluster, args[0])
			if err != nil {
				return err
			}
			if format == "html" {
				return writeReportHTML(a.stdout, rep, strings.TrimPrefix(assemble.Program(), "lifeboat "))
			}
			a.json = a.json || format == "json"
			return a.printReport(rep)
		},
	}
	show.Flags().StringVar(&format, "format", "text", "text, json, or html: one page with all in it, for a browser")
	show.Flags().StringVar(&cluster, "cluster", "", "the cluster that was drilled (default: all are searched)")
	cmd.AddCommand(show)
	return cmd
}

// findReport looks for a report by its id, or by the key that a drill prints.
func (a *app) findReport(ctx context.Context, cluster, id string) (*contract.Report, error) {
	if parts := strings.Split(id, "/"); len(parts) == 4 && parts[0] == "clusters" && parts[2]+"/" == reportsPrefix {
		cluster, id = parts[1], parts[3]
	}
	if strings.Contains(id, "/") {
		return nil, usagef("report %q: give an id as `lifeboat reports` lists it", id)
	}
	places, err := a.placesOf(ctx, cluster)
	if err != nil {
		return nil, err
	}
	var searched []string
	for _, p := range places {
		rep, err := readReport(ctx, p.repository, p.cluster, id)
		if !errors.Is(err, blob.ErrNotFound) {
			return rep, err
		}
		searched = append(searched, p.cluster)
	}
	return nil, &hinted{fmt.Errorf("no report %s of %s", id, strings.Join(searched, ", ")), "`lifeboat reports CLUSTER` lists them"}
}

// place is a cluster in its repository.
type place struct {
	cluster    string
	repository *repo.Repository
}

// placesOf gives one cluster, or all that there are.
func (a *app) placesOf(ctx context.Context, cluster string) ([]place, error) {
	if cluster != "" {
		r, _, err := a.openRepository(ctx, cluster)
		return []place{{cluster, r}}, err
	}
	if a.repository != "" {
		r, err := assemble.OpenRepository(ctx, a.repository, false)
		if err != nil {
			return nil, err
		}
		names, err := r.Clusters(ctx)
		var out []place
		for _, name := range names {
			out = append(out, place{name, r})
		}
		return out, err
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	var out []place
	for _, name := range cfg.ClusterNames() {
		r, _, err := a.openRepository(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, place{name, r})
	}
	return out, nil
}

func (a *app) printReport(r *contract.Report) error {
	if a.json {
		return a.printJSON(r)
	}
	if err := a.printDrill(r.DrillResult); err != nil {
		return err
	}
	return a.table(func(p *printer) {
		p.line("cluster\t%s, system identifier %s", r.Cluster, r.SystemIdentifier)
		p.line("backup\t%s, %d files, %s", r.BackupID, r.Files, size(r.Bytes))
		p.line("target\t%s", strings.TrimSpace(r.Target.Kind+" "+r.Target.Value))
		if r.Reached != nil {
			p.line("reached\t%s on timeline %d, last commit %s", r.Reached.LSN, r.Reached.Timeline, when(r.Reached.LastCommitAt))
		}
		p.line("disaster\t%s", when(r.DisasterAt))
		p.line("run\t%s to %s on %s, %s", when(&r.StartedAt), when(&r.FinishedAt), r.Host, r.WorkflowID)
		p.line("cleaned up\t%v", r.CleanedUp)
		if r.Failure != "" {
			p.line("failure\t%s", strings.Join(strings.Fields(r.Failure), " "))
		}
	})
}
