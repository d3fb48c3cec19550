package repo

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// EntryType tells what stands under a path.
type EntryType byte

// The types of entries. Device files, sockets and pipes are never part of a backup.
const (
	TypeFile    EntryType = 1
	TypeDir     EntryType = 2
	TypeSymlink EntryType = 3
)

// Entry is one line of a backup's file table.
type Entry struct {
	// Path is relative to the data directory, with slashes. Tablespaces stand under pg_tblspc/OID.
	Path string
	Type EntryType
	// Mode holds the permission bits.
	Mode fs.FileMode
	// ModTime is the file's own, in whole seconds; it restores as it was and decides nothing.
	ModTime time.Time
	// Size is the length in bytes; 0 for all but files.
	Size int64
	// CRC is the CRC-32C of the whole content.
	CRC uint32
	// Link is the target of a symbolic link.
	Link string

	root root
}

// root tells where a file's content is: nowhere (empty), one chunk that stands in the entry itself, or a tree.
type root struct {
	form  byte  // rootEmpty, rootChunk or rootNode
	level byte  // of the root node: 0 is a leaf
	ref   Chunk // the chunk, or the root node (CRC unused)
}

const (
	rootEmpty = 0
	rootChunk = 1
	rootNode  = 2
)

// A page of the file table ends after pageBytes of encoding, or earlier after an entry whose path's hash has
// pageMask clear: boundaries depend on paths, not on counts, so a new file changes one page, not all that follow.
const (
	pageBytes = 64 << 10
	pageMask  = 0xff
)

func pageBoundary(path string) bool { return crc32.Checksum([]byte(path), castagnoli)&pageMask == 0 }

// PageRef names a page of the file table and the first path in it. Its JSON is {"first", "ref"}, or {"firstHex", "ref"}
// for a path that is not UTF-8, which JSON cannot hold; backup_manifest does the same ("Encoded-Path",
// common/parse_manifest.c).
type PageRef struct {
	First string
	Ref   Ref
}

type pageRefJSON struct {
	First    string `json:"first,omitempty"`
	FirstHex string `json:"firstHex,omitempty"`
	Ref      Ref    `json:"ref"`
}

// MarshalJSON encodes the reference for a manifest.
func (p PageRef) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(p.First) {
		return json.Marshal(pageRefJSON{First: p.First, Ref: p.Ref})
	}
	return json.Marshal(pageRefJSON{FirstHex: hex.EncodeToString([]byte(p.First)), Ref: p.Ref})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *PageRef) UnmarshalJSON(data []byte) error {
	var j pageRefJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	raw, err := hex.DecodeString(j.FirstHex)
	if err != nil || (j.First == "") == (j.FirstHex == "") {
		return fmt.Errorf("page of the file table: one of first and firstHex must be a path: %q, %q", j.First, j.FirstHex)
	}
	p.First, p.Ref = j.First+string(raw), j.Ref
	return nil
}

// check refuses tables that no writer makes: Lookup relies on the order of the pages.
func (t *Table) check() error {
	for i := range t.Pages {
		p := &t.Pages[i]
		if err := p.Ref.check(); err != nil {
			return fmt.Errorf("page %d of the file table: %w", i, err)
		}
		if i > 0 && p.First <= t.Pages[i-1].First {
			return fmt.Errorf("page %d of the file table begins with %q, the one before with %q", i, p.First, t.Pages[i-1].First)
		}
	}
	return nil
}

// CheckPath tells whether a path can stand in a file table: relative, in its shortest form, and not too long. It is bytes,
// not necessarily UTF-8, unlike those that fs.ValidPath allows.
func CheckPath(path string) error { return checkPath(path) }

// checkPath refuses paths that could lead a restore out of its target. They are bytes, not necessarily UTF-8.
func checkPath(path string) error {
	if len(path) > maxPath || strings.IndexByte(path, 0) >= 0 {
		return fmt.Errorf("path %.100q has %d bytes or a zero byte: the limit is %d", path, len(path), maxPath)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("path %q is not relative to the data directory in its shortest form", path)
		}
	}
	return nil
}

// maxPath is the longest path and link target in bytes: PATH_MAX of Linux (linux/limits.h).
const maxPath = 4096

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
}

// appendEntry encodes e after a path prev, sharing their common beginning.
func appendEntry(out []byte, e *Entry, prev string, packs *packTable) []byte {
	shared := 0
	for shared < len(prev) && shared < len(e.Path) && prev[shared] == e.Path[shared] {
		shared++
	}
	out = binary.AppendUvarint(out, uint64(shared))
	out = appendString(out, e.Path[shared:])
	out = append(out, byte(e.Type))
	out = binary.AppendUvarint(out, uint64(e.Mode.Perm()))
	out = binary.AppendVarint(out, e.ModTime.Unix())
	switch e.Type {
	case TypeSymlink:
		out = appendString(out, e.Link)
	case TypeFile:
		out = binary.AppendUvarint(out, uint64(e.Size))
		out = binary.LittleEndian.AppendUint32(out, e.CRC)
		out = append(out, e.root.form)
		if e.root.form == rootNode {
			out = append(out, e.root.level)
		}
		if e.root.form != rootEmpty {
			out = appendRef(out, &e.root.ref.Ref, packs)
		}
	}
	return out
}

func appendString(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// encodePages cuts sorted entries into pages and gives each to emit.
func encodePages(entries []Entry, emit func(first string, page []byte) error) error {
	for len(entries) > 0 {
		var packs packTable
		var body []byte
		prev, n := "", 0
		for n < len(entries) {
			e := &entries[n]
			body = appendEntry(body, e, prev, &packs)
			prev = e.Path
			n++
			if len(body) >= pageBytes || pageBoundary(e.Path) {
				break
			}
		}
		page := packs.encode(nil)
		page = binary.AppendUvarint(page, uint64(n))
		if err := emit(entries[0].Path, append(page, body...)); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

func decodePage(b []byte) ([]Entry, error) {
	c := &cursor{b: b}
	packs := c.packTable()
	n := c.count(5)
	entries := make([]Entry, 0, min(n, 1024)) // an Entry takes far more memory than its encoding
	prev := ""
	for len(entries) < n && c.err == nil {
		e := c.entry(prev, packs)
		if c.err == nil && len(entries) > 0 && e.Path <= prev {
			return nil, fmt.Errorf("path %q does not follow %q", e.Path, prev)
		}
		prev = e.Path
		entries = append(entries, e)
	}
	return entries, c.end()
}

func (c *cursor) entry(prev string, packs []PackID) (e Entry) {
	shared := c.count(0)
	if shared > len(prev) {
		c.fail(fmt.Errorf("path shares %d bytes of %q", shared, prev))
		return e
	}
	e.Path = prev[:shared] + string(c.bytes(c.count(1)))
	if err := checkPath(e.Path); err != nil {
		c.fail(err)
	}
	e.Type = EntryType(c.byte())
	e.Mode = fs.FileMode(c.small()).Perm()
	e.ModTime = time.Unix(c.varint(), 0).UTC()
	switch e.Type {
	case TypeDir:
	case TypeSymlink:
		e.Link = string(c.bytes(c.count(1)))
	case TypeFile:
		c.content(&e, packs)
	default:
		c.fail(fmt.Errorf("entry of type %d", e.Type))
	}
	return e
}

// content reads what an entry says of a file's bytes.
func (c *cursor) content(e *Entry, packs []PackID) {
	e.Size = int64(c.uvarint())
	e.CRC = c.u32()
	e.root.form = c.byte()
	switch e.root.form {
	case rootNode:
		e.root.level = c.byte()
		e.root.ref.Ref = c.ref(packs)
	case rootChunk:
		e.root.ref = Chunk{Ref: c.ref(packs), CRC: e.CRC}
		if int64(e.root.ref.Raw) != e.Size {
			c.fail(fmt.Errorf("file %q has %d bytes, its only chunk %d", e.Path, e.Size, e.root.ref.Raw))
		}
	case rootEmpty:
	default:
		c.fail(fmt.Errorf("root of form %d", e.root.form))
	}
	if e.Size < 0 || (e.root.form == rootEmpty) != (e.Size == 0) {
		c.fail(fmt.Errorf("file %q of %d bytes has a root of form %d", e.Path, e.Size, e.root.form))
	}
}
