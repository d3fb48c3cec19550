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

	"lifeboat/internal/pg"
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

// CheckObject reads one object whole and checks all that can be checked of it alone: each frame's tag, the order and
// the end of the frames, and that each chunk, node, page or WAL file hashes to its name. It returns the plain bytes
// that it saw, and *DamageError for what is wrong.
func (r *Repository) CheckObject(ctx context.Context, key string) (plain int64, err error) {
	switch kind := placeOf(key).Kind; kind {
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

// WALKey is the key of a WAL file's object: what findings name.
func WALKey(cluster, name string) string { return walKey(cluster, name) }

// IdentityKey is the key of a cluster's identity.
func IdentityKey(cluster string) string { return identityKey(cluster) }

// BackupKey is the key of a backup's manifest.
func BackupKey(cluster, id string) string { return backupKey(cluster, id) }

// HeaderKey is the key of the repository's own header.
const HeaderKey = headerKey

// BackupIDs lists the visible backups, oldest first, without reading their manifests: a damaged one is in the list.
func (r *Repository) BackupIDs(ctx context.Context, cluster string) ([]string, error) {
	var ids []string
	prefix := backupPrefix(cluster)
	for info, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list backups of %s: %w", cluster, err)
		}
		ids = append(ids, strings.TrimPrefix(info.Key, prefix))
	}
	return ids, nil
}

func (r *Repository) checkWAL(ctx context.Context, key string) (int64, error) {
	parts := strings.SplitN(key, "/", 3)
	name := key[strings.LastIndexByte(key, '/')+1:]
	if _, err := pg.ParseWALFileName(name); err != nil || walKey(parts[1], name) != key {
		return 0, &DamageError{Key: key, Frame: -1, Reason: "no WAL file has this key: it was copied or renamed"}
	}
	w, err := r.OpenWAL(ctx, parts[1], name)
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
	offset := uint32(headerSize)
	for i, payload := range payloads {
		e := index[i*packIndexEntry:]
		raw := binary.LittleEndian.Uint32(e[40:])
		damaged := func(reason string) error { return &DamageError{Key: o.key, Frame: i, Reason: reason} }
		offset += lengthSize
		stored := uint32(len(payload) + tagSize)
		if binary.LittleEndian.Uint32(e[32:]) != offset || binary.LittleEndian.Uint32(e[36:]) != stored {
			return total, damaged("the index has another place for it")
		}
		offset += stored
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

// PackUse is a pack that a backup needs, and how far into it. It takes 48 bytes: a backup of 1 TB names some 60 thousand.
type PackUse struct {
	Kind Kind // KindData or KindTree
	Pack PackID
	End  int64 // bytes: the object must be longer than this, since its index follows
}

// Key is the pack's object.
func (u PackUse) Key(cluster string) string { return packKey(cluster, u.Kind, u.Pack) }

// Packs lists the packs that a backup needs, each once, in no particular order. It reads the whole tree. What of the tree
// cannot be used is given to bad, and the rest is listed all the same; an error from bad ends the listing. Each call of
// bad is for a node or page that is damaged or gone, and names its object.
func (s *Snapshot) Packs(ctx context.Context, bad func(error) error) ([]PackUse, error) {
	type pack struct {
		kind Kind
		id   PackID
	}
	ends := map[pack]int64{}
	use := func(kind Kind, ref *Ref) {
		p := pack{kind, ref.Pack}
		ends[p] = max(ends[p], int64(ref.Offset)+int64(ref.Stored))
	}
	check := func(err error) error {
		if unusable(err) {
			return bad(err)
		}
		return err
	}
	var files int64
	for i := range s.Manifest.Table.Pages {
		p := &s.Manifest.Table.Pages[i]
		use(KindTree, &p.Ref)
		entries, err := s.page(ctx, *p)
		if err != nil {
			if err := check(err); err != nil {
				return nil, err
			}
			files = -1
			continue
		}
		if files >= 0 {
			files += int64(len(entries))
		}
		for j := range entries {
			if err := s.eachRef(ctx, &entries[j], use, check); err != nil {
				return nil, err
			}
		}
	}
	if want := s.Manifest.Table.Files; files >= 0 && files != want {
		key := backupKey(s.Manifest.Cluster, s.Manifest.BackupID)
		if err := bad(&DamageError{Key: key, Frame: 0, Reason: fmt.Sprintf("its file table has %d entries, not %d", files, want)}); err != nil {
			return nil, err
		}
	}
	out := make([]PackUse, 0, len(ends))
	for p, end := range ends {
		out = append(out, PackUse{p.kind, p.id, end})
	}
	return out, nil
}

// eachRef gives every ref that a file's content needs. check decides whether an error of a node is passed over.
func (s *Snapshot) eachRef(ctx context.Context, e *Entry, use func(Kind, *Ref), check func(error) error) error {
	switch e.root.form {
	case rootChunk:
		use(KindData, &e.root.ref.Ref)
	case rootNode:
		return s.eachNode(ctx, child{Ref: e.root.ref.Ref, span: uint64(e.Size)}, e.root.level, use, check)
	}
	return nil
}

func (s *Snapshot) eachNode(ctx context.Context, n child, level byte, use func(Kind, *Ref), check func(error) error) error {
	use(KindTree, &n.Ref)
	if level == 0 {
		l, err := s.rd.leaf(ctx, n.Ref)
		if err != nil {
			return check(err)
		}
		for i := range l.chunks {
			use(KindData, &l.chunks[i].Ref)
		}
		return nil
	}
	children, err := s.rd.index(ctx, n, level)
	if err != nil {
		return check(err)
	}
	for _, c := range children {
		if err := s.eachNode(ctx, c, level-1, use, check); err != nil {
			return err
		}
	}
	return nil
}

// CheckSize tells whether a pack is there and longer than is used of it, without reading it (level 0 of the ladder). The
// error wraps ErrNotFound if it is gone, and is *DamageError if it is too short.
func (r *Repository) CheckSize(ctx context.Context, cluster string, use PackUse) error {
	key := use.Key(cluster)
	info, err := r.store.Stat(ctx, key)
	if err != nil {
		return fmt.Errorf("look for %s: %w", key, err)
	}
	if info.Size <= use.End {
		return &DamageError{Key: key, Frame: -1, Reason: fmt.Sprintf("it has %d bytes, and should have more than %d", info.Size, use.End)}
	}
	return nil
}
