package repo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// WriterOptions say how a backup's files are stored.
type WriterOptions struct {
	Cluster  string
	BackupID string
	// Compression of chunks; the zero value is Zstd.
	Compression Compression
	// Workers hash and compress; 0 is one for each CPU. Uploads store packs at the same time; 0 is 2. Memory is about
	// (4 × Workers + 8) chunks, 0.7 MiB for each worker that compresses with zstd, and Uploads + 3 packs.
	Workers, Uploads int
	// Baselines are asked in turn for what the repository has already.
	Baselines []Baseline
	// ParentPages are the file table pages of the parent, which are named again if they come out equal.
	ParentPages []PageRef
	// CheckpointEvery is the least time between two checkpoints, 0 is 10 s. What a dead attempt stored after its last
	// checkpoint is stored again by the next one.
	CheckpointEvery time.Duration
	// Inspect sees each chunk's plain bytes once, concurrently; it must not keep or change them. It may be nil.
	Inspect func(path string, offset int64, plain []byte)
}

// Stats count what a writer did so far. Bytes are plain bytes, but for StoredBytes.
type Stats struct {
	Files        int64 // finished files
	SourceBytes  int64 // read from the source
	ChangedBytes int64 // of these, in chunks that no baseline had at their place
	StoredBytes  int64 // of objects written to the store
	Chunks       int64
	NewChunks    int64 // chunks that were stored, not found
}

// Writer stores the files of one backup: hashing and compressing in parallel, in bounded memory. Files may be written
// concurrently. Nothing that it stores is visible to anyone until the manifest names it.
type Writer struct {
	repo    *Repository
	opts    WriterOptions
	ctx     context.Context
	stop    context.CancelCauseFunc // the first cause counts
	workers sync.WaitGroup
	jobs    chan *chunkJob
	buffers chan []byte
	data    *packer
	tree    *packer
	recent  recentChunks
	shared  *sharedPacks // of baselines and parent; nil without them

	ticker     sync.WaitGroup
	stopTicker func()

	files, source, changed, stored, chunks, newChunks atomic.Int64

	mu      sync.Mutex
	entries []Entry // finished, in order of finishing
	writing int     // files begun and not closed by their writer
	open    int     // files begun and not finished
	idle    *sync.Cond
	runs    int // checkpoints written
	inRuns  int // entries that they hold
}

// NewWriter starts the workers. The caller ends it by Finish or Close.
func (r *Repository) NewWriter(ctx context.Context, opts WriterOptions) (*Writer, error) {
	if err := errors.Join(CheckName(opts.Cluster), CheckBackupID(opts.BackupID)); err != nil {
		return nil, err
	}
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	if opts.Uploads <= 0 {
		opts.Uploads = 2
	}
	if opts.CheckpointEvery <= 0 {
		opts.CheckpointEvery = 10 * time.Second
	}
	w := &Writer{repo: r, opts: opts, jobs: make(chan *chunkJob, opts.Workers)}
	if len(opts.Baselines)+len(opts.ParentPages) > 0 {
		var err error
		if w.shared, err = r.listShared(ctx, opts.Cluster); err != nil {
			return nil, fmt.Errorf("begin backup %s: %w", opts.BackupID, err)
		}
	}
	w.ctx, w.stop = context.WithCancelCause(ctx)
	w.idle = sync.NewCond(&w.mu)
	w.buffers = make(chan []byte, 4*opts.Workers+8)
	for range cap(w.buffers) {
		w.buffers <- nil // allocated when first used
	}
	slots := make(chan struct{}, opts.Uploads)
	w.data = &packer{repo: r, cluster: opts.Cluster, kind: KindData, slots: slots, ctx: w.ctx, fail: w.stop, stored: &w.stored}
	w.tree = &packer{repo: r, cluster: opts.Cluster, kind: KindTree, slots: slots, ctx: w.ctx, fail: w.stop, stored: &w.stored}
	for range opts.Workers {
		c, err := newCompressor(opts.Compression, r.header.ChunkSize)
		if err != nil {
			w.Close()
			return nil, err
		}
		w.workers.Go(func() {
			if err := w.work(c); err != nil {
				w.stop(err)
			}
		})
	}
	done := make(chan struct{})
	w.stopTicker = sync.OnceFunc(func() { close(done); w.ticker.Wait() })
	w.ticker.Go(func() { w.checkpoints(done) })
	return w, nil
}

// Stats may be called at any time, for progress.
func (w *Writer) Stats() Stats {
	return Stats{
		Files: w.files.Load(), SourceBytes: w.source.Load(), ChangedBytes: w.changed.Load(),
		StoredBytes: w.stored.Load(), Chunks: w.chunks.Load(), NewChunks: w.newChunks.Load(),
	}
}

// Add records a directory or symbolic link.
func (w *Writer) Add(e Entry) error {
	if e.Type != TypeDir && e.Type != TypeSymlink {
		return fmt.Errorf("store %s: a file's content is written by File", e.Path)
	}
	if err := checkPath(e.Path); err != nil {
		return fmt.Errorf("store the file table: %w", err)
	}
	if len(e.Link) > maxPath {
		return fmt.Errorf("store %s: its target has %d bytes, the limit is %d", e.Path, len(e.Link), maxPath)
	}
	w.mu.Lock()
	w.entries = append(w.entries, e)
	w.mu.Unlock()
	return nil
}

// Close stops the writer without finishing: what is stored stays, invisible. It is safe after Finish.
func (w *Writer) Close() {
	w.stop(errors.New("the backup was given up"))
	w.workers.Wait()
	if w.stopTicker != nil {
		w.stopTicker()
	}
	w.data.wait()
	w.tree.wait()
}

// Table is what a manifest says about files.
type Table struct {
	Pages []PageRef `json:"pages"`
	Files int64     `json:"files"` // entries of all types
}

// Finish waits until all that was written is durable, stores the file table, and returns it for the manifest. It fails
// if a FileWriter is not closed: its file would be missing; and if a pack that the backup shares with an earlier one has
// gone meanwhile, which another attempt mends.
func (w *Writer) Finish() (Table, error) {
	defer w.Close()
	if err := w.waitFiles(); err != nil {
		return Table{}, err
	}
	w.stopTicker()
	if w.ctx.Err() != nil {
		return Table{}, context.Cause(w.ctx)
	}
	close(w.jobs)
	w.workers.Wait()
	table, err := w.storeTable()
	if err != nil {
		return Table{}, err
	}
	if err := w.flush(); err != nil {
		return Table{}, err
	}
	return table, w.shared.recheck(w.ctx)
}

// flush makes durable all that was added before.
func (w *Writer) flush() error {
	if err := w.data.flush(); err != nil {
		return err
	}
	return w.tree.flush()
}

// waitFiles waits until every file that was closed is finished, or the writer failed.
func (w *Writer) waitFiles() error {
	stop := context.AfterFunc(w.ctx, func() { w.mu.Lock(); w.idle.Broadcast(); w.mu.Unlock() })
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.open > 0 && w.ctx.Err() == nil {
		if w.writing > 0 {
			return fmt.Errorf("finish the backup: %d files were begun and not closed", w.writing)
		}
		w.idle.Wait()
	}
	return nil
}

func (w *Writer) storeTable() (Table, error) {
	w.mu.Lock()
	entries := w.entries
	w.mu.Unlock()
	sortEntries(entries)
	for i := 1; i < len(entries); i++ {
		if entries[i].Path == entries[i-1].Path {
			return Table{}, fmt.Errorf("store the file table: %s stands in it twice", entries[i].Path)
		}
	}
	known := make(map[ID]Ref, len(w.opts.ParentPages))
	for _, p := range w.opts.ParentPages {
		known[p.Ref.ID] = p.Ref
	}
	comp, err := newCompressor(Zstd, frameSize)
	if err != nil {
		return Table{}, err
	}
	table := Table{Files: int64(len(entries))}
	err = encodePages(entries, func(first string, page []byte) error {
		ref, ok := known[w.repo.name(page)]
		if !ok || !w.shared.use(KindTree, &ref) {
			var err error
			if ref, err = w.tree.add(w.repo.name(page), comp.payload(page), len(page)); err != nil {
				return err
			}
		}
		table.Pages = append(table.Pages, PageRef{First: first, Ref: ref})
		return nil
	})
	return table, err
}

// putNode stores a node. Nodes are mostly hashes, so they are not compressed.
func (w *Writer) putNode(plain []byte) (Ref, error) {
	return w.tree.add(w.repo.name(plain), append([]byte{codecNone}, plain...), len(plain))
}

// recentChunks remembers the places of the last few thousand chunks that were stored, which catches what is many times
// in one cluster: databases made from one template.
type recentChunks struct {
	mu   sync.Mutex
	byID map[ID]Chunk
	ring [8192]ID
	next int
}

func (rc *recentChunks) get(id ID) (Chunk, bool) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	c, ok := rc.byID[id]
	return c, ok
}

func (rc *recentChunks) put(c Chunk) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.byID == nil {
		rc.byID = make(map[ID]Chunk)
	}
	delete(rc.byID, rc.ring[rc.next])
	rc.ring[rc.next] = c.ID
	rc.byID[c.ID] = c
	rc.next = (rc.next + 1) % len(rc.ring)
}
