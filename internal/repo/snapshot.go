package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync/atomic"
)

// Snapshot is a visible backup, open for reading. It is safe for concurrent use.
type Snapshot struct {
	Manifest *Manifest
	rd       reader
	last     atomic.Pointer[openPage] // the page that Lookup read last: who asks in order decodes each page once
}

// openPage is a decoded page of the file table. It is never changed.
type openPage struct {
	number  int
	entries []Entry
}

// OpenBackup opens a visible backup.
func (r *Repository) OpenBackup(ctx context.Context, cluster, id string) (*Snapshot, error) {
	m, err := r.Manifest(ctx, cluster, id)
	if err != nil {
		return nil, err
	}
	return &Snapshot{Manifest: m, rd: reader{r, cluster}}, nil
}

func (s *Snapshot) page(ctx context.Context, p PageRef) ([]Entry, error) {
	plain, err := s.rd.tree(ctx, p.Ref)
	if err != nil {
		return nil, fmt.Errorf("read file table of backup %s: %w", s.Manifest.BackupID, err)
	}
	entries, err := decodePage(plain)
	if err == nil && (len(entries) == 0 || entries[0].Path != p.First) {
		err = errors.New("it begins with another path")
	}
	if err != nil {
		return nil, s.rd.damagedTree(p.Ref, fmt.Errorf("page of the file table from %q: %w", p.First, err))
	}
	return entries, nil
}

// Entries yields the file table in order of paths. It stops at the first error, which is yielded with a zero Entry; a
// table with fewer entries than the manifest counts is damaged.
func (s *Snapshot) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var n int64
		for _, p := range s.Manifest.Table.Pages {
			entries, err := s.page(ctx, p)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range entries {
				if n++; !yield(e, nil) {
					return
				}
			}
		}
		if n != s.Manifest.Table.Files {
			yield(Entry{}, &DamageError{
				Key: backupKey(s.Manifest.Cluster, s.Manifest.BackupID), Frame: 0,
				Reason: fmt.Sprintf("its file table has %d entries, not %d", n, s.Manifest.Table.Files),
			})
		}
	}
}

// Lookup finds one entry by its path, reading one page. It makes a Snapshot a Baseline.
func (s *Snapshot) Lookup(ctx context.Context, path string) (Entry, bool, error) {
	pages := s.Manifest.Table.Pages
	i, exact := slices.BinarySearchFunc(pages, path, func(p PageRef, path string) int { return cmp.Compare(p.First, path) })
	if !exact {
		i--
	}
	if i < 0 {
		return Entry{}, false, nil
	}
	entries, err := s.pageAt(ctx, i)
	if err != nil {
		return Entry{}, false, err
	}
	j, ok := slices.BinarySearchFunc(entries, path, func(e Entry, path string) int { return cmp.Compare(e.Path, path) })
	if !ok {
		return Entry{}, false, nil
	}
	return entries[j], true, nil
}

func (s *Snapshot) pageAt(ctx context.Context, number int) ([]Entry, error) {
	if p := s.last.Load(); p != nil && p.number == number {
		return p.entries, nil
	}
	entries, err := s.page(ctx, s.Manifest.Table.Pages[number])
	if err != nil {
		return nil, err
	}
	s.last.Store(&openPage{number, entries})
	return entries, nil
}

// Piece is a stretch of a file that one leaf covers: the unit of parallel reading, up to Header.LeafSpan bytes.
type Piece struct {
	Offset, Length int64
	leaf           Ref
	single         *Chunk
}

// Pieces lists the stretches of a file, in order. Empty files have none.
func (s *Snapshot) Pieces(ctx context.Context, e *Entry) ([]Piece, error) {
	switch e.root.form {
	case rootEmpty:
		return nil, nil
	case rootChunk:
		return []Piece{{Length: e.Size, single: &e.root.ref}}, nil
	}
	tree, err := s.rd.fileTree(ctx, e)
	if err != nil {
		return nil, err
	}
	pieces := make([]Piece, len(tree.leaves))
	var offset int64
	for i, l := range tree.leaves {
		pieces[i] = Piece{Offset: offset, Length: int64(l.span), leaf: l.Ref}
		offset += int64(l.span)
	}
	return pieces, nil
}

func (s *Snapshot) extents(ctx context.Context, p *Piece) ([]Extent, error) {
	if p.single != nil {
		return []Extent{{Chunk: *p.single, Length: p.single.Raw}}, nil
	}
	l, err := s.rd.leaf(ctx, p.leaf)
	if err != nil {
		return nil, err
	}
	extents := l.list()
	var total int64
	for i := range extents {
		total += int64(extents[i].Length)
	}
	if total != p.Length {
		return nil, s.rd.damagedTree(p.leaf, fmt.Errorf("it covers %d bytes, not %d", total, p.Length))
	}
	return extents, nil
}

// readGap is how many unneeded bytes between two frames are read rather than asking twice, and readMost the longest
// single read. Both favour object stores, where a request costs as much as some hundred KiB.
const (
	readGap  = 64 << 10
	readMost = 4 << 20
)

// ReadPiece reads a piece's chunks, checks each, and gives their bytes to write at their file offsets, in any order.
// keep, if not nil, is asked first for what is at the target already: if it returns true for a chunk, the chunk is not
// read. write must not keep the bytes.
func (s *Snapshot) ReadPiece(ctx context.Context, p *Piece, keep func(offset int64, c Chunk) (bool, error),
	write func(offset int64, plain []byte) error,
) error {
	extents, err := s.extents(ctx, p)
	if err != nil {
		return err
	}
	todo := make([]placed, 0, len(extents))
	offset := p.Offset
	for i := range extents {
		e := &extents[i]
		kept := false
		if keep != nil && e.ChunkOffset == 0 && e.Length == e.Chunk.Raw {
			if kept, err = keep(offset, e.Chunk); err != nil {
				return err
			}
		}
		if !kept {
			todo = append(todo, placed{e, offset})
		}
		offset += int64(e.Length)
	}
	slices.SortFunc(todo, func(a, b placed) int {
		return cmp.Or(slices.Compare(a.Chunk.Pack[:], b.Chunk.Pack[:]), cmp.Compare(a.Chunk.Offset, b.Chunk.Offset))
	})
	var buf readBuffers
	for len(todo) > 0 {
		n := run(todo)
		if err := s.readRun(ctx, todo[:n], &buf, write); err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

type placed struct {
	*Extent
	at int64 // in the file
}

type readBuffers struct{ sealed, plain []byte }

// run tells how many of the first extents one read should cover.
func run(todo []placed) int {
	first := todo[0].Chunk
	n, end := 1, int64(first.Offset)+int64(first.Stored)
	for ; n < len(todo); n++ {
		c := todo[n].Chunk
		next := int64(c.Offset) + int64(c.Stored)
		if c.Pack != first.Pack || int64(c.Offset) > end+readGap || next-int64(first.Offset) > readMost {
			break
		}
		end = max(end, next)
	}
	return n
}

func (s *Snapshot) readRun(ctx context.Context, todo []placed, buf *readBuffers, write func(int64, []byte) error) error {
	begin := int64(todo[0].Chunk.Offset)
	var end int64
	for _, p := range todo {
		end = max(end, int64(p.Chunk.Offset)+int64(p.Chunk.Stored))
	}
	key := packKey(s.rd.cluster, KindData, todo[0].Chunk.Pack)
	sealed, err := s.rd.repo.readRange(ctx, key, begin, end-begin, buf.sealed)
	if err != nil {
		return err
	}
	buf.sealed = sealed
	for _, p := range todo {
		at := int64(p.Chunk.Offset) - begin
		plain, err := s.rd.check(KindData, &p.Chunk.Ref, sealed[at:at+int64(p.Chunk.Stored)], buf.plain)
		if err != nil {
			return err
		}
		buf.plain = plain
		if err := write(p.at, plain[p.ChunkOffset:p.ChunkOffset+p.Length]); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt fills dst from offset of a file: random access by one lookup and one ranged read a chunk. At the end of the
// file it returns what there is and io.EOF.
func (s *Snapshot) ReadAt(ctx context.Context, e *Entry, dst []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("read %s at %d: the offset is negative", e.Path, offset)
	}
	if offset >= e.Size {
		return 0, io.EOF
	}
	want := dst[:min(int64(len(dst)), e.Size-offset)]
	pieces, err := s.Pieces(ctx, e)
	if err != nil {
		return 0, err
	}
	for i := range pieces {
		p := &pieces[i]
		if p.Offset+p.Length <= offset || p.Offset >= offset+int64(len(want)) {
			continue
		}
		if err := s.readOverlap(ctx, p, want, offset); err != nil {
			return 0, err
		}
	}
	if len(want) < len(dst) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// readOverlap copies what a piece has of [offset, offset+len(want)) into want.
func (s *Snapshot) readOverlap(ctx context.Context, p *Piece, want []byte, offset int64) error {
	extents, err := s.extents(ctx, p)
	if err != nil {
		return err
	}
	at := p.Offset
	for i := range extents {
		e := &extents[i]
		from, to := max(at, offset), min(at+int64(e.Length), offset+int64(len(want)))
		if from < to {
			plain, err := s.rd.frame(ctx, KindData, &e.Chunk.Ref, nil)
			if err != nil {
				return err
			}
			skip := int64(e.ChunkOffset) + from - at
			copy(want[from-offset:to-offset], plain[skip:])
		}
		at += int64(e.Length)
	}
	return nil
}

// ReadFile returns a whole small file.
func (s *Snapshot) ReadFile(ctx context.Context, path string, most int64) ([]byte, error) {
	e, ok, err := s.Lookup(ctx, path)
	if err != nil {
		return nil, err
	}
	if !ok || e.Type != TypeFile || e.Size > most {
		return nil, fmt.Errorf("backup %s has no file %s of at most %d bytes", s.Manifest.BackupID, path, most)
	}
	data := make([]byte, e.Size)
	if n, err := s.ReadAt(ctx, &e, data, 0); int64(n) != e.Size {
		return nil, fmt.Errorf("read %s of backup %s: %w", path, s.Manifest.BackupID, err)
	}
	return data, nil
}

// HasContent tells whether plain bytes are the content of c: it hashes them.
func (s *Snapshot) HasContent(c Chunk, plain []byte) bool {
	return len(plain) == int(c.Raw) && s.rd.repo.name(plain) == c.ID
}
