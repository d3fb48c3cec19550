// Package pg holds the values that PostgreSQL is spoken of in: positions in the
// write-ahead log, timelines, segments and their file names, timeline histories,
// the control file, time stamps and page checksums.
//
// It is pure: it reads no file, opens no connection and keeps no state, so every
// layer may use it. What a value means, and what is refused, follows PostgreSQL's
// own sources; each file names the header it was taken from. Formats are those of
// PostgreSQL 15 to 18 on little-endian machines (see [CheckMajor]).
//
// Parsing is strict. A name or number that PostgreSQL would not have written is an
// error rather than a guess: these values decide which WAL is replayed, and a
// lenient parser turns a typing error into the wrong history.
package pg
