package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
)

// ObjectInfo is one stored object as listed.
type ObjectInfo struct {
	Key  string
	Size int64 // bytes
}

// Objects lists every object of a cluster, ascending by key.
func (r *Repository) Objects(ctx context.Context, cluster string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		for info, err := range r.store.List(ctx, clusterPrefix(cluster), "") {
			if err != nil {
				yield(ObjectInfo{}, fmt.Errorf("list objects of %s: %w", cluster, err))
				return
			}
			if !yield(ObjectInfo{Key: info.Key, Size: info.Size}, nil) {
				return
			}
		}
	}
}

// kindOf tells what the place of an object says that it is.
func kindOf(key string) Kind {
	parts := strings.SplitN(key, "/", 4)
	if len(parts) < 3 {
		return KindDocument
	}
	switch parts[2] {
	case "data":
		return KindData
	case "tree":
		return KindTree
	case "backups":
		return KindManifest
	case "wal":
		return KindWAL
	case "intents":
		if strings.Contains(key[strings.LastIndexByte(key, '/'):], "/run-") {
			return KindRun
		}
	}
	return KindDocument
}

// CheckObject reads one object whole and checks all that can be checked of it alone: each frame's tag, the order and
// the end of the frames, and that each chunk, node, page or WAL file hashes to its name. It returns the plain bytes
// that it saw, and *DamageError for what is wrong.
func (r *Repository) CheckObject(ctx context.Context, key string) (plain int64, err error) {
	switch kind := kindOf(key); kind {
	case KindData, KindTree:
		return r.checkPack(ctx, kind, key)
	case KindWAL:
		return r.checkWAL(ctx, key)
	default:
		data, err := r.readAll(ctx, kind, key)
		if err != nil {
			return 0, err
		}
		if kind != KindRun && !json.Valid(data) {
			return 0, &DamageError{Key: key, Frame: 0, Reason: "it is not JSON"}
		}
		return int64(len(data)), nil
	}
}

func (r *Repository) checkWAL(ctx context.Context, key string) (int64, error) {
	parts := strings.SplitN(key, "/", 3)
	w, err := r.OpenWAL(ctx, parts[1], key[strings.LastIndexByte(key, '/')+1:])
	if err != nil {
		return 0, err
	}
	defer w.Close()
	return w.WriteTo(io.Discard)
}

// checkPack holds one pack in memory. Its last frame names what the others hold.
func (r *Repository) checkPack(ctx context.Context, kind Kind, key string) (int64, error) {
	in, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, 2*maxFrame))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	o, err := r.openHeader(kind, key, data)
	if err != nil {
		return 0, err
	}
	frames, index, err := r.packFrames(o, data)
	if err != nil {
		return 0, err
	}
	return r.checkPackIndex(o, frames, index)
}

// packFrames cuts a pack into the payloads of its frames, each checked, and its index.
func (r *Repository) packFrames(o *object, data []byte) (payloads [][]byte, index []byte, err error) {
	damaged := func(reason string) error { return &DamageError{Key: o.key, Frame: len(payloads), Reason: reason} }
	for at := headerSize; ; {
		if len(data)-at < lengthSize {
			return nil, nil, damaged("the pack ends before its last frame")
		}
		word := binary.LittleEndian.Uint32(data[at:])
		last, n := word&lastFrameBit != 0, int(word&^lastFrameBit)
		at += lengthSize
		if n < tagSize || n > len(data)-at {
			return nil, nil, damaged("it is truncated")
		}
		payload, err := r.openFrame(o, uint32(len(payloads)), last, data[at:at+n])
		if err != nil {
			return nil, nil, err
		}
		at += n
		if !last {
			payloads = append(payloads, payload)
			continue
		}
		if at != len(data) || len(payload) == 0 || payload[0] != codecNone {
			return nil, nil, damaged("bytes follow the last frame, or it is no index")
		}
		return payloads, payload[1:], nil
	}
}

// checkPackIndex compares what a pack holds with what its index says.
func (r *Repository) checkPackIndex(o *object, payloads [][]byte, index []byte) (int64, error) {
	if len(index) != len(payloads)*packIndexEntry {
		return 0, &DamageError{Key: o.key, Frame: len(payloads), Reason: fmt.Sprintf("its index has %d bytes for %d frames", len(index), len(payloads))}
	}
	var total int64
	var plain []byte
	for i, payload := range payloads {
		e := index[i*packIndexEntry:]
		raw := binary.LittleEndian.Uint32(e[40:])
		damaged := func(reason string) error { return &DamageError{Key: o.key, Frame: i, Reason: reason} }
		if raw > maxFrame {
			return total, damaged(fmt.Sprintf("it claims %d plain bytes", raw))
		}
		var err error
		if plain, err = r.decompress(plain, payload, int(raw)); err != nil {
			return total, damaged(err.Error())
		}
		if id := r.name(plain); !bytes.Equal(id[:], e[:32]) {
			return total, damaged("its content does not hash to its name")
		}
		total += int64(raw)
	}
	return total, nil
}

// PackUse is a pack that a backup needs, and how far into it.
type PackUse struct {
	Key string
	End int64 // bytes: the object must be longer than this, since its index follows
}

// Packs lists the packs that a backup needs, each once, in no particular order. It reads the whole tree, and holds
// about 100 bytes a pack.
func (s *Snapshot) Packs(ctx context.Context) ([]PackUse, error) {
	ends := map[string]int64{}
	use := func(kind Kind, ref *Ref) {
		key := packKey(s.rd.cluster, kind, ref.Pack)
		ends[key] = max(ends[key], int64(ref.Offset)+int64(ref.Stored))
	}
	for i := range s.Manifest.Table.Pages {
		use(KindTree, &s.Manifest.Table.Pages[i].Ref)
	}
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if err := s.eachRef(ctx, &e, use); err != nil {
			return nil, err
		}
	}
	out := make([]PackUse, 0, len(ends))
	for key, end := range ends {
		out = append(out, PackUse{key, end})
	}
	return out, nil
}

// eachRef gives every ref that a file's content needs.
func (s *Snapshot) eachRef(ctx context.Context, e *Entry, use func(Kind, *Ref)) error {
	switch e.root.form {
	case rootChunk:
		use(KindData, &e.root.ref.Ref)
	case rootNode:
		nodes := []child{{Ref: e.root.ref.Ref}}
		for level := e.root.level; level > 0; level-- {
			var next []child
			for i := range nodes {
				use(KindTree, &nodes[i].Ref)
				plain, err := s.rd.tree(ctx, nodes[i].Ref)
				if err != nil {
					return err
				}
				children, err := decodeIndex(plain, level)
				if err != nil {
					return s.rd.damagedTree(nodes[i].Ref, err)
				}
				next = append(next, children...)
			}
			nodes = next
		}
		for i := range nodes {
			use(KindTree, &nodes[i].Ref)
			l, err := s.rd.leaf(ctx, nodes[i].Ref)
			if err != nil {
				return err
			}
			for j := range l.chunks {
				use(KindData, &l.chunks[j].Ref)
			}
		}
	}
	return nil
}

// CheckSize tells whether an object is there and longer than end bytes, without reading it (level 0 of the ladder).
func (r *Repository) CheckSize(ctx context.Context, use PackUse) error {
	info, err := r.store.Stat(ctx, use.Key)
	if err != nil {
		return fmt.Errorf("look for %s: %w", use.Key, err)
	}
	if info.Size <= use.End {
		return &DamageError{Key: use.Key, Frame: -1, Reason: fmt.Sprintf("it has %d bytes, and should have more than %d", info.Size, use.End)}
	}
	return nil
}
