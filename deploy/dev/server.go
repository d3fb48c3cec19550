package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	startTimeout = 60 * time.Second

	// stopTimeout is what an orderly stop may take. Nothing is lost by ending
	// it early: all that was acknowledged is in the database.
	stopTimeout = 1500 * time.Millisecond

	pollInterval = 20 * time.Millisecond
)

// serve runs the server and the UI until ctx is done, or until one of them
// cannot go on. It prints the addresses to stdout once all of them answer.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) error {
	ps, err := choosePorts(&o)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, &o)
	if err != nil {
		return err
	}
	defer s.close()

	logger := newLogger(&o, stderr)
	cfg := serverConfig(&o, ps, s)
	if o.logConfig {
		_, _ = fmt.Fprintln(stderr, cfg.String())
	}
	server, err := newServer(&o, ps, cfg, logger)
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	ui := newWebUI(&o, ps)

	if err := start(ctx, &o, ps, server, ui); err != nil {
		// Not stopped in order: a server that is still starting cannot be, and
		// one that is killed loses nothing.
		return err
	}
	announce(stdout, &o, ps, ui)
	<-ctx.Done()
	logger.quiet()
	stop(server, ui)
	return nil
}

func newServer(o *options, ps ports, cfg *config.Config, logger *logger) (temporal.Server, error) {
	authorizer, err := authorization.GetAuthorizerFromConfig(&cfg.Global.Authorization)
	if err != nil {
		return nil, err
	}
	claimMapper, err := authorization.GetClaimMapperFromConfig(&cfg.Global.Authorization, logger)
	if err != nil {
		return nil, err
	}
	return temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(staticHosts(o, ps)),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claimMapper }),
		temporal.WithDynamicConfigClient(dynamicConfig(o)),
	)
}

// start starts server and UI and waits until both answer.
func start(ctx context.Context, o *options, ps ports, server temporal.Server, ui *webUI) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %v", startTimeout))
	defer cancel()

	started := make(chan error, 1)
	go func() { started <- server.Start() }()
	select {
	case err := <-started:
		if err != nil {
			return fmt.Errorf("start server: %w", err)
		}
	case <-ctx.Done():
		return fmt.Errorf("start server: %w", context.Cause(ctx))
	}
	if ui != nil {
		// It ends the process by itself if it cannot listen.
		go func() { _ = ui.server.Start() }()
	}
	if err := waitForNamespaces(ctx, dialAddr(o.ip, ps.frontend), o.namespaces); err != nil {
		return fmt.Errorf("wait for server: %w", err)
	}
	if ui != nil {
		if err := ui.waitReady(ctx); err != nil {
			return fmt.Errorf("wait for web UI: %w", err)
		}
	}
	return nil
}

// waitForNamespaces returns when the frontend can describe each of them.
func waitForNamespaces(ctx context.Context, addr string, namespaces []string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := workflowservice.NewWorkflowServiceClient(conn)
	for _, name := range namespaces {
		err := poll(ctx, func(ctx context.Context) error {
			_, err := client.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: name})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// poll calls f until it succeeds or ctx is done; then the error names the last
// failure too.
func poll(ctx context.Context, f func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// announce tells the person, or the program that started us, where things are.
func announce(w io.Writer, o *options, ps ports, ui *webUI) {
	line := func(what, where string) { _, _ = fmt.Fprintf(w, "%-18s %s\n", what+":", where) }
	line("Temporal Server", dialAddr(o.ip, ps.frontend))
	if ui != nil {
		line("Temporal UI", ui.url())
	}
	if ps.metrics != 0 {
		line("Temporal Metrics", "http://"+dialAddr(o.ip, ps.metrics)+"/metrics")
	}
	if o.dbFile != "" {
		line("State", o.dbFile)
	} else {
		line("State", "in memory, gone when this process ends")
	}
	line("Process", fmt.Sprint(os.Getpid()))
}

// stop stops both in order, but returns after stopTimeout in any case.
func stop(server temporal.Server, ui *webUI) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if ui != nil {
			ui.server.Stop()
		}
		_ = server.Stop() // it logs what goes wrong; the process ends anyway
	}()
	select {
	case <-done:
	case <-time.After(stopTimeout):
	}
}
