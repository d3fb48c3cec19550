// Package dbcore is the connection core for PostgreSQL 15 and later: pools, transactions, retries, circuit breakers,
// health, pinned sessions and base backups over pgx, with errors that say what is known and what is not.
//
// # What a failed statement means
//
// A client learns the fate of a statement only from the server's answer, so there are three outcomes and not two:
//
//   - The server answered. SQLState tells its error; an ERROR is a definite no, the transaction is rolled back.
//   - Nothing was sent: no connection could be made (*ConnectError), or it had ended before (ErrClosed), or the first
//     byte could not be written. A definite no as well.
//   - Something was sent and no answer came. Outside a transaction that is ErrConnectionLost, at a COMMIT it is
//     ErrCommitAmbiguous, and the change may be there or not. Running it again may do it twice.
//
// The driver's own verdict, pgconn.SafeToRetry, is not used for this: in pgx 5.9 to 5.12 it calls some statements
// that the server has run safe to send again. The errors of this package answer false where the outcome is open, also
// to pgconn.SafeToRetry.
//
// # The order of policies
//
// A request on a DB passes
//
//	budget → retry → circuit breaker → acquire → transaction → PostgreSQL
//
// and each policy stands where it does for a reason. The Budget speaks for all requests together, so it is outermost:
// it keeps the retries of a whole program from multiplying the load on a database that is going down. RetryConfig comes
// before the Breaker, so that the breaker sees every attempt and ends the retries when it opens. The breaker comes before
// the pool, so that requests which have no chance do not queue for connections. And a transaction is one attempt as a
// whole: PostgreSQL asks for the complete transaction to be redone after a serialization failure (section 13.5), and a
// breaker between its statements could hold up a COMMIT.
//
// Classify decides what may be repeated: an error means different things when connecting, in a transaction, outside of
// one, and at COMMIT. What the server may have run is repeated only if Op.Idempotent declares that it may; a COMMIT whose
// answer was lost never is, but TxOptions.Verify finds out about it. Sessions of one's own (Conn, ReplicationConn) pass no
// policy: nobody can repeat for them.
//
// # Contexts
//
// A context that ends while a statement runs ends the wait and costs the connection: the answer may still be under
// way, and nobody could tell it from that of the next statement. Bound statements by Config.StatementTimeout instead,
// which the server obeys. COMMIT and ROLLBACK run on contexts of their own, with bounds of their own, so that a
// caller who gives up neither loses the connection nor turns a commit into a riddle.
//
// # Three kinds of connection
//
// A DB is a pool, for short statements and transactions. A Conn is one session; from Connect it is direct and never
// replaced, as pg_backup_start needs. A ReplicationConn talks to a walsender and takes base backups: see
// ReplicationConn.BaseBackup.
//
// # Secrets
//
// Passwords and connection strings are Secrets, which print as "[redacted]" everywhere. No error of this package
// contains a password or wraps a value that holds one. Over TCP the default is sslmode=require, where libpq's and
// pgx's is prefer, which falls back to plain text when someone on the way says that TLS is not available.
package dbcore
