// Package migrate applies schema migrations to PostgreSQL 15 and later, and says beforehand what they will do.
//
// It reads golang-migrate's files (NNN_title.up.sql, NNN_title.down.sql) and keeps golang-migrate's table
// schema_migrations, so that either tool understands what the other has done; and it takes the same advisory locks, so
// that they exclude each other. What it adds:
//
//   - A file that can run in a transaction does, together with its version and its line of history: either all of it
//     happened or nothing did. Only files with statements that refuse transactions (CREATE INDEX CONCURRENTLY) can stop
//     half-way; of those each statement is recorded, and Repair asks the catalogs what became of the last one.
//   - The lock is polled, so that a waiting migrator holds no snapshot for which a concurrent index build would have to
//     wait; it ends with its context, and leaves nobody behind who takes the lock later. It is held by the session that
//     does the work, on a direct connection: through a pooler a session lock belongs to nobody, which is refused.
//   - Statements wait for their locks only for a moment and then try again, so that nobody queues behind them; an error
//     names those who were in the way.
//   - A history with checksums: edited, missing, skipped and out-of-order files are errors that say what to do.
//   - Three ways to know before: Plan touches nothing and lints by PostgreSQL's own grammar, Check asks the server
//     without changing it, Rehearse runs it all on a clone and measures.
//
// Directives are comments in the files:
//
//	-- migrate:ignore RULE: REASON        before a statement: the finding is accepted, for this reason
//	-- migrate:ignore-file RULE: REASON   anywhere: for all statements of the file
//	-- migrate:no-transaction             run the file statement by statement (for procedures that commit)
//	-- migrate:irreversible: REASON       in a down file: there is no way back, Down refuses
package migrate
