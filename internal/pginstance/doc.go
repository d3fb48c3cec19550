// Package pginstance runs a PostgreSQL server that belongs to us: a throw-away one for a drill or a check, or a
// restored one that a person goes on to use. It makes clusters (InitDB), starts servers (Start), finds one that an
// earlier process started (Attach, Running), watches them through recovery (Status, WaitUntil), stops them (Stop) and
// removes them (Destroy).
//
// # Whose server is it, and when does it end
//
// A server is started in one of two ways (R21):
//
//   - Bound, the default: it dies with the process that started it, also when that one is killed with SIGKILL. The
//     kernel sends SIGQUIT, PostgreSQL's immediate shutdown. Fast shutdown (SIGINT) would be kinder, but it writes a
//     checkpoint and waits for the archiver: a throw-away server has nothing to keep, and must not be able to hang.
//     SIGKILL would leave shared memory and a running restore_command behind. What an immediate shutdown interrupts is
//     repeated by crash recovery, or by replay from the last restartpoint.
//   - Detached: it has a session of its own and stays up. Its record is postmaster.pid in its data directory, by which
//     Attach finds it again.
//
// # What is never left to the restored configuration
//
// A restored data directory brings the configuration of the cluster that it was copied from, and that can point back
// at it: data_directory at the live files, external_pid_file at the live server's pid file, logging_collector at its
// log directory. Start therefore overrides these on the command line, which beats every configuration file (rules R1
// and R2; see forcedSettings).
//
// # How recovery is watched
//
// "pg_ctl -w start" is not used: with hot standby it reports success as soon as the server accepts connections, which
// may be seconds before the startup process gives up with "recovery ended before configured recovery target was
// reached". Three sources are read instead, again and again: the life of the postmaster, SQL over the socket
// (pg_is_in_recovery, pg_get_wal_replay_pause_state, ...), and the server's log, which alone says that a recovery
// target was reached ("recovery stopping ...") and why a server ended (FATAL). The order matters: the log is read after
// the answer, because PostgreSQL logs first and pauses or exits afterwards.
//
// The package works on Linux only: it needs /proc and the parent-death signal (prctl(2), PR_SET_PDEATHSIG).
package pginstance
