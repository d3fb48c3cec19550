package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"golang.org/x/sys/unix"

	"lifeboat/internal/assemble"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
)

// The outcomes of a line of check.
const (
	outcomeOK      = "ok"
	outcomeWarning = "warning"
	outcomeFail    = "FAIL"
	// outcomeUnknown: it could not be asked.
	outcomeUnknown = string(contract.CouldNotVerify)
)

// finding is a line of check.
type finding struct {
	// Cluster is empty for what concerns all.
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// checkReport is what check prints.
type checkReport struct {
	Verdict contract.Verdict `json:"verdict"`
	Checks  []finding        `json:"checks"`
}

// checker collects findings.
type checker struct {
	a       *app
	cfg     *config.Config
	cluster string
	found   []finding
}

func (k *checker) add(id, outcome, hint, format string, args ...any) {
	k.found = append(k.found, finding{k.cluster, id, outcome, fmt.Sprintf(format, args...), hint})
}

func (k *checker) ok(id, format string, args ...any) { k.add(id, outcomeOK, "", format, args...) }

// fail adds an error, whose hint is parted from it.
func (k *checker) fail(id string, err error) {
	p := problemOf(err)
	k.add(id, outcomeFail, p.Hint, "%s", p.Message)
}

// unknown adds what could not be asked.
func (k *checker) unknown(id string, err error) {
	p := problemOf(err)
	k.add(id, outcomeUnknown, p.Hint, "%s", p.Message)
}

func newCheckCommand(a *app) *cobra.Command {
	var local, grants bool
	var role string
	cmd := &cobra.Command{
		Use:   "check [CLUSTER]",
		Short: "Check configuration, repositories, servers, this host and Temporal, and say how to mend what is wrong",
		Long: "Check configuration, repositories, servers, this host and Temporal, and say how to mend what is wrong. It changes nothing,\n" +
			"but for an object that it writes to each repository and deletes again.\n" +
			"Exits 0 for PASS, 3 for FAIL, 4 if something could not be asked.",
		Example: "  lifeboat check orders\n" +
			"  lifeboat check orders --print-grants | sudo -u postgres psql -X -v ON_ERROR_STOP=1",
		Args: optional("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if grants {
				return a.printGrants(args, role)
			}
			if role != "" {
				return usagef("--role is for --print-grants")
			}
			names, err := a.clusterNames(args)
			if err != nil {
				return err
			}
			return a.check(cmd.Context(), names, local)
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "leave out Temporal: check what --local needs")
	cmd.Flags().BoolVar(&grants, "print-grants", false, "print the SQL that gives Lifeboat's role what it needs, for a superuser to run, and check nothing")
	cmd.Flags().StringVar(&role, "role", "", "with --print-grants: the role (default: that of the dsn)")
	return cmd
}

func (a *app) check(ctx context.Context, names []string, local bool) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	k := &checker{a: a, cfg: cfg}
	k.configuration()
	k.repositories(ctx, names)
	for _, name := range names {
		if err := k.oneCluster(ctx, name); err != nil {
			return err
		}
	}
	k.cluster = ""
	if !local {
		k.temporal(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return a.printCheck(k.found)
}

func (k *checker) configuration() {
	k.ok("configuration", "%s: %d clusters, %d repositories", k.cfg.File(), len(k.cfg.Clusters), len(k.cfg.Repositories))
	if len(k.cfg.Clusters) == 0 {
		k.add("configuration", outcomeWarning, "add a cluster", "nothing is protected")
	}
	for _, text := range k.cfg.NotYet() {
		k.add("configuration", outcomeWarning, "leave the setting out, or do its work by other means", "%s", text)
	}
	if _, err := assemble.Lifeboat(); err != nil {
		k.add("program", outcomeWarning, "put the program lifeboat on PATH", "%v: restores need it for restore_command", err)
	}
}

// repositories probes those of the named clusters, each once.
func (k *checker) repositories(ctx context.Context, names []string) {
	seen := map[string]bool{}
	for _, name := range names {
		c, err := k.cfg.Cluster(name)
		if err != nil || seen[c.Repository] {
			continue
		}
		seen[c.Repository] = true
		r, err := k.cfg.Repository(c.Repository)
		if err != nil {
			k.fail("repository", err)
			continue
		}
		k.repository(ctx, c.Repository, r)
	}
}

func (k *checker) repository(ctx context.Context, name string, r *config.Repository) {
	id := "repository " + name
	opened, err := assemble.OpenRepository(ctx, r.URL, false)
	path, pathErr := config.FilePath(r.URL)
	switch {
	case pathErr != nil:
		k.fail(id, pathErr)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, repo.ErrNoRepository):
		k.creatable(id, path)
	case err != nil:
		k.fail(id, err)
	default:
		if err := opened.Probe(ctx); err != nil {
			k.fail(id, err)
			return
		}
		k.ok(id, "%s can be read and written, creates each object once, and lists and deletes what was written", r.URL)
	}
	if r.Encryption == nil {
		k.add(id, outcomeWarning, "keep the repository where nobody else reads", "backups and WAL are not encrypted: this version cannot")
	}
}

// creatable tells whether the first backup could make the repository.
func (k *checker) creatable(id, path string) {
	there := path
	for {
		info, err := os.Stat(there)
		if err == nil && info.IsDir() {
			break
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || there == filepath.Dir(there) {
			k.add(id, outcomeFail, "name another folder", "%s cannot be made: %s is in the way", path, there)
			return
		}
		there = filepath.Dir(there)
	}
	if err := unix.Access(there, unix.W_OK|unix.X_OK); err != nil {
		k.add(id, outcomeFail, fmt.Sprintf("let user %d write to %s", os.Getuid(), there), "%s holds no repository, and this user cannot make one there: %v", path, err)
		return
	}
	k.ok(id, "%s holds no repository yet; the first backup or WAL makes it", path)
}

// temporal checks the way to Temporal, and that somebody works.
func (k *checker) temporal(ctx context.Context) {
	c, err := k.a.dial(ctx)
	if err != nil {
		k.fail("temporal", err)
		return
	}
	defer c.Close()
	k.ok("temporal", "namespace %s can be reached", c.namespace)
	queue := k.cfg.Worker.TaskQueue
	for _, kind := range []enums.TaskQueueType{enums.TASK_QUEUE_TYPE_WORKFLOW, enums.TASK_QUEUE_TYPE_ACTIVITY} {
		d, err := c.DescribeTaskQueue(ctx, queue, kind)
		switch {
		case err != nil:
			k.unknown("worker", fmt.Errorf("ask who polls task queue %s: %w", queue, err))
			return
		case len(d.GetPollers()) == 0:
			k.add("worker", outcomeFail, "start lifeboat-worker", "no worker polls task queue %s", queue)
			return
		}
	}
	k.ok("worker", "task queue %s is polled", queue)
}

// checkVerdict is the worst of the findings: warnings pass.
func checkVerdict(found []finding) contract.Verdict {
	v := contract.Pass
	for _, f := range found {
		switch f.Outcome {
		case outcomeFail:
			return contract.Fail
		case outcomeUnknown:
			v = contract.CouldNotVerify
		}
	}
	return v
}

func (a *app) printCheck(found []finding) error {
	rep := checkReport{Verdict: checkVerdict(found), Checks: found}
	if a.json {
		if err := a.printJSON(rep); err != nil {
			return err
		}
		return verdictError(rep.Verdict)
	}
	if err := a.table(func(p *printer) {
		for _, f := range found {
			if a.quiet && f.Outcome == outcomeOK {
				continue
			}
			p.line("%s\t%s\t%s", f.Outcome, strings.TrimSpace(f.Cluster+" "+f.ID), strings.Join(strings.Fields(f.Message), " "))
			if f.Hint != "" {
				p.line("\t\t-> %s", f.Hint)
			}
		}
	}); err != nil {
		return err
	}
	if err := a.lines(func(p *printer) { p.line("%s", a.paint(rep.Verdict)) }); err != nil {
		return err
	}
	return verdictError(rep.Verdict)
}
