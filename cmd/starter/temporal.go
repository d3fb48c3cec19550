package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/telemetry"
)

// dialTimeout bounds the first answer of Temporal.
const dialTimeout = 15 * time.Second

// start says which workflow to start and how it shows in the UI.
type start struct {
	workflow, verb, cluster string
	input                   any
	summary                 string
}

// runFlags are the flags of all verbs that start a workflow.
type runFlags struct {
	id     string
	local  bool
	detach bool
}

func (f *runFlags) check() error {
	if f.local && f.detach {
		return usagef("--local runs here and now, --detach does not wait: give one of them")
	}
	if f.local && f.id != "" {
		return usagef("--local starts no workflow that --workflow-id could name")
	}
	return nil
}

// errInterrupted says that the program stopped waiting; the work goes on.
var errInterrupted = errors.New("stopped waiting; the work goes on")

// connection is a client and what else is known of where it leads.
type connection struct {
	client.Client
	namespace string
}

// dial connects to Temporal by its standard environment and temporal.toml.
func (a *app) dial(ctx context.Context) (*connection, error) {
	opts, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{EnvLookup: lookup{a.env}, DisableFile: assemble.NoTemporalFile(a.env)})
	if err != nil {
		return nil, &configError{fmt.Errorf("read Temporal's settings: %w", err)}
	}
	logger, err := telemetry.NewLogger(a.bottom, telemetry.LogOptions{Format: "text", Level: slog.LevelWarn})
	if err != nil {
		return nil, err
	}
	opts.Logger = log.NewStructuredLogger(logger)
	if opts.HostPort == "" {
		opts.HostPort = client.DefaultHostPort
	}
	if opts.Namespace == "" {
		opts.Namespace = client.DefaultNamespace
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := client.DialContext(ctx, opts)
	if err != nil {
		return nil, &hinted{
			&coded{fmt.Errorf("connect to Temporal at %s: %w", opts.HostPort, err), codeTemporal},
			"TEMPORAL_ADDRESS names the server; --local works without one",
		}
	}
	return &connection{c, opts.Namespace}, nil
}

// lookup gives envconfig this run's environment.
type lookup struct {
	env func(string) (string, bool)
}

func (l lookup) LookupEnv(name string) (string, bool) { return l.env(name) }

// Environ is asked for headers (TEMPORAL_GRPC_META_*), whose names are not known before.
func (l lookup) Environ() []string {
	var out []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if v, ok := l.env(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// workflowID names a run of a verb; a person may type another.
func workflowID(verb, cluster string, now time.Time) string {
	var random [2]byte
	_, _ = rand.Read(random[:])
	return fmt.Sprintf("lifeboat-%s-%s-%s-%s", verb, cluster, now.UTC().Format("20060102T150405Z"), hex.EncodeToString(random[:]))
}

// start runs a workflow: it starts it and, unless detached, waits for its result and has it printed.
func (a *app) start(ctx context.Context, f runFlags, s start, result any, print func() error) error {
	queue, err := a.taskQueue()
	if err != nil {
		return err
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if in, ok := s.input.(contract.RestoreInput); ok {
		if err := requireWorker(ctx, c, contract.HostQueue(queue, in.Host), in.Host); err != nil {
			return err
		}
	}
	id, err := a.run(ctx, c, queue, f, s, result)
	switch {
	case err != nil:
		return &runError{id, err}
	case f.detach:
		return a.printStarted(id)
	}
	return print()
}

// run starts a workflow and, unless detached, waits for its result.
func (a *app) run(ctx context.Context, c *connection, queue string, f runFlags, s start, result any) (id string, err error) {
	if id = f.id; id == "" {
		id = workflowID(s.verb, s.cluster, time.Now())
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: queue, WorkflowExecutionErrorWhenAlreadyStarted: true,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:         s.summary, StaticDetails: details(s),
		TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(contract.AttributeCluster).ValueSet(s.cluster)),
	}, s.workflow, s.input)
	if err != nil {
		return id, startError(ctx, id, err)
	}
	a.note("workflow %s%s", id, a.link(c, run))
	a.warnNoWorker(ctx, c, queue)
	if f.detach {
		return id, nil
	}
	stop := a.follow(ctx, c, run)
	err = run.Get(ctx, result)
	stop()
	if err != nil && ctx.Err() != nil {
		return id, &hinted{&interrupted{errInterrupted}, fmt.Sprintf("`temporal workflow result --workflow-id %s` waits for it again, "+
			"`temporal workflow cancel --workflow-id %s` stops it", id, id)}
	}
	return id, err
}

func startError(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return &hinted{
			&interrupted{errors.New("while the run was being started; it may have been")},
			fmt.Sprintf("`temporal workflow describe --workflow-id %s` tells", id),
		}
	}
	err = fmt.Errorf("start workflow %s: %w", id, err)
	switch {
	case errorCode(err) == codeRunning:
		return &hinted{err, "a run of that name is under way: wait for it, or give another --workflow-id"}
	case strings.Contains(err.Error(), contract.AttributeCluster):
		return &hinted{err, "the namespace lacks Lifeboat's search attributes: lifeboat-worker adds them, or tells in its log how to"}
	}
	return err
}

// details tells in the UI where a run came from.
func details(s start) string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	return fmt.Sprintf("Started by `lifeboat %s %s` on %s.", s.verb, s.cluster, host)
}

// requireWorker fails unless somebody polls a host's queue: the run would wait for a worker that may never come.
func requireWorker(ctx context.Context, c *connection, queue, host string) error {
	d, err := c.DescribeTaskQueue(ctx, queue, enums.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return fmt.Errorf("ask Temporal who polls %s: %w", queue, err)
	}
	if len(d.GetPollers()) == 0 {
		return &hinted{
			&coded{fmt.Errorf("no worker polls task queue %s, so nothing could be restored on host %s", queue, host), codeNoWorker},
			fmt.Sprintf("start lifeboat-worker on %s (its --host must be the same name), name another host by --host, or restore here by --local", host),
		}
	}
	return nil
}

// warnNoWorker tells a person why nothing happens.
func (a *app) warnNoWorker(ctx context.Context, c *connection, queue string) {
	d, err := c.DescribeTaskQueue(ctx, queue, enums.TASK_QUEUE_TYPE_WORKFLOW)
	if err == nil && len(d.GetPollers()) == 0 {
		a.note("no worker polls task queue %s: the run waits until lifeboat-worker is started", queue)
	}
}

// link is where the run shows in the UI, if that is known.
func (a *app) link(c *connection, run client.WorkflowRun) string {
	ui, ok := a.env("TEMPORAL_UI_ADDRESS")
	if !ok || ui == "" {
		return ""
	}
	if !strings.Contains(ui, "://") {
		ui = "http://" + ui
	}
	return fmt.Sprintf("  %s/namespaces/%s/workflows/%s/%s", strings.TrimSuffix(ui, "/"), c.namespace, run.GetID(), run.GetRunID())
}

func (a *app) printStarted(id string) error {
	if a.json {
		return a.printJSON(map[string]string{"workflowId": id})
	}
	_, err := fmt.Fprintln(a.stdout, id)
	return err
}

// localRun identifies a run without Temporal, and shows its progress until ended.
func (a *app) localRun(verb, cluster string) (run activities.Run, end func()) {
	m := a.newMeter()
	return activities.Run{
		WorkflowID: fmt.Sprintf("local-%s-%d", workflowID(verb, cluster, time.Now()), os.Getpid()),
		Progress:   m.show,
	}, m.end
}
