// Command devserver is a whole Temporal service in one process: frontend,
// history, matching and worker, the web UI, and SQLite below them.
//
// It exists so that Lifeboat can be tried and tested on one machine with
// nothing but Go. It is the real server, not a simulation: what runs against it
// runs against a production cluster. It is not a production service itself: one
// process, one history shard, no authentication, no TLS.
//
// # Command line
//
// The flags are those of "server start-dev" of the Temporal command line tool,
// so that either binary can be given to testsuite.StartDevServer of the Go SDK
// (DevServerOptions.ExistingPath), and so that a person who knows one knows the
// other. What this program does not know it refuses, with exit code 2.
//
//	devserver server start-dev --port 7233 --db-filename /tmp/dev.db \
//	    --search-attribute LifeboatCluster=Keyword
//	devserver --version
//
// # What it promises
//
//   - It listens on the address that --ip names (127.0.0.1 unless told
//     otherwise), and on 127.0.0.1 for what its services say to each other. It
//     calls nobody: the server's version check and the UI's news are off.
//   - It prints its addresses on standard output once, when DescribeNamespace
//     answers for every namespace and the UI serves. Until then it prints
//     nothing there. Logs and errors go to standard error.
//   - With --db-filename all state is in that file (and its -wal and -shm
//     neighbours). Killed at any moment, it goes on from there; the search
//     attributes are in the file and need not be named again. Those that are
//     named and missing are added, also to a file that exists. Without
//     --db-filename all state is gone when the process ends.
//   - One process a file: a second one is refused by a lock on FILE.lock.
//   - SIGINT, SIGTERM and SIGHUP end it within two seconds, with exit code 0.
//     Whoever must not leave it behind sets Pdeathsig; SIGKILL is safe.
//
// Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage.
//
// # Module
//
// The server has some 1800 packages. They live in a module of their own, so
// that neither the programs of Lifeboat nor their dependencies carry them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	uiversion "github.com/temporalio/ui-server/v2/server/version"
	"go.temporal.io/server/common/headers"
)

func main() {
	// A parent that stops reading our output must not end the server.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run does what args ask for and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd, err := parseCommand(args)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "devserver: %v\n", err)
		return 2
	}
	switch cmd.verb {
	case verbVersion:
		_, _ = fmt.Fprintln(stdout, versionLine())
	case verbHelp:
		_, _ = fmt.Fprint(stdout, usage())
	case verbStart:
		err = serve(ctx, cmd.options, stdout, stderr)
	}
	if err != nil && ctx.Err() == nil { // what fails after a signal was told to end
		_, _ = fmt.Fprintf(stderr, "devserver: %v\n", err)
		return 1
	}
	return 0
}

// versionLine has the form of "temporal --version", which scripts parse for the
// server's version.
func versionLine() string {
	return fmt.Sprintf("lifeboat-devserver version %s (Server %s, UI %s)",
		headers.ServerVersion, headers.ServerVersion, uiversion.UIVersion)
}
