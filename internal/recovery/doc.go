// Package recovery brings a cluster back: it plans, lays files, starts a server, and asserts what was reached.
//
// The protocol that it keeps:
//
//   - A plan is made from the repository alone: which backup, which WAL, where replay will stop, down to the record. A
//     target that cannot be reached is refused before anything is written; there is no falling back to another backup,
//     timeline or time. A plan is a value: it can be printed, and its hash names what will be done.
//   - Lay writes into an empty directory, or goes on with its own half-done work there. global/pg_control comes last,
//     after everything else is durable, so what is half done cannot be started (R3). The configuration that is laid
//     makes the server nobody's successor: it does not archive, connect out, or run jobs (R2).
//   - Start replays with a pause at the target, compares what the server reached with what the plan foretold, and only
//     then lets it promote. A server that reached anything else is stopped and the restore fails.
package recovery
