package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"lifeboat/activities"
	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/workflows"
)

const (
	// stopTimeout is how long activities have to hand on when the worker stops.
	stopTimeout = 10 * time.Second
	// heartbeats reach Temporal at least that often while there is something to report.
	heartbeatInterval = 5 * time.Second
	// heartbeatTimeout is how long a worker may be silent before its work is given to another: what a kill -9 costs.
	heartbeatTimeout = 15 * time.Second
	// hostTimeout is how long a host's queue may be without a worker before a run says that the host is lost.
	hostTimeout = 2 * time.Minute
	// stickyTimeout is how long a workflow waits for a worker that died before another one takes it: the SDK's
	// default of 5 s would be most of the time that a killed worker costs.
	stickyTimeout = time.Second
	// parallelActivities bounds the work of one process: each backup or restore uses all CPUs by itself.
	parallelActivities = 4
)

// timeouts are after how long something is given up. They take effect for the runs whose decisions this worker makes.
type timeouts struct{ heartbeat, host time.Duration }

func (t timeouts) check() error {
	if t.heartbeat < time.Second || t.host < time.Second {
		return fmt.Errorf("--heartbeat-timeout %v, --host-timeout %v: each must be 1s or more", t.heartbeat, t.host)
	}
	return nil
}

// run polls until ctx ends, then hands on what is under way.
func run(ctx context.Context, set activities.Settings, limits timeouts, logger *slog.Logger) error {
	worker.SetStickyWorkflowCacheSize(200)
	opts, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{DisableFile: assemble.NoTemporalFile(os.LookupEnv)})
	if err != nil {
		return usageError{fmt.Errorf("read Temporal's settings: %w", err)}
	}
	if opts.HostPort == "" {
		opts.HostPort = client.DefaultHostPort
	}
	opts.Logger = log.NewStructuredLogger(logger)
	c, err := client.DialContext(ctx, opts)
	if err != nil {
		return fmt.Errorf("connect to Temporal at %s: %w; TEMPORAL_ADDRESS names another server, `make dev` starts one", opts.HostPort, err)
	}
	defer c.Close()
	registerAttributes(ctx, c, opts.Namespace, logger)

	fatal := make(chan error, 2)
	queue := contract.HostQueue(set.TaskQueue, set.Host)
	runner := activities.NewRunner(set)
	pollers := newPollers(c, set.TaskQueue, runner, limits, queue, func(err error) {
		select {
		case fatal <- err:
		default: // one is enough
		}
	})
	for i, p := range pollers {
		if err := p.Start(); err != nil {
			stopAll(pollers[:i])
			return fmt.Errorf("poll task queues %s and %s: %w", set.TaskQueue, queue, err)
		}
	}
	logger.Info("worker ready", "queues", []string{set.TaskQueue, queue}, "workDir", set.WorkDir, "program", set.Program)
	stopReaping := keepReaping(ctx, c, runner, logger)
	stopWatching := keepWatching(ctx, set.Clusters, logger)
	select {
	case err = <-fatal:
		err = fmt.Errorf("the worker cannot go on: %w", err)
	case <-ctx.Done():
	}
	logger.Info("worker stops; what is under way is handed on")
	stopReaping()
	stopWatching()
	stopAll(pollers)
	return err
}

// newPollers makes the worker for the shared queue, which runs workflows and activities, and the one for this host's
// own queue, which runs activities only.
func newPollers(c client.Client, queue string, runner *activities.Runner, limits timeouts, hostQueue string, failed func(error)) []worker.Worker {
	common := worker.Options{
		WorkerStopTimeout:                       stopTimeout,
		MaxHeartbeatThrottleInterval:            min(heartbeatInterval, limits.heartbeat/3),
		DefaultHeartbeatThrottleInterval:        heartbeatInterval,
		StickyScheduleToStartTimeout:            stickyTimeout,
		MaxConcurrentActivityExecutionSize:      parallelActivities,
		DisableRegistrationAliasing:             true,
		MaxConcurrentWorkflowTaskExecutionSize:  20,
		MaxConcurrentLocalActivityExecutionSize: parallelActivities,
		OnFatalError:                            failed,
	}
	shared := worker.New(c, queue, common)
	workflows.Options{HeartbeatTimeout: limits.heartbeat, HostTimeout: limits.host}.Register(shared)
	activities.Register(shared, runner)
	onHost := common
	onHost.DisableWorkflowWorker = true
	local := worker.New(c, hostQueue, onHost)
	activities.Register(local, runner)
	return []worker.Worker{shared, local}
}

// stopAll stops them at the same time: each waits for its activities up to stopTimeout.
func stopAll(workers []worker.Worker) {
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(w.Stop)
	}
	wg.Wait()
}

// registerAttributes adds the search attributes that are missing. A server on which this client may not, says so, and
// an operator adds them.
func registerAttributes(ctx context.Context, c client.Client, namespace string, logger *slog.Logger) {
	if namespace == "" {
		namespace = client.DefaultNamespace
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	missing := map[string]enums.IndexedValueType{}
	for _, name := range contract.Attributes() {
		if _, ok := have.GetCustomAttributes()[name]; !ok {
			missing[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	if err == nil && len(missing) > 0 {
		_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: namespace, SearchAttributes: missing,
		})
	}
	if err != nil {
		logger.Warn("search attributes could not be checked or added; workflows fail without them; add them by: "+
			"temporal operator search-attribute create --name LifeboatCluster --type Keyword "+
			"--name LifeboatPhase --type Keyword --name LifeboatVerdict --type Keyword", "error", err)
	}
}
