package repo

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// packer collects frames of one kind into packs and stores full packs behind the caller's back. A frame has its final
// place as soon as add returns; it is durable only after flush. Safe for concurrent use.
type packer struct {
	repo    *Repository
	cluster string
	kind    Kind
	slots   chan struct{} // of the uploads at one time: bounds the packs in memory
	ctx     context.Context
	fail    func(error)
	stored  *atomic.Int64

	mu    sync.Mutex
	id    PackID
	obj   *objectBuilder
	index []byte // one packIndexEntry a frame

	stateMu sync.Mutex                 // apart from mu, which close holds while it waits for an uploader
	free    [][]byte                   // buffers of stored packs
	pending map[chan struct{}]struct{} // closed when that upload has ended
}

// packIndexEntry is the size of one entry of a pack's last frame: ID, offset, stored, raw, each number 4 bytes.
const packIndexEntry = 32 + 12

// add appends payload, which encodes plain bytes of length raw named id, and returns its place.
func (p *packer) add(id ID, payload []byte, raw int) (Ref, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		return Ref{}, context.Cause(p.ctx)
	}
	if p.obj == nil {
		p.open()
	}
	ref := Ref{ID: id, Pack: p.id, Raw: uint32(raw)}
	ref.Frame, ref.Offset, ref.Stored = p.obj.append(payload, false)
	p.index = append(p.index, id[:]...)
	p.index = binary.LittleEndian.AppendUint32(p.index, ref.Offset)
	p.index = binary.LittleEndian.AppendUint32(p.index, ref.Stored)
	p.index = binary.LittleEndian.AppendUint32(p.index, ref.Raw)
	if len(p.obj.buf)+len(p.index) >= p.repo.header.PackSize {
		p.close()
	}
	return ref, nil
}

func (p *packer) open() {
	var buf []byte
	p.stateMu.Lock()
	if n := len(p.free); n > 0 {
		buf, p.free = p.free[n-1], p.free[:n-1]
	}
	p.stateMu.Unlock()
	p.id = newPackID()
	p.obj = p.repo.newObject(p.kind, packKey(p.cluster, p.kind, p.id), p.id, buf)
	p.index = p.index[:0]
}

// close ends the open pack with its index and hands it to an uploader; the caller holds mu. It blocks while the
// uploaders are busy, which is what slows the readers down to the store's pace.
func (p *packer) close() {
	if p.obj == nil {
		return
	}
	payload := append([]byte{codecNone}, p.index...)
	p.obj.append(payload, true)
	obj := p.obj
	p.obj = nil
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return
	}
	done := make(chan struct{})
	p.stateMu.Lock()
	if p.pending == nil {
		p.pending = make(map[chan struct{}]struct{})
	}
	p.pending[done] = struct{}{}
	p.stateMu.Unlock()
	go func() {
		if err := p.upload(obj); err != nil {
			p.fail(err)
		}
		<-p.slots
		p.stateMu.Lock()
		p.free = append(p.free, obj.buf)
		delete(p.pending, done)
		p.stateMu.Unlock()
		close(done)
	}()
}

func (p *packer) upload(obj *objectBuilder) error {
	key := obj.object.key
	if err := p.repo.putSealed(p.ctx, key, obj.buf); err != nil {
		return fmt.Errorf("store %v %s: %w", p.kind, key, err)
	}
	p.stored.Add(int64(len(obj.buf)))
	return nil
}

// flush stores the open pack and waits until every frame added before is durable, or an upload has failed.
func (p *packer) flush() error {
	p.mu.Lock()
	p.close()
	p.mu.Unlock()
	p.wait()
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	return nil
}

// wait waits for the uploads that have begun.
func (p *packer) wait() {
	p.stateMu.Lock()
	begun := slices.Collect(maps.Keys(p.pending))
	p.stateMu.Unlock()
	for _, done := range begun {
		<-done
	}
}
