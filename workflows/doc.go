// Package workflows holds Lifeboat's durable runs: Backup, Restore, Verify and Drill.
//
// A workflow here decides order and outcome, nothing else. All that touches a disk, a network or a clock happens in
// activities, which the workflows call by the names of package contract, so that this package imports only that, the
// Temporal SDK and the standard library.
//
// What every workflow keeps:
//
//   - One input: one JSON object, decoded strictly, because people type it into the Temporal UI. What cannot be meant
//     fails the run at once with an application error of type contract.ErrorInvalidInput; it is never retried.
//   - One result, one of package contract.
//   - Relative times ("5 minutes ago") are made absolute once, when the run starts, so that a retried activity aims at
//     the same second as the first attempt did.
//   - Work that needs a host (a data directory, a local server) goes to that host's own task queue, HostQueue of the
//     queue that the workflow itself runs on. If no worker takes it in time, the host is lost: the run says so rather
//     than waiting for ever.
//   - Every activity must heartbeat: that is how a dead worker is noticed and how a cancellation arrives.
//   - Errors that a decision stands on carry a type of package contract and are not retried; all others are.
//   - Nothing is decided by a wall clock, a random number or the order of a map, so that another worker can replay the
//     history and go on. testdata/replay holds recorded histories that must replay for ever, or the change needs
//     workflow.GetVersion.
//
// Workflows do not see heartbeats. So that people see more than the name of a phase, a worker signals how far a long
// activity is (contract.ProgressSignal): a few dozen times at most in each phase, whatever its length.
//
// What a person sees in the UI: the search attributes of package contract, a summary at each activity, and the current
// details in Markdown, which are the list of phases with their figures. Query "progress" gives the same as JSON.
package workflows
