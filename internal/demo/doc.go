// Package demo is the whole of Lifeboat on one machine, with an accident: it starts a PostgreSQL server with load, an
// embedded Temporal and a worker, takes a backup, drops a table, rehearses the recovery to the second before, and
// fails unless everything came back as it was. It drives the same programs that a person would type, and it harms only
// what it made itself (invariant 13).
package demo

import (
	"io"
	"time"
)

// Options say how to run it.
type Options struct {
	// Lifeboat and Worker are the programs; they are copied to where the servers' user can run them.
	Lifeboat, Worker string
	// TemporalServer is a program that takes the Temporal CLI's `server start-dev` flags; not needed if TemporalAddress
	// names a server that runs.
	TemporalServer  string
	TemporalAddress string
	// Major of PostgreSQL; 0 is the newest that is installed. BinDirs are searched before the usual places.
	Major   int
	BinDirs []string
	// Keep leaves everything up. StackOnly starts everything, takes a backup, leaves it up and stages no accident.
	Keep, StackOnly bool
	// Kill kills the worker with -9 while it restores; another goes on.
	Kill bool
	// Sabotage spoils the recovery, to prove that the demo can fail: no-wal, wrong-target or wrong-row.
	Sabotage string
	// Rows is how many rows the table holds before the load; 0 is 200 000, about 60 MB.
	Rows int
	Out  io.Writer
}

// timings of the demo.
const (
	startTimeout  = 60 * time.Second
	verbTimeout   = 10 * time.Minute
	loadPause     = 2 * time.Millisecond
	beforeLoss    = 1200 * time.Millisecond // from the target to the row that must not come back
	stopTimeout   = 20 * time.Second
	archiveWithin = 60 * time.Second
)
