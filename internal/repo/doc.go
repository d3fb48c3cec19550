// Package repo is Lifeboat's repository: the only source of truth about backups, WAL and evidence.
//
// A repository lives in an object store (package blob) and holds, for each cluster, chunks of files in packs, trees of
// chunk lists, manifests, and WAL. docs/repository-format.md specifies every byte, so that another program can read
// it; decision 0001 argues the sizes. The protocol that this package keeps:
//
//   - A chunk is a run of up to Header.ChunkSize bytes of one file, named by a keyed BLAKE3 hash of its plain bytes.
//     Chunks are compressed, sealed, and collected into packs. A pack's name is its salt: random, never derived from
//     content (R13), so two writers never meet on one name.
//   - A file is a tree: leaves list the chunks of Header.LeafSpan bytes, index nodes list leaves. Nodes carry the
//     places of their chunks, so any page of any file is found by one lookup and one ranged read, with no index of
//     the repository in memory. Nodes are stored like chunks, and unchanged nodes are shared between backups.
//   - The file table of a backup is a sequence of pages sorted by path. The manifest names the pages.
//   - The manifest is written last, and only if absent: a backup is visible only when it is complete. Before it, an
//     intent announces the backup (R12) and checkpoints record what a later attempt need not store again (R6).
//   - Every byte that is read back is checked: each frame carries a tag that binds it to its repository, object,
//     position and order, and each chunk must hash to its name before it is used.
//   - WAL is one object a segment, whose head says what is in it (R15).
//
// Memory is bounded whatever the cluster's size, except for about 250 bytes a file while a backup is being written.
package repo
