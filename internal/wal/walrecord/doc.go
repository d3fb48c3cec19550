// Package walrecord reads PostgreSQL's write-ahead log record by record, and tells of
// one segment file what it holds.
//
// # The format
//
// WAL is one endless row of bytes, cut into segment files and these into pages of
// 8 KiB. Each page begins with a header that names its own position and timeline, and
// in the first page of a segment also the cluster. Records follow, each on a multiple
// of 8 bytes, each with its length, the position of the record before it, and a CRC.
// A record that does not fit goes on behind the next page's header, if need be in the
// next segment. This package follows access/xlog_internal.h, access/xlogrecord.h and
// access/transam/xlogreader.c of PostgreSQL 15 to 18.
//
// # Where WAL ends
//
// Nothing marks the end. WAL ends where the next record is not valid: zeroes, or what
// an earlier use left in a recycled file. So a [Reader] never fails on bad bytes; it
// reports an [*EndOfWAL] with the position and the reason, and leaves it to the caller
// whether that is the expected end (of a crashed server's last segment) or a hole (in
// the middle of an archive). It is never io.EOF, so that no loop ends on damage in
// silence.
//
// # Facts, and the record in between
//
// [ScanFacts] reads one segment by itself, so that the segment can be archived with
// what is in it (R15), in any order and by several writers. A record that crosses into
// the next segment belongs to neither alone. Its beginning is kept as the [Tail] of the
// one, its rest as the [Head] of the other, and [Join] makes the record's fact of the
// two and proves it by the record's CRC. Who plans with facts must join each pair of
// neighbours, or will miss a commit now and then.
//
// # Bounds
//
// Segments come from repositories and crashed disks, so every length in them is
// hostile until its CRC is checked. The reader streams: it holds a few hundred
// kilobytes however long a record is, and lists in facts are cut at [MaxListed].
package walrecord
