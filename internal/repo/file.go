package repo

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync/atomic"
)

// FileWriter stores one file's content. It is used by one goroutine; the file is finished in the background some time
// after Close.
type FileWriter struct {
	w      *Writer
	entry  Entry
	cursor *leafCursor // of the baseline; nil without one
	base   fileTree    // the baseline's nodes
	offset int64
	crc    uint32
	closed bool
	node   *fileNode
	nodes  []*fileNode
	left   atomic.Int32 // nodes that are not stored, plus 1 while the file is open
}

// fileNode is a leaf in the making.
type fileNode struct {
	fw     *FileWriter
	number int
	span   int
	chunks []Chunk      // room for a whole leaf: workers fill it while it grows
	count  int          // chunks begun
	left   atomic.Int32 // chunks that are not stored, plus 1 while the node is open
	ref    Ref
}

// chunkJob is a chunk on its way to a worker.
type chunkJob struct {
	node   *fileNode
	number int
	offset int64
	data   []byte
	known  *Chunk // what the baseline has at this place
}

// File begins a file; e gives path, mode and modification time.
func (w *Writer) File(ctx context.Context, e Entry) (*FileWriter, error) {
	if err := checkPath(e.Path); err != nil {
		return nil, fmt.Errorf("store the file table: %w", err)
	}
	e.Type, e.Size = TypeFile, 0
	fw := &FileWriter{w: w, entry: e}
	fw.left.Store(1)
	rd := reader{w.repo, w.opts.Cluster}
	var err error
	if fw.cursor, err = baselines(w.opts.Baselines).cursor(ctx, rd, e.Path); err != nil {
		return nil, err
	}
	if fw.cursor != nil {
		fw.base = fw.cursor.tree
	}
	w.mu.Lock()
	w.open++
	w.writing++
	w.mu.Unlock()
	return fw, nil
}

// ReadFrom stores all of r after what was stored before. A short piece at the end of one call ends a chunk, so a file
// should come in one call.
func (fw *FileWriter) ReadFrom(r io.Reader) (int64, error) {
	if fw.closed {
		return 0, fmt.Errorf("store %s: %w", fw.entry.Path, fs.ErrClosed)
	}
	var total int64
	for {
		buf, err := fw.w.buffer()
		if err != nil {
			return total, err
		}
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			total += int64(n)
			if perr := fw.put(buf[:n]); perr != nil {
				return total, perr
			}
		} else {
			fw.w.buffers <- buf
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("read %s: %w", fw.entry.Path, err)
		}
	}
}

// buffer waits for a free chunk buffer: this is what bounds the memory.
func (w *Writer) buffer() ([]byte, error) {
	select {
	case buf := <-w.buffers:
		if buf == nil {
			buf = make([]byte, w.repo.header.ChunkSize)
		}
		return buf[:cap(buf)], nil
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
}

func (fw *FileWriter) put(data []byte) error {
	w := fw.w
	if fw.node == nil {
		most := w.repo.header.LeafSpan / w.repo.header.ChunkSize
		fw.node = &fileNode{fw: fw, number: len(fw.nodes), chunks: make([]Chunk, most)}
		fw.node.left.Store(1)
		fw.left.Add(1)
		fw.nodes = append(fw.nodes, fw.node)
	}
	n := fw.node
	job := &chunkJob{node: n, number: n.count, offset: fw.offset, data: data}
	if fw.cursor != nil {
		known, err := fw.cursor.at(w.ctx, fw.offset, len(data))
		if unusable(err) {
			fw.cursor = nil
		} else if err != nil {
			return err
		}
		job.known = known
	}
	n.count++
	n.left.Add(1)
	n.span += len(data)
	fw.offset += int64(len(data))
	fw.crc = crc32.Update(fw.crc, castagnoli, data)
	w.source.Add(int64(len(data)))
	select {
	case w.jobs <- job:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	if n.count == len(n.chunks) {
		fw.node = nil
		return w.settled(n)
	}
	return nil
}

// Close ends the file's content. A second call does nothing. A file whose reading failed must not be closed, since its
// entry would say that it is whole: such a backup is given up by Writer.Close.
func (fw *FileWriter) Close() error {
	if fw.closed {
		return nil
	}
	fw.closed = true
	fw.w.mu.Lock()
	fw.w.writing--
	fw.w.mu.Unlock()
	fw.entry.Size, fw.entry.CRC = fw.offset, fw.crc
	if n := fw.node; n != nil {
		fw.node = nil
		if err := fw.w.settled(n); err != nil {
			return err
		}
	}
	return fw.finished()
}

// work handles chunks until there are no more.
func (w *Writer) work(comp *compressor) error {
	for {
		select {
		case job, ok := <-w.jobs:
			if !ok {
				return nil
			}
			err := w.storeChunk(comp, job)
			w.buffers <- job.data
			if err == nil {
				err = w.settled(job.node)
			}
			if err != nil {
				return err
			}
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
}

func (w *Writer) storeChunk(comp *compressor, job *chunkJob) error {
	if w.opts.Inspect != nil {
		w.opts.Inspect(job.node.fw.entry.Path, job.offset, job.data)
	}
	w.chunks.Add(1)
	id := w.repo.name(job.data)
	if job.known != nil && job.known.ID == id && w.shared.use(KindData, &job.known.Ref) {
		job.node.chunks[job.number] = *job.known
		return nil
	}
	w.changed.Add(int64(len(job.data)))
	if c, ok := w.recent.get(id); ok && int(c.Raw) == len(job.data) {
		job.node.chunks[job.number] = c
		return nil
	}
	ref, err := w.data.add(id, comp.payload(job.data), len(job.data))
	if err != nil {
		return err
	}
	w.newChunks.Add(1)
	c := Chunk{Ref: ref, CRC: crc32.Checksum(job.data, castagnoli)}
	w.recent.put(c)
	job.node.chunks[job.number] = c
	return nil
}

// settled counts down a node; whoever comes last stores it. A file of a single chunk needs no node.
func (w *Writer) settled(n *fileNode) error {
	if n.left.Add(-1) > 0 {
		return nil
	}
	// A leaf with room for more ends after one chunk only where the file ends.
	if single := n.number == 0 && n.count == 1 && len(n.chunks) > 1; !single {
		if err := w.storeLeaf(n); err != nil {
			return err
		}
	}
	return n.fw.finished()
}

func (w *Writer) storeLeaf(n *fileNode) (err error) {
	plain := (&leaf{chunks: n.chunks[:n.count]}).encode()
	n.chunks = nil // a file of a terabyte must not keep its chunks until it ends
	leaves := n.fw.base.leaves
	if n.number < len(leaves) && leaves[n.number].ID == w.repo.name(plain) && w.shared.use(KindTree, &leaves[n.number].Ref) {
		n.ref = leaves[n.number].Ref
		return nil
	}
	n.ref, err = w.putNode(plain)
	return err
}

// finished counts down the file; whoever comes last records its entry.
func (fw *FileWriter) finished() (err error) {
	if fw.left.Add(-1) > 0 {
		return nil
	}
	if fw.entry.root, err = fw.root(); err != nil {
		return err
	}
	w := fw.w
	w.files.Add(1)
	w.mu.Lock()
	w.entries = append(w.entries, fw.entry)
	if w.open--; w.open == 0 {
		w.idle.Broadcast()
	}
	w.mu.Unlock()
	return nil
}

// root stores the index nodes above the leaves, level by level, until one node is left.
func (fw *FileWriter) root() (root, error) {
	switch {
	case len(fw.nodes) == 0:
		return root{form: rootEmpty}, nil
	case fw.nodes[0].chunks != nil: // it did not become a leaf
		return root{form: rootChunk, ref: fw.nodes[0].chunks[0]}, nil
	}
	level := make([]child, len(fw.nodes))
	for i, n := range fw.nodes {
		level[i] = child{Ref: n.ref, span: uint64(n.span)}
	}
	var depth byte
	for ; len(level) > 1; depth++ {
		var next []child
		for len(level) > 0 {
			n := min(len(level), fw.w.repo.header.FanOut)
			node, err := fw.storeIndex(depth+1, level[:n])
			if err != nil {
				return root{}, err
			}
			next, level = append(next, node), level[n:]
		}
		level = next
	}
	return root{form: rootNode, level: depth, ref: Chunk{Ref: level[0].Ref}}, nil
}

func (fw *FileWriter) storeIndex(depth byte, children []child) (out child, err error) {
	plain := encodeIndex(depth, children)
	for _, c := range children {
		out.span += c.span
	}
	if known, ok := fw.base.indexes[fw.w.repo.name(plain)]; ok && fw.w.shared.use(KindTree, &known) {
		out.Ref = known
		return out, nil
	}
	out.Ref, err = fw.w.putNode(plain)
	return out, err
}
