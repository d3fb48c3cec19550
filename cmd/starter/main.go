// Command lifeboat starts Lifeboat's workflows and shows what they did; wal-push, wal-fetch and every verb with --local
// need no Temporal.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	a := &app{stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv}
	if fetches(newRootCommand(a), os.Args[1:]) {
		// A goroutine that panics ends a program with 2, which PostgreSQL would take for the end of WAL. So it ends by
		// a signal instead, which stops the recovery (R16).
		debug.SetTraceback("crash")
	}
	os.Exit(a.main(ctx, os.Args[1:]))
}
