package repo_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// docRef is a reference (section 5).
type docRef struct {
	id, pack                   []byte
	frame, offset, stored, raw uint64
}

// read reads one frame by its reference: one ranged request.
func (r *docReader) read(cluster string, kind byte, ref docRef) ([]byte, error) {
	name := hex.EncodeToString(ref.pack)
	dir := map[byte]string{docData: "data", docTree: "tree"}[kind]
	key := "clusters/" + cluster + "/" + dir + "/" + name[:2] + "/" + name
	body, err := r.store.Get(r.ctx, key, int64(ref.offset), int64(ref.stored))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	r.gets++
	var sealed bytes.Buffer
	if _, err := sealed.ReadFrom(body); err != nil {
		return nil, err
	}
	b := sealed.Bytes()
	payload := b[:len(b)-16]
	if !bytes.Equal(b[len(b)-16:], r.tag(kind, key, ref.pack, ref.frame, false, payload)) {
		return nil, fmt.Errorf("%s: tag of frame %d", key, ref.frame)
	}
	plain, err := r.decode(payload, int(ref.raw))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(r.name(plain), ref.id) {
		return nil, fmt.Errorf("%s: frame %d does not hash to its name", key, ref.frame)
	}
	return plain, nil
}

// fields reads the encodings of section 1.
type fields struct{ b []byte }

func (f *fields) bytes(n uint64) []byte {
	out := f.b[:n]
	f.b = f.b[n:]
	return out
}

func (f *fields) u8() byte    { return f.bytes(1)[0] }
func (f *fields) u32() uint32 { return binary.LittleEndian.Uint32(f.bytes(4)) }

func (f *fields) uvarint() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := f.u8()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

func (f *fields) varint() int64 {
	v := f.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (f *fields) str() string { return string(f.bytes(f.uvarint())) }

func (f *fields) packTable() (packs [][]byte) {
	for n := f.uvarint(); n > 0; n-- {
		packs = append(packs, f.bytes(32))
	}
	return packs
}

func (f *fields) ref(packs [][]byte) docRef {
	return docRef{f.bytes(32), packs[f.uvarint()], f.uvarint(), f.uvarint(), f.uvarint(), f.uvarint()}
}

// docExtent is a run of a file's bytes.
type docExtent struct {
	chunk          docRef
	crc            uint32
	offset, length uint64
}

// leaf decodes a leaf (section 5).
func (r *docReader) leaf(b []byte) (extents []docExtent, err error) {
	f := &fields{b}
	if t := f.u8(); t != 1 {
		return nil, fmt.Errorf("leaf of type %d", t)
	}
	packs := f.packTable()
	var chunks []docExtent
	for n := f.uvarint(); n > 0; n-- {
		ref := f.ref(packs)
		chunks = append(chunks, docExtent{chunk: ref, crc: f.u32(), length: ref.raw})
	}
	for n := f.uvarint(); n > 0; n-- {
		e := chunks[f.uvarint()]
		e.offset, e.length = f.uvarint(), f.uvarint()
		extents = append(extents, e)
	}
	if len(f.b) != 0 {
		return nil, fmt.Errorf("%d bytes behind a leaf", len(f.b))
	}
	if extents == nil {
		extents = chunks
	}
	return extents, nil
}

// docChild is a child of an index node.
type docChild struct {
	ref  docRef
	span uint64
}

// index decodes an index node (section 5).
func (r *docReader) index(b []byte, level byte) (children []docChild, err error) {
	f := &fields{b}
	if t, l := f.u8(), f.u8(); t != 2 || l != level {
		return nil, fmt.Errorf("index of type %d, level %d, not %d", t, l, level)
	}
	packs := f.packTable()
	for n := f.uvarint(); n > 0; n-- {
		children = append(children, docChild{f.ref(packs), f.uvarint()})
	}
	if len(f.b) != 0 {
		return nil, fmt.Errorf("%d bytes behind an index node", len(f.b))
	}
	return children, nil
}

// docEntry is an entry of the file table (section 6).
type docEntry struct {
	path, link string
	kind       byte
	mode       uint64
	mtime      int64
	size       uint64
	crc        uint32
	form       byte
	level      byte
	root       docRef
}

func (r *docReader) page(b []byte) (entries []docEntry, err error) {
	f := &fields{b}
	packs := f.packTable()
	path := ""
	for n := f.uvarint(); n > 0; n-- {
		var e docEntry
		e.path = path[:f.uvarint()]
		e.path += f.str()
		path = e.path
		e.kind, e.mode, e.mtime = f.u8(), f.uvarint(), f.varint()
		switch e.kind {
		case 1:
			e.size, e.crc, e.form = f.uvarint(), f.u32(), f.u8()
			if e.form == 2 {
				e.level = f.u8()
			}
			if e.form != 0 {
				e.root = f.ref(packs)
			}
		case 3:
			e.link = f.str()
		}
		entries = append(entries, e)
	}
	if len(f.b) != 0 {
		return nil, fmt.Errorf("%d bytes behind a page", len(f.b))
	}
	return entries, nil
}

// docManifestJSON is what a reader needs of a manifest (section 7).
type docManifestJSON struct {
	Format            int
	Cluster, BackupID string
	SystemIdentifier  string
	StartLsn, StopLsn string
	Table             struct {
		Files int
		Pages []struct {
			First, FirstHex string
			Ref             struct {
				ID, Pack                   string
				Frame, Offset, Stored, Raw uint64
			}
		}
	}
}

func (r *docReader) manifest(cluster, id string) (m docManifestJSON, err error) {
	data, err := r.content("clusters/"+cluster+"/backups/"+id, docManifest)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Format != 1 || m.Cluster != cluster || m.BackupID != id {
		return m, fmt.Errorf("manifest of %s %s, format %d", m.Cluster, m.BackupID, m.Format)
	}
	return m, nil
}

func (m *docManifestJSON) page(i int) (first string, ref docRef, err error) {
	p := m.Table.Pages[i]
	raw, err1 := hex.DecodeString(p.FirstHex)
	id, err2 := hex.DecodeString(p.Ref.ID)
	pack, err3 := hex.DecodeString(p.Ref.Pack)
	return p.First + string(raw), docRef{id, pack, p.Ref.Frame, p.Ref.Offset, p.Ref.Stored, p.Ref.Raw}, errors.Join(err1, err2, err3)
}

// docWAL reads a WAL object (section 9).
func (r *docReader) wal(cluster, name string) (facts json.RawMessage, file []byte, err error) {
	key := "clusters/" + cluster + "/wal/segments/" + name[:16] + "/" + name
	if strings.HasSuffix(name, ".history") {
		key = "clusters/" + cluster + "/wal/history/" + name
	}
	pieces, err := r.pieces(key, docWAL)
	if err != nil {
		return nil, nil, err
	}
	var head struct {
		Name, Content, SystemIdentifier string
		Length                          int
		Facts                           json.RawMessage
	}
	if err := json.Unmarshal(pieces[0], &head); err != nil {
		return nil, nil, err
	}
	if _, err := strconv.ParseUint(head.SystemIdentifier, 10, 64); err != nil {
		return nil, nil, err
	}
	file = bytes.Join(pieces[1:], nil)
	if head.Name != name || head.Length != len(file) || head.Content != hex.EncodeToString(r.name(file)) {
		return nil, nil, fmt.Errorf("%s: head %s does not describe %d bytes", key, pieces[0], len(file))
	}
	return head.Facts, file, nil
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
