// Command lifeboat starts Lifeboat's workflows and shows what they did; wal-push, wal-fetch and every verb with --local
// need no Temporal.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv}
	os.Exit(a.main(ctx, os.Args[1:]))
}
