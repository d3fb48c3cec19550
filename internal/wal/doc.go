// Package wal moves write-ahead log between PostgreSQL and the repository, and knows what of it is there.
//
// The protocol that it keeps:
//
//   - A segment is acknowledged (Push returns nil, so archive_command exits 0) only when it is durable in the
//     repository. The same segment twice is one segment; other bytes under its name are an error that changes nothing.
//   - Each stored segment carries facts read from its records (package walrecord), so plans never go by file times.
//   - Fetch never ends a recovery early (R16): PostgreSQL takes exit codes 1 to 125 of restore_command for "end of
//     WAL", so only a file that truly is not part of the recovery is reported as absent.
//   - The frontier, the end of the WAL without a gap, is computed from a listing of the repository, never from what a
//     server believes it has archived.
package wal
