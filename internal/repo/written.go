package repo

import (
	"cmp"
	"context"
	"iter"
	"slices"
)

// Written waits until every file that was closed is finished, and yields the entries so far, in order of paths: for a
// list of a backup's files that is itself one of them (R9). It fails if a file was begun and not closed, or if the
// writer failed. It may not be called together with Finish. It costs 4 bytes an entry.
func (w *Writer) Written() (iter.Seq[Entry], error) {
	if err := w.waitFiles(); err != nil {
		return nil, err
	}
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	w.mu.Lock()
	entries := w.entries[:len(w.entries):len(w.entries)] // what is there is not changed any more before Finish
	w.mu.Unlock()
	order := make([]uint32, len(entries))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(entries[a].Path, entries[b].Path) })
	return func(yield func(Entry) bool) {
		for _, i := range order {
			if !yield(entries[i]) {
				return
			}
		}
	}, nil
}
